//! The library's cost for a short program.
#![allow(missing_docs)]

mod library;

use library::programs::absent;
use library::{command, compile, library, scratch, text};
use std::path::Path;

/// The most wall time that a program with the library may take, as a multiple of the time without.
/// The heap is made when the library is loaded, as a program may forbid itself the calls for that
/// before it allocates: also a program that allocates nothing pays for it. Half of that is the
/// reading of the control groups' limits.
const MOST_TIME: f64 = 1.8;
/// The most resident memory that the library may add, in KiB.
const MOST_MEMORY: i64 = 1536;

/// The most resident memory of an interpreter with the library that starts and ends, in KiB.
const MOST_OF_PYTHON: i64 = 17 << 10;

/// The medians of the wall times in ns, without and with the library, and the maxima of the
/// resident memory in KiB, of a program that is run `rounds` times either way.
fn figures(spawn: &Path, rounds: &str, program: &Path, arguments: &[&str]) -> [i64; 4] {
    let mut run = command(120, spawn);
    run.arg(rounds).arg(library()).arg(program).args(arguments);
    let said = text(&mut run);
    println!("{}: {said}", program.display());
    let figures = said.split_whitespace().map(|f| f.parse().unwrap());
    figures.collect::<Vec<_>>().try_into().unwrap()
}

/// The ratio of the medians of the wall times, and the difference of the resident memory in KiB.
fn cost(spawn: &Path, rounds: &str, program: &Path) -> (f64, i64) {
    let [plain, with, plain_kib, with_kib] = figures(spawn, rounds, program, &[]);
    (with as f64 / plain as f64, with_kib - plain_kib)
}

#[test]
fn short_programs_stay_cheap() {
    let spawn = compile("spawn.c", "spawn", &["-O2", "-static"]);
    let source = scratch("one").join("one.c");
    std::fs::write(
        &source,
        "#include <stdlib.h>\nint main(void) { free(malloc(100)); return 0; }\n",
    )
    .unwrap();
    let one = source.with_extension("out");
    let built = std::process::Command::new("cc")
        .args(["-fno-builtin", "-o"])
        .args([&one, &source])
        .status();
    assert!(built.unwrap().success());
    for program in [Path::new("/bin/true"), &one] {
        // The machine's noise comes in bursts: one may spoil two of the five looks.
        let mut looks: Vec<_> = (0..5).map(|_| cost(&spawn, "200", program)).collect();
        looks.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (time, memory) = looks[2];
        println!(
            "{}: {time:.3} times the wall time, {memory} KiB more",
            program.display()
        );
        assert!(memory <= MOST_MEMORY);
        assert!(time <= MOST_TIME);
    }
}

/// On the pages that theap chooses itself (`auto`), as nothing else is in the environment.
#[test]
fn an_interpreter_that_does_nothing_stays_small() {
    let python = Path::new("/usr/bin/python3");
    if !python.exists() {
        return absent("no /usr/bin/python3");
    }
    let spawn = compile("spawn.c", "spawn-python", &["-O2", "-static"]);
    let [.., plain, with] = figures(&spawn, "5", python, &["-c", "pass"]);
    println!("{plain} KiB without the library, {with} KiB with it");
    assert!(with <= MOST_OF_PYTHON);
}
