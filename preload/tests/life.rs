//! Odd moments of processes and threads: early and late calls, forks, and all of these at once.
//! THEAP_STRESS_SECONDS is the length of the stress in each page mode (60 for a release).
#![allow(missing_docs)]

mod library;

use library::{Hugepages, compile, preloaded, succeed, text};
use std::path::PathBuf;

fn module(name: &str) -> PathBuf {
    compile("module.c", &format!("{name}.so"), &["-shared", "-fPIC"])
}

#[test]
fn early_and_late_calls() {
    let said = text(preloaded(60, compile("life.c", "life", &[])).arg(module("life")));
    print!("{said}");
}

#[test]
fn calls_from_within_our_own_set_up() {
    succeed(&mut preloaded(
        20,
        compile("reentry.c", "reentry", &["-rdynamic"]),
    ));
}

/// Page modes whose pages a child can always copy. A child of a process on hugetlb pages may find
/// the pool empty.
const FORKABLE: [&str; 2] = ["small", "thp"];

#[test]
fn forks_while_others_allocate() {
    let program = compile("forks.c", "forks", &[]);
    for mode in FORKABLE {
        succeed(preloaded(120, &program).arg("100").env("THEAP_PAGES", mode));
    }
}

#[test]
fn stress() {
    let seconds = std::env::var("THEAP_STRESS_SECONDS").map_or(5, |s| s.parse().unwrap());
    let (program, module) = (compile("stress.c", "stress", &[]), module("stress"));
    for mode in FORKABLE {
        let said = text(
            preloaded(seconds + 60, &program)
                .arg(&module)
                .arg(seconds.to_string())
                .env("THEAP_PAGES", mode),
        );
        print!("{mode}: {said}");
    }
}

#[test]
fn stress_with_a_pool_that_runs_dry() {
    if let Some(_pages) = Hugepages::take(40) {
        let (program, module) = (
            compile("stress.c", "stress-hugetlb", &[]),
            module("stress-hugetlb"),
        );
        for mode in ["hugetlb", "auto"] {
            let said = text(
                preloaded(60, &program)
                    .arg(&module)
                    .arg("4")
                    .env("THEAP_PAGES", mode),
            );
            print!("{mode}: {said}");
        }
    }
}

#[test]
fn life_on_hugepages() {
    if let Some(_pages) = Hugepages::take(128) {
        let program = compile("life.c", "life-hugetlb", &[]);
        succeed(
            preloaded(60, &program)
                .arg(module("life-hugetlb"))
                .env("THEAP_PAGES", "hugetlb"),
        );
    }
}
