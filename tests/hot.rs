//! Hot scopes: which calls break a contract, and what happens then. Each scenario that tells or
//! ends the process is a process of its own.
#![cfg(not(any(feature = "hardened", feature = "valgrind")))] // Their frees are held back.

mod child;

use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use theap::{Breach, Contract, Theap};

#[global_allocator]
static HEAP: Theap = Theap::new();

/// Allocates a block and frees it.
fn pair(size: usize) {
    drop(black_box(Vec::<u8>::with_capacity(size)));
}

/// Breaches of a contract while `work` is done.
fn breaches(contract: Contract, work: impl FnOnce()) -> u64 {
    let hot = theap::hot(contract, Breach::Count);
    work();
    hot.breaches()
}

#[test]
fn every_allocation_and_free_breaks_the_strict_contract() {
    use Contract::NoAllocation;
    for size in [1, 100, 3000, 100_000, 600_000, 3 << 20] {
        pair(size);
        assert_eq!(breaches(NoAllocation, || pair(size)), 2, "{size} bytes");
        let zeroed = || drop(black_box(vec![0_u8; size]));
        assert_eq!(breaches(NoAllocation, zeroed), 2, "{size} bytes, zeroed");
    }
    let mut text = String::from("a text");
    assert_eq!(breaches(NoAllocation, || text.reserve(1000)), 2, "it moves");
    assert_eq!(breaches(NoAllocation, || text.push('!')), 0);
    assert_eq!(breaches(NoAllocation, || drop(Vec::<u8>::new())), 0);
    let mut run: Vec<u8> = Vec::with_capacity(8 << 20);
    assert_eq!(
        breaches(NoAllocation, || run.shrink_to(3 << 20)),
        1,
        "in place"
    );
    let behind: Vec<u8> = Vec::with_capacity(8 << 20);
    assert_eq!(
        breaches(NoAllocation, || run.reserve(64 << 20)),
        2,
        "it moves"
    );
    drop(behind);
}

#[test]
fn hits_keep_the_contract_about_slow_paths() {
    use Contract::NoSlowPath;
    pair(100);
    let hits = || (0..1000).for_each(|_| pair(100));
    assert_eq!(breaches(NoSlowPath, hits), 0);
    assert_eq!(breaches(NoSlowPath, || pair(3 << 20)), 2, "a run");
    let mut blocks = Vec::with_capacity(100_000);
    let burst = || blocks.extend((0..100_000).map(|_| Box::new([0_u8; 100])));
    let refills = breaches(NoSlowPath, burst);
    assert!((50..50_000).contains(&refills), "{refills} refills");
    assert!(breaches(NoSlowPath, || drop(blocks)) > 10, "drains");
}

#[test]
fn scopes_nest_and_can_be_excused() {
    let before = theap::stats().hot_breaches;
    let outer = theap::hot(Contract::NoAllocation, Breach::Count);
    {
        let inner = theap::hot(Contract::NoSlowPath, Breach::Count);
        pair(10);
        assert_eq!(inner.breaches(), 2, "the outer contract is stricter");
    }
    {
        let excused = theap::excused();
        pair(10);
        assert_eq!(excused.breaches(), 0);
        let again = theap::hot(Contract::NoAllocation, Breach::Count);
        pair(10);
        assert_eq!(again.breaches(), 2);
    }
    pair(10);
    {
        let _excused = theap::excused();
        thread::scope(|scope| drop(scope.spawn(|| pair(10)).join()));
    }
    assert_eq!(outer.breaches(), 6);
    drop(outer);
    pair(10);
    assert!(theap::stats().hot_breaches >= before + 6);
}

#[test]
fn a_scope_ends_with_its_thread() {
    for _ in 0..10 {
        let thread = thread::spawn(|| {
            std::mem::forget(theap::hot(Contract::NoAllocation, Breach::Count));
            pair(10);
        });
        thread.join().expect("no panic");
        let next = thread::spawn(|| {
            let scope = theap::excused();
            pair(10);
            scope.breaches()
        });
        assert_eq!(next.join().expect("no panic"), 0);
    }
}

#[test]
fn words_of_scopes_are_told_from_others() {
    let scope = theap::hot(Contract::NoAllocation, Breach::Count).into_raw();
    let inner = theap::hot(Contract::NoSlowPath, Breach::Abort).into_raw();
    drop(theap::Hot::from_raw(inner));
    pair(10);
    assert_eq!(theap::Hot::from_raw(scope).breaches(), 2);
    for word in [0, 1, 0xFF, 0x8C, 0x83, usize::MAX] {
        drop(theap::Hot::from_raw(word));
    }
    assert_eq!(breaches(Contract::NoAllocation, || pair(10)), 2);
}

/// The lines that a scenario writes, and the signal that ends it.
fn lines_of(scenario: &str) -> (Vec<String>, Option<i32>) {
    let output = child::run(scenario, &[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = text.lines().filter(|line| line.starts_with("theap:"));
    (lines.map(String::from).collect(), output.status.signal())
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test hot"]
fn scenario() {
    match child::role().as_deref() {
        Some("told") => {
            pair(100);
            let hot = theap::hot(Contract::NoAllocation, Breach::Report);
            // The compiler must not make several places of this one.
            let mut left = 5;
            while left > 0 {
                pair(100);
                left = black_box(left - 1);
            }
            pair(200);
            assert_eq!(hot.breaches(), 12);
        }
        Some("ends") => {
            let _hot = theap::hot(Contract::NoSlowPath, Breach::Abort);
            (0..10).for_each(|_| pair(3 << 20));
        }
        _ => {}
    }
}

#[test]
fn a_breach_is_told_once_for_each_stack() {
    let (lines, signal) = lines_of("told");
    assert_eq!(signal, None, "{lines:#?}");
    let heads: Vec<_> = lines.iter().filter(|line| line.contains("Stack")).collect();
    let of_100 = heads
        .iter()
        .filter(|line| line.contains(" allocates a block of 112 bytes"));
    assert_eq!(of_100.count(), 1, "{lines:#?}");
    assert_eq!(
        heads.len(),
        4,
        "two places, which allocate and free: {lines:#?}"
    );
    let rule = "in a hot scope that allows no allocation. Stack (told once); for names: addr2line -fCie FILE OFFSET";
    assert!(heads.iter().all(|line| line.ends_with(rule)), "{lines:#?}");
    let frames = lines.iter().filter(|line| line.contains("/hot-"));
    assert!(frames.count() >= 8, "frames of this program: {lines:#?}");
}

#[test]
fn a_breach_can_end_the_process() {
    let (lines, signal) = lines_of("ends");
    assert_eq!(signal, Some(libc::SIGABRT), "{lines:#?}");
    let rule = "allocates a block of 3145728 bytes on a slow path, in a hot scope that allows none; \
                theap ends the process (SIGABRT). Stack; for names: addr2line -fCie FILE OFFSET";
    assert!(lines[0].ends_with(rule), "{lines:#?}");
}
