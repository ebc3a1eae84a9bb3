//! Programs that shut themselves in before their first allocation, and libraries in between that
//! intercept what an allocator calls.
#![allow(missing_docs)]

mod library;

use library::{Hugepages, compile, library, preloaded, preloading, succeed};
use std::path::Path;

const MODES: [&str; 4] = ["small", "thp", "auto", "hugetlb"];

fn run(program: &Path, calls: &str) {
    for pages in MODES {
        let mut command = preloaded(60, program);
        command.env("THEAP_PAGES", pages).env("THEAP_CALLS", calls);
        succeed(command.env("THEAP_MESSAGES", "0"));
    }
}

#[test]
fn what_must_be_known_is_read_when_the_library_is_loaded() {
    let _pool = Hugepages::take(64);
    let program = compile("sandbox.c", "sandbox", &[]);
    run(&program, "all");
    run(&program, "plain");
}

/// A library that stands before the C library's `madvise`, `mmap` and their like, and allocates in
/// them, also where the warmer works.
#[test]
fn calls_are_not_intercepted() {
    let _pool = Hugepages::take(64);
    let program = compile("sandbox.c", "open", &[]);
    let hook = compile("hook.c", "hook.so", &["-shared", "-fPIC"]);
    let both = format!("{}:{}", hook.display(), library().display());
    for pages in MODES {
        let mut command = preloading(60, &program, Path::new(&both));
        command.arg("open").env("THEAP_PAGES", pages);
        command
            .env("THEAP_PREFAULT", "ahead")
            .env("THEAP_MESSAGES", "0");
        succeed(&mut command);
    }
}
