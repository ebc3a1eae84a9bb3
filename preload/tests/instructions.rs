//! The instructions that malloc and free, new and delete take, as callgrind counts them: a change
//! that makes the paths longer fails here, on any machine and under any load.
#![allow(missing_docs)]

mod library;

use library::{compile, preloaded, succeed};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Iterations by which two runs differ; the work that both do (starting, the first refill) cancels
/// out.
const TURNS: u64 = 100_000;

/// Instructions of the callees in an allocator that does nothing: `lea, ret` and `ret`.
const NOTHING: f64 = 3.0;

/// Instructions in a turn of `pattern`, the loop around the calls included.
fn per_turn(program: &Path, pattern: &str, allocator: &str) -> f64 {
    let collected = |turns: u64| {
        let output = succeed(
            preloaded(120, "valgrind")
                .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
                .arg(program)
                .args([pattern, allocator, &turns.to_string()]),
        );
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| line.contains("Collected :"));
        let number = line.and_then(|line| line.rsplit(' ').next()).unwrap();
        number.parse::<u64>().unwrap()
    };
    (collected(2 * TURNS) - collected(TURNS)) as f64 / TURNS as f64
}

/// Instructions that theap takes in a turn of the pattern, by these functions.
fn taken(pattern: &str, functions: &str) -> f64 {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let compiled = || compile("paths.c", "paths", &["-O2", "-fcf-protection=none"]);
    let program = PROGRAM.get_or_init(compiled);
    let count = per_turn(program, pattern, functions) - per_turn(program, pattern, "nothing");
    println!("{pattern}, {functions}: {count:.2} instructions more than nothing");
    count
}

/// A malloc that hits has 14 instructions, a free that hits 16.
#[test]
fn a_pair_that_hits() {
    let count = taken("hit", "malloc") + NOTHING;
    assert!((28.0..=30.5).contains(&count), "{count} instructions");
}

/// The random mix, with one call in a turn: nearly all calls hit, and the cost of refills and
/// drains shows here too.
#[test]
fn the_random_mix() {
    let count = taken("mixed", "malloc") + NOTHING / 2.0;
    assert!((13.0..=15.5).contains(&count), "{count} instructions");
}

/// C++'s operators take no more than malloc and free; the array forms, and a sized delete, are one
/// jump from the others.
#[test]
fn a_pair_of_cpp() {
    let c = taken("hit", "malloc");
    let (cpp, array) = (taken("hit", "new"), taken("hit", "array"));
    let sized = taken("sized", "new");
    assert!(cpp <= c + 0.1, "{cpp}, malloc and free: {c}");
    assert!(array <= c + 2.1, "{array}, malloc and free: {c}");
    assert!(sized <= c + 1.1, "{sized}, malloc and free: {c}");
}
