//! Core files hold what the program has touched: its blocks, and little else.
#![allow(missing_docs)]

mod library;

use library::{compile, library, scratch, succeed};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const MODES: [&str; 3] = ["small", "thp", "auto"];
/// The C library's own core of such a program has 1 to 2 MiB; the blocks have 6, and 2 more each
/// where they are on hugepages.
const MOST: u64 = 40 << 20;

/// Checks that a core file is small and has all marks.
fn check(core: &Path, pages: &str) {
    let len = fs::metadata(core).unwrap().len();
    assert!(len < MOST, "{pages}: {len} bytes");
    let bytes = fs::read(core).unwrap();
    let mark = "qu|hqkugehq|wpwru".bytes().map(|byte| byte - 2);
    for i in b'0'..=b'4' {
        let wanted: Vec<u8> = mark.clone().chain([i]).collect();
        let found = bytes.windows(wanted.len()).any(|part| part == wanted);
        assert!(found, "{pages}: block {i} is not in the core");
    }
    println!("{pages}: {len} bytes");
}

#[test]
fn the_kernels_core_has_the_blocks_alone() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.trim() != "core" {
        return eprintln!("skipped: the kernel writes cores elsewhere: {pattern}");
    }
    let program = compile("core.c", "aborts", &[]);
    for pages in MODES {
        let directory = scratch(&format!("cores-{pages}"));
        let ended = Command::new("sh")
            .current_dir(&directory)
            .args([
                "-c",
                "ulimit -c unlimited; LD_PRELOAD=$1 exec $2 abort",
                "sh",
            ])
            .arg(library())
            .arg(&program)
            .env("THEAP_PAGES", pages)
            .status()
            .unwrap();
        assert!(!ended.success());
        let core = fs::read_dir(&directory).unwrap().next();
        check(&core.expect("a core").unwrap().path(), pages);
    }
}

#[test]
fn a_debuggers_core_has_the_blocks_alone() {
    let there = Command::new("gcore").stderr(Stdio::null()).status();
    if there.is_err() {
        return eprintln!("skipped: there is no gcore");
    }
    let program = compile("core.c", "rests", &[]);
    for pages in MODES {
        let directory = scratch(&format!("gcore-{pages}"));
        let mut child = Command::new(&program)
            .env("LD_PRELOAD", library())
            .env("THEAP_PAGES", pages)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let id = child.id().to_string();
        let mut gcore = Command::new("gcore");
        gcore.current_dir(&directory).args(["-o", "core", &id]);
        succeed(&mut gcore);
        child.kill().unwrap();
        child.wait().unwrap();
        check(&directory.join(format!("core.{id}")), pages);
    }
}
