//! Programs on a `libtheap.so` with the feature `valgrind`, under valgrind's tools: these report
//! nothing about a program without faults, and name each fault as they do on the C library's
//! allocator.
#![allow(missing_docs)]

mod library;

use library::{compile, library_for_valgrind, preloading};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;

const DEADLINE: u32 = 120;
/// The exit code of a run in which the tool found an error.
const ERROR: i32 = 99;

/// The program of which each run does one thing wrong. Without valgrind it is `None`, and a message
/// says so.
fn misuse() -> Option<&'static Path> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    if !Path::new("/usr/bin/valgrind").exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "valgrind is not installed"
        );
        eprintln!("skipped: valgrind is not installed");
        return None;
    }
    Some(PROGRAM.get_or_init(|| compile("misuse.c", "misuse", &["-O0", "-w"])))
}

/// Runs the program under a tool, on theap's malloc instead of valgrind's.
fn run(
    program: &Path,
    what: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (Output, String) {
    let output = preloading(DEADLINE, "/usr/bin/valgrind", library_for_valgrind())
        .args([
            "--soname-synonyms=somalloc=nouserintercepts",
            "--fair-sched=yes",
        ])
        .arg(format!("--error-exitcode={ERROR}"))
        .args(arguments)
        .args([program.to_str().unwrap(), what])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

const MEMCHECK: [&str; 2] = [
    "--leak-check=full",
    "--errors-for-leak-kinds=definite,possible",
];

/// Checks that memcheck reports nothing about a run, and that it saw the blocks.
fn is_clean(variables: &[(&str, &str)]) {
    let Some(program) = misuse() else { return };
    let (output, said) = run(program, "clean", &MEMCHECK, variables);
    assert!(output.status.success(), "{variables:?}: {said}");
    assert!(
        said.contains("in use at exit: 100 bytes in 1 blocks"),
        "{said}"
    );
    assert!(
        said.contains("still reachable: 100 bytes in 1 blocks"),
        "{said}"
    );
}

#[test]
fn clean_on_magazines() {
    is_clean(&[]);
}

#[test]
fn clean_on_the_classic_front() {
    is_clean(&[("THEAP_FRONT", "classic")]);
}

#[test]
fn clean_on_small_pages_that_are_given_back() {
    is_clean(&[("THEAP_PAGES", "small"), ("THEAP_RETAIN", "0")]);
}

/// The mistakes that the program makes, each with two lines that memcheck must write about it.
const MISUSES: [(&str, [&str; 2]); 8] = [
    (
        "read-after-free",
        [
            "Invalid read of size 1",
            "is 3 bytes inside a block of size 40 free'd",
        ],
    ),
    (
        "write-after-free",
        [
            "Invalid write of size 1",
            "is 8 bytes inside a block of size 40 free'd",
        ],
    ),
    (
        "double-free",
        [
            "Invalid free()",
            "is 0 bytes inside a block of size 40 free'd",
        ],
    ),
    (
        "uninitialised",
        [
            "Conditional jump or move depends on uninitialised value(s)",
            "main (misuse.c",
        ],
    ),
    (
        "overflow",
        // Behind the block is another one, and memcheck names the one that it finds first.
        ["Invalid write of size 1", "a block of size 40 alloc'd"],
    ),
    (
        "overflow-of-class",
        ["Invalid write of size 1", "a block of size 64 alloc'd"],
    ),
    (
        "overflow-of-run",
        [
            "Invalid write of size 1",
            "is 0 bytes after a block of size 1,048,576 alloc'd",
        ],
    ),
    (
        "overflow-of-shrunk",
        [
            "Invalid write of size 1",
            "is 0 bytes after a block of size 38 alloc'd",
        ],
    ),
];

#[test]
fn each_misuse_is_named() {
    let Some(program) = misuse() else { return };
    for (what, lines) in MISUSES {
        // The classic front has links in free blocks.
        let fronts = if what == "write-after-free" {
            &["theap", "classic"][..]
        } else {
            &["theap"]
        };
        for front in fronts {
            let (output, said) = run(program, what, &MEMCHECK, &[("THEAP_FRONT", front)]);
            assert_eq!(output.status.code(), Some(ERROR), "{what}, {front}: {said}");
            for line in lines {
                assert!(said.contains(line), "{what}, {front}: {said}");
            }
            assert!(
                said.contains("ERROR SUMMARY: 1 errors from 1 contexts"),
                "{what}, {front}: {said}"
            );
        }
    }
}

#[test]
fn leaks_are_named() {
    let Some(program) = misuse() else { return };
    for (what, lost) in [
        ("leak", "14,400 bytes in 600 blocks"),
        ("leak-of-first", "40 bytes in 1 blocks"),
    ] {
        for front in ["theap", "classic"] {
            let (output, said) = run(program, what, &MEMCHECK, &[("THEAP_FRONT", front)]);
            assert_eq!(output.status.code(), Some(ERROR), "{what}, {front}: {said}");
            assert!(
                said.contains(&format!("definitely lost: {lost}")),
                "{what}, {front}: {said}"
            );
        }
    }
}

/// Checks that a tool finds the program's race, and finds none where there is none: neither in the
/// heap, nor in blocks that another thread had before.
fn races_are_told_apart(tool: &[&str], race: &str) {
    let Some(program) = misuse() else { return };
    for front in ["theap", "classic"] {
        let (output, said) = run(program, "clean", tool, &[("THEAP_FRONT", front)]);
        assert!(output.status.success(), "{tool:?}, {front}: {said}");
    }
    let (output, said) = run(program, "race", tool, &[]);
    assert_eq!(output.status.code(), Some(ERROR), "{tool:?}: {said}");
    let at = said
        .find(race)
        .unwrap_or_else(|| panic!("{tool:?}: {said}"));
    assert!(said[at..].contains("count (misuse.c"), "{tool:?}: {said}");
}

#[test]
fn helgrind_tells_races_apart() {
    races_are_told_apart(&["--tool=helgrind"], "Possible data race during read");
}

#[test]
fn drd_tells_races_apart() {
    let suppressions = concat!("--suppressions=", env!("CARGO_MANIFEST_DIR"), "/drd.supp");
    races_are_told_apart(&["--tool=drd", suppressions], "Conflicting load by thread");
}
