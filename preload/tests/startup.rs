//! The library's cost for a short program.
#![allow(missing_docs)]

mod library;

use library::{command, compile, library, scratch, text};
use std::path::Path;

/// The most wall time that a program with the library may take, as a multiple of the time without.
/// The heap is made when the library is loaded, as a program may forbid itself the calls for that
/// before it allocates: also a program that allocates nothing pays for it. Half of that is the
/// reading of the control groups' limits.
const MOST_TIME: f64 = 1.8;
/// The most resident memory that the library may add, in KiB.
const MOST_MEMORY: i64 = 1536;

/// The ratio of the medians of the wall times, and the difference of the resident memory in KiB.
fn cost(spawn: &Path, rounds: &str, program: &Path) -> (f64, i64) {
    let said = text(command(120, spawn).arg(rounds).arg(library()).arg(program));
    let figures: Vec<i64> = said
        .split_whitespace()
        .map(|f| f.parse().unwrap())
        .collect();
    println!("{}: {said}", program.display());
    (
        figures[1] as f64 / figures[0] as f64,
        figures[3] - figures[2],
    )
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
