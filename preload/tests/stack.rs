//! The stack that theap takes of a thread: it belongs to the program, which may have chosen 16 KiB
//! for a thread, or 8 KiB for its signals.
#![allow(missing_docs)]

mod library;

use library::{compile, preloaded, succeed, text};
use std::path::{Path, PathBuf};

/// Bytes of stack that malloc, free and their like take at most, however much there is to do.
const MOST: usize = 4096;

/// What can be the first call of a process.
const FIRST: [&str; 5] = ["malloc", "calloc", "realloc", "memalign", "large"];

/// Options with which other code runs.
const OPTIONS: [(&str, &str); 13] = [
    ("THEAP_PAGES", "small"),
    ("THEAP_PAGES", "thp"),
    ("THEAP_PAGES", "hugetlb"),
    ("THEAP_FRONT", "classic"),
    ("THEAP_PREFAULT", "grow"),
    ("THEAP_PREFAULT", "ahead"),
    ("THEAP_LOCK", "1"),
    ("THEAP_PUBLISH", "1"),
    ("THEAP_RESERVE", "16M"),
    ("THEAP_RETAIN", "0"),
    ("THEAP_LIMIT", "1G"),
    ("THEAP_SOFT_LIMIT", "8M"),
    ("THEAP_GROWTH", "wrong"),
];

/// The program, with its symbols bound ahead: what the loader takes for that is not theap's.
fn program(name: &str) -> PathBuf {
    compile("stack.c", name, &["-Wl,-z,now"])
}

/// Steps of the program with the bytes of stack that each took.
fn depths(program: &Path, first: &str, option: (&str, &str)) -> Vec<(String, usize)> {
    let said = text(
        preloaded(120, program)
            .arg(first)
            .env("LD_BIND_NOW", "1")
            .env(option.0, option.1),
    );
    said.lines()
        .map(|line| {
            let (step, bytes) = line.split_once(' ').unwrap();
            (step.to_owned(), bytes.parse().unwrap())
        })
        .collect()
}

/// Every step of the program takes little; prints the one that takes most.
fn check(program: &Path, first: &str, option: (&str, &str), steps: usize) {
    let depths = depths(program, first, option);
    assert!(depths.len() >= steps, "{first}: {depths:?}");
    let deepest = depths.iter().max_by_key(|(_, bytes)| *bytes).unwrap();
    println!("{}={} {first}: {deepest:?}", option.0, option.1);
    // A step that was not measured would be a few bytes deep.
    assert!(deepest.1 > 200, "{first} {option:?}: {deepest:?}");
    assert!(deepest.1 <= MOST, "{first} {option:?}: {deepest:?}");
}

#[test]
fn no_path_of_malloc_and_free_is_deep() {
    let program = program("stack-paths");
    for first in FIRST {
        check(&program, first, OPTIONS[0], 36);
    }
    for option in OPTIONS {
        check(&program, "malloc", option, 36);
    }
}

#[test]
fn no_report_is_deep() {
    check(&program("stack-reports"), "reports", OPTIONS[0], 5);
}

#[test]
fn a_thread_with_the_smallest_stack_can_do_everything() {
    let program = program("stack-thread");
    for option in OPTIONS {
        let output = succeed(
            preloaded(60, &program)
                .arg("small-thread")
                .env(option.0, option.1),
        );
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("refilled_blocks"), "malloc_stats: {said}");
    }
}

#[test]
fn a_handler_on_a_small_signal_stack_can_make_the_first_call() {
    let program = program("stack-signal");
    for option in OPTIONS {
        succeed(
            preloaded(60, &program)
                .arg("signal-stack")
                .env(option.0, option.1),
        );
    }
}
