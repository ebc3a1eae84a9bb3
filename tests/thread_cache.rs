//! What a thread keeps that had bursts in every class and then rests: `thread_cache` bounds it.
//! Each test is a process of its own, whose figures it reads.
#![allow(unsafe_code)] // Calls the allocator directly.
#![cfg(all(feature = "magazines", feature = "stats"))]

mod child;

use child::passes;
use std::thread;
use theap::raw;

const KIB: u64 = 1 << 10;
/// What every thread's magazines may hold: at most 8 blocks of each class up to 8 KiB.
const NESTS: u64 = 140 * KIB;
/// Whether freed blocks wait before they come to magazines, and blocks have bytes at their end that
/// are not the program's.
const WAITS: bool = cfg!(any(feature = "hardened", feature = "valgrind"));
/// Bytes of blocks that wait at most.
const WAITING: u64 = if WAITS { 1500 * KIB } else { 0 };

/// Allocates and frees up to 300 KiB of each class, so many times.
fn bursts_in_every_class(times: usize) {
    // The heap has figures from its first block on.
    // SAFETY: a live block, not used after this.
    unsafe { raw::free(raw::alloc(1)) };
    for _ in 0..times {
        for class in theap::stats().classes.iter() {
            let size = class.size as usize - if WAITS { 16 } else { 0 };
            let blocks: Vec<_> = (0..(300 << 10) / class.size as usize + 6)
                .map(|_| raw::alloc(size.max(1)))
                .collect();
            // SAFETY: live blocks, not used after this.
            blocks
                .into_iter()
                .for_each(|block| unsafe { raw::free(block) });
        }
    }
}

/// What the magazines of this thread hold at most after that, and hold.
fn resting(times: usize) -> (u64, u64) {
    bursts_in_every_class(times);
    // Notes what this thread's cache holds.
    let learned = theap::stats()
        .classes
        .iter()
        .any(|class| class.learned_blocks > 0);
    let heaps = theap::heaps().filter(|heap| heap.thread != 0);
    let busiest = heaps.max_by_key(|heap| heap.refilled).unwrap();
    // The largest array of a magazine that has learned.
    let arrays = if learned { 300 * KIB } else { 0 };
    (
        busiest.allowed,
        busiest.cached.saturating_sub(WAITING + arrays),
    )
}

fn at_most(bytes: u64) {
    let (allowed, cached) = thread::spawn(|| resting(8)).join().unwrap();
    assert!(
        allowed <= bytes && cached <= allowed,
        "{cached} of {allowed}"
    );
    assert!(allowed >= bytes / 2, "{allowed} of {bytes}");
}

#[test]
#[ignore = "a scenario"]
fn scenario() {
    match child::role().as_deref() {
        Some("0") => at_most(NESTS),
        Some("256K") => at_most(NESTS + 256 * KIB),
        Some("1M") => at_most(NESTS + 1024 * KIB),
        Some("once") => {
            let (allowed, cached) = thread::spawn(|| resting(1)).join().unwrap();
            let most = NESTS + 1536 * KIB;
            assert!(
                allowed <= most && cached <= allowed,
                "{cached} of {allowed}"
            );
        }
        Some("all") => {
            let (allowed, cached) = thread::spawn(|| resting(8)).join().unwrap();
            assert!(
                allowed > 4096 * KIB && cached > 2048 * KIB,
                "{cached} of {allowed}"
            );
        }
        _ => {}
    }
}

#[test]
fn a_thread_that_rests_keeps_what_the_option_says() {
    for most in ["0", "256K", "1M"] {
        passes(most, &[("THEAP_THREAD_CACHE", most)]);
    }
    passes("all", &[("THEAP_THREAD_CACHE", "1T")]);
}

#[test]
fn one_burst_in_every_class_leaves_little() {
    passes("once", &[]);
    passes("once", &[("THEAP_NURSERY", "0")]);
}

#[test]
fn a_thread_that_does_not_learn_or_is_prepared_is_bound_as_well() {
    let bound = ("THEAP_THREAD_CACHE", "1M");
    passes("1M", &[("THEAP_LEARN", "0")]);
    passes("1M", &[("THEAP_RESERVE", "64M"), bound]);
    passes("1M", &[("THEAP_NURSERY", "0"), bound]);
}
