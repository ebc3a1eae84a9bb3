//! C programs with a sanitizer's malloc, and `libtheap.so` preloaded behind it: the sanitizer
//! serves the program and finds the same faults as without the library, and no block of one goes to
//! the other.
#![allow(missing_docs)]

mod library;

use library::{command, compile, library};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DEADLINE: u32 = 60;

/// The compiler's runtime of this name. If it is not installed it is `None`, and a message says so.
fn runtime(name: &str) -> Option<PathBuf> {
    let said = Command::new("cc")
        .arg(format!("-print-file-name={name}"))
        .output()
        .unwrap();
    let path = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
    if !path.is_absolute() {
        assert!(std::env::var_os("CI").is_none(), "no {name}");
        eprintln!("skipped: no {name}");
        return None;
    }
    Some(path)
}

/// Runs the program with these libraries preloaded, and with a wrong option, about which theap's
/// heap writes a message if the program uses it.
fn run(program: &Path, what: &str, libraries: &[&Path]) -> (Output, String) {
    let list: Vec<_> = libraries
        .iter()
        .map(|path| path.to_str().unwrap())
        .collect();
    let output = command(DEADLINE, "env")
        .arg(format!("LD_PRELOAD={}", list.join(":")))
        .arg("THEAP_PAGES=wrong")
        .args([program.to_str().unwrap(), what])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

fn serves_alone(program: &Path, libraries: &[&Path], misuse: &str, report: &str) {
    let (output, said) = run(program, "clean", libraries);
    assert!(output.status.success() && said.is_empty(), "{said}");
    let (output, said) = run(program, misuse, libraries);
    assert!(!output.status.success() && said.contains(report), "{said}");
    assert!(!said.contains("theap:"), "{said}");
}

#[test]
fn address_sanitizer_before_the_library() {
    let Some(asan) = runtime("libasan.so") else {
        return;
    };
    let program = compile("misuse.c", "asan", &["-fsanitize=address", "-w"]);
    let libraries = [&asan, &library()];
    serves_alone(
        &program,
        &libraries.map(PathBuf::as_path),
        "overflow",
        "heap-buffer-overflow",
    );
}

#[test]
fn address_sanitizer_in_the_program() {
    if runtime("libasan.a").is_none() {
        return;
    }
    let program = compile(
        "misuse.c",
        "static",
        &["-fsanitize=address", "-static-libasan", "-w"],
    );
    serves_alone(&program, &[&library()], "overflow", "heap-buffer-overflow");
}

#[test]
fn thread_sanitizer_before_the_library() {
    let Some(tsan) = runtime("libtsan.so") else {
        return;
    };
    let program = compile("misuse.c", "tsan", &["-fsanitize=thread", "-w"]);
    let libraries = [&tsan, &library()];
    serves_alone(
        &program,
        &libraries.map(PathBuf::as_path),
        "race",
        "data race",
    );
}

/// The sanitizer reports the wrong order, in which blocks of its own would come to theap's `free`.
#[test]
fn address_sanitizer_behind_the_library() {
    let Some(asan) = runtime("libasan.so") else {
        return;
    };
    let program = compile("misuse.c", "behind", &["-fsanitize=address", "-w"]);
    let (output, said) = run(&program, "clean", &[&library(), &asan]);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("ASan runtime does not come first"), "{said}");
}
