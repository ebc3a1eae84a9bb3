//! The crash reporter writes one line that says what the heap has at the address; then the handler
//! that the program had before gets the signal.
#![allow(unsafe_code)] // Crashes on purpose, in processes of their own.

mod child;
mod hugepages;

use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::ptr;
use std::thread;
use theap::raw;

const MIB: usize = 1 << 20;

fn allocate(size: usize) -> usize {
    raw::alloc(size) as usize
}

fn free(block: usize) {
    // SAFETY: the block is live, except in the scenarios whose mistake is that it is not.
    unsafe { raw::free(block as *mut u8) };
}

/// Prints the address and reads it.
fn touch(address: usize) {
    println!("{address:#x}");
    // SAFETY: the read is not sound: the scenario wants it to crash.
    unsafe { ptr::read_volatile(address as *const u8) };
}

/// Closes the block's page and then touches the block: a block that is mapped crashes only so.
fn touch_closed(block: usize, offset: usize) {
    let page = block & !4095;
    // SAFETY: nobody uses this page of the block any more but to crash.
    let closed = unsafe { libc::mprotect(page as *mut libc::c_void, 4096, libc::PROT_NONE) };
    assert_eq!(closed, 0);
    touch(block + offset);
}

extern "C" fn previous(signal: libc::c_int) {
    // SAFETY: the call ends the process and runs nothing else.
    unsafe { libc::_exit(40 + signal) };
}

fn handle(signal: libc::c_int, handler: usize) {
    // SAFETY: zero is a valid `sigaction`, and the handler only ends the process.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
    }
}

/// The name of a crash, its signal, the parts of the report's line, and the crash itself.
type Scenario = (&'static str, libc::c_int, &'static [&'static str], fn());

const CRASHES: &[Scenario] = &[
    (
        "a wild pointer",
        libc::SIGSEGV,
        &["not in the heap"],
        || {
            allocate(1);
            touch(0x10);
        },
    ),
    (
        "memory that was never mapped",
        libc::SIGSEGV,
        &["pages reserved, not mapped, slot ABSENT; no block: never used"],
        || touch(allocate(1) + (1 << 29)),
    ),
    (
        "a live block",
        libc::SIGSEGV,
        &[
            "pages small, slot ACTIVE; block of 3072 bytes at",
            " + 9, live; span of heap 1",
        ],
        || touch_closed(allocate(3000), 9),
    ),
    (
        "a block in the magazine",
        libc::SIGSEGV,
        &[
            "block of 3072 bytes at",
            " + 0, free, cached by heap 1; span of heap 1",
        ],
        || {
            let block = allocate(3000);
            free(block);
            touch_closed(block, 0);
        },
    ),
    #[cfg(all(feature = "magazines", feature = "drain", not(feature = "hardened")))]
    (
        "a block in a magazine that has grown",
        libc::SIGSEGV,
        &["block of 64 bytes at", " + 0, free, cached by heap 1"],
        || {
            let burst = || -> Vec<_> { (0..2000).map(|_| allocate(64)).collect() };
            (0..50).for_each(|_| burst().into_iter().for_each(free));
            let blocks = burst();
            let last = blocks[1999];
            blocks.into_iter().for_each(free);
            touch_closed(last, 0);
        },
    ),
    (
        "a free block",
        libc::SIGSEGV,
        &["block of 3072 bytes at", " + 0, free; span of heap 1"],
        || {
            let (block, _kept) = (allocate(3000), allocate(3000));
            free(block);
            theap::collect();
            touch_closed(block, 0);
        },
    ),
    (
        "a block that another thread freed",
        libc::SIGSEGV,
        &[" + 0, freed by another thread than its span's; span of heap 1"],
        || {
            let (block, _kept) = (allocate(3000), allocate(3000));
            let frees = thread::spawn(move || {
                free(block);
                theap::collect();
            });
            frees.join().unwrap();
            touch_closed(block, 0);
        },
    ),
    (
        "a run",
        libc::SIGSEGV,
        &["slot ACTIVE; a run at", " + 100000"],
        || {
            let run = allocate(3 * MIB);
            touch_closed(run + 98304, 100_000 - 98304);
        },
    ),
    (
        "a double free",
        libc::SIGABRT,
        &["block of 112 bytes at", " + 0, free; span of heap 1"],
        || {
            let (block, _kept) = (allocate(100), allocate(100));
            println!("{block:#x}");
            free(block);
            theap::collect();
            free(block);
            theap::collect();
        },
    ),
    (
        "an abort",
        libc::SIGABRT,
        &["the program called abort(); the heap had found no misuse"],
        || {
            allocate(1);
            // SAFETY: the call has no precondition.
            unsafe { libc::abort() }
        },
    ),
    (
        "a signal from outside",
        libc::SIGSEGV,
        &["no address is known; a process sent the signal"],
        || {
            allocate(1);
            // SAFETY: the call has no precondition.
            unsafe { libc::raise(libc::SIGSEGV) };
        },
    ),
    (
        "a file that became shorter",
        libc::SIGBUS,
        &["not in the heap"],
        || {
            allocate(1);
            // SAFETY: the mapping is this scenario's own, and lies behind the end of its file.
            unsafe {
                let file = libc::memfd_create(c"empty".as_ptr(), 0);
                let (access, flags) = (libc::PROT_READ, libc::MAP_SHARED);
                touch(libc::mmap(ptr::null_mut(), 4096, access, flags, file, 0) as usize);
            }
        },
    ),
];

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test crash"]
fn scenario() {
    let Some(role) = child::role() else { return };
    if let Some(name) = role.strip_prefix("handled: ") {
        let (_, signal, _, crash) = CRASHES.iter().find(|crash| crash.0 == name).unwrap();
        handle(*signal, previous as *const () as usize);
        theap::report_crashes().unwrap();
        return crash();
    }
    if role == "hole" {
        let run = allocate(8 * MIB);
        let on_hugetlb = theap::stats().mapped_hugetlb > 0;
        free(run);
        theap::purge();
        println!("hugetlb: {on_hugetlb}");
        return touch(run + 5);
    }
    // The standard library has a handler of its own, for overflows of the stack, which would run
    // first.
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT] {
        handle(signal, libc::SIG_DFL);
    }
    let (.., crash) = CRASHES.iter().find(|crash| crash.0 == role).unwrap();
    crash();
}

const REPORT: &[(&str, &str)] = &[
    ("THEAP_CRASH_REPORT", "1"),
    ("THEAP_PAGES", "small"),
    ("THEAP_NURSERY", "0"),
];

/// The rest of the report's line after `theap: SIGNAL at ADDRESS: `. The address must be one that
/// the scenario has printed.
fn report(name: &str, signal: &str, output: &Output) -> String {
    let stderr = child::text(&output.stderr);
    let start = format!("theap: {signal}");
    let reports: Vec<_> = stderr
        .lines()
        .filter(|line| line.starts_with(&start))
        .collect();
    let [line] = reports[..] else {
        panic!("{name}: not one report: {output:?}");
    };
    let rest = &line[start.len()..];
    let Some(rest) = rest.strip_prefix(" at ") else {
        return rest.to_owned();
    };
    let (address, said) = rest.split_once(": ").unwrap();
    let stdout = child::text(&output.stdout);
    let touched = stdout.lines().any(|line| line.ends_with(address));
    assert!(touched, "{name}: {output:?}");
    said.to_owned()
}

fn name_of(signal: libc::c_int) -> &'static str {
    match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        _ => "SIGABRT",
    }
}

#[test]
fn every_crash_is_reported_and_ends_the_process_as_before() {
    for (name, signal, parts, _) in CRASHES {
        let output = child::run(name, REPORT);
        assert_eq!(output.status.signal(), Some(*signal), "{name}: {output:?}");
        let said = report(name, name_of(*signal), &output);
        for part in *parts {
            assert!(said.contains(part), "{name}: {said}");
        }
    }
}

#[test]
fn the_previous_handler_runs_after_the_report() {
    for (name, signal, parts, _) in CRASHES {
        let output = child::run(&format!("handled: {name}"), &REPORT[1..]);
        assert_eq!(
            output.status.code(),
            Some(40 + signal),
            "{name}: {output:?}"
        );
        assert!(report(name, name_of(*signal), &output).contains(parts[0]));
    }
}

#[test]
fn without_the_option_nothing_is_said() {
    let output = child::run("a live block", &[("THEAP_PAGES", "small")]);
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
    assert_eq!(child::text(&output.stderr), "");
}

#[test]
fn a_use_after_free_finds_a_hole_of_hugetlb_pages() {
    let Some(pool) = hugepages::Pool::take() else {
        return;
    };
    if !pool.set(32) {
        return;
    }
    let variables = [("THEAP_CRASH_REPORT", "1"), ("THEAP_PAGES", "hugetlb")];
    let output = child::run("hole", &variables);
    assert!(
        child::text(&output.stdout).contains("hugetlb: true"),
        "{output:?}"
    );
    let said = report("hole", "SIGSEGV", &output);
    assert!(
        said.contains("pages reserved, not mapped, slot ABSENT; no block"),
        "{said}"
    );
}
