//! Threads that allocate little share spans: they take little memory, and what they allocate is as
//! any other memory. Each test is a process of its own, whose figures it reads.
#![allow(unsafe_code)] // Calls the allocator directly.
#![cfg(all(feature = "magazines", feature = "stats"))]

mod child;

use child::passes;
use std::sync::Barrier;
use std::thread;
use theap::raw;

const THREADS: usize = 100;
const BLOCKS: usize = 64;
const MIB: u64 = 1 << 20;

/// Allocates a block of each of some sizes, and writes to all of it.
fn few_blocks(thread: usize) -> Vec<(usize, usize)> {
    (0..BLOCKS)
        .map(|i| {
            let size = 16 + i * 8;
            let block = raw::alloc(size);
            assert!(!block.is_null());
            // SAFETY: the block is new and has as many bytes.
            unsafe { block.write_bytes((thread + i) as u8, size) };
            (block.expose_provenance(), size)
        })
        .collect()
}

/// Compares the blocks with what was written, and frees them.
fn free(thread: usize, blocks: Vec<(usize, usize)>) {
    for (i, (address, size)) in blocks.into_iter().enumerate() {
        let block = std::ptr::with_exposed_provenance_mut::<u8>(address);
        // SAFETY: a live block of as many bytes, not used after this.
        unsafe {
            let bytes = std::slice::from_raw_parts(block, size);
            assert!(bytes.iter().all(|&byte| byte == (thread + i) as u8));
            raw::free(block);
        }
    }
}

/// The slots in use, in bytes, and the resident memory that so many resting threads take.
fn resting() -> (u64, u64) {
    free(0, few_blocks(0));
    let before = (theap::stats().active, child::memory("VmRSS") as u64);
    let (all, measured) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    thread::scope(|scope| {
        let threads = [(); THREADS].map(|()| {
            scope.spawn(|| {
                let blocks = few_blocks(1);
                all.wait();
                measured.wait();
                free(1, blocks);
            })
        });
        all.wait();
        let after = (theap::stats().active, child::memory("VmRSS") as u64);
        measured.wait();
        // The threads' caches end with the threads, a little later than what they do here.
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        (after.0 - before.0, after.1 - before.1)
    })
}

fn rests_in_little() {
    let (active, resident) = resting();
    println!("{active} bytes of slots, {resident} bytes resident");
    assert!(active <= 12 * MIB, "{active} bytes of slots");
    assert!(resident <= 8 * MIB, "{resident} bytes resident");
    theap::purge();
    let left = theap::stats().active;
    assert!(left <= 2 * MIB, "{left} bytes of slots stay in use");
}

/// Without nurseries each thread has spans of its own.
fn rests_in_much() {
    let (active, _) = resting();
    assert!(active >= 60 * MIB, "{active} bytes of slots");
}

/// Threads that hold a few blocks of every size touch little of what these are, so hugepages would
/// be mostly waste. One that takes more gets hugepages.
fn holds_all_sizes() {
    let sizes = || (4..18).flat_map(|power| [4, 5, 6, 7].map(|quarter| quarter << power >> 2));
    let first_bytes = |size: usize| {
        let block = raw::alloc(size);
        assert!(!block.is_null());
        // SAFETY: the block is new and not empty.
        unsafe { block.write(1) };
        (block.expose_provenance(), size)
    };
    let hold = || -> Vec<_> { sizes().cycle().take(4 * 56).map(first_bytes).collect() };
    let give = |blocks: Vec<(usize, usize)>| {
        for (address, _) in blocks {
            // SAFETY: live, and not used any more.
            unsafe { raw::free(std::ptr::with_exposed_provenance_mut(address)) };
        }
    };
    let before = child::memory("VmRSS") as u64;
    let (all, measured) = (Barrier::new(9), Barrier::new(9));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let blocks = hold();
                all.wait();
                measured.wait();
                give(blocks);
            });
        }
        all.wait();
        let (resident, stats) = (child::memory("VmRSS") as u64 - before, theap::stats());
        println!("{resident} bytes resident, {} in use", stats.active);
        measured.wait();
        assert!(stats.active >= 32 * MIB, "{} bytes of slots", stats.active);
        assert!(resident <= 16 * MIB, "{resident} bytes resident");
        assert!(stats.mapped_small >= 24 * MIB, "{}", stats.mapped_small);
    });
    let many: Vec<_> = (0..20_000).map(|_| first_bytes(1024)).collect();
    let huge = theap::stats().mapped_thp;
    assert!(huge >= 16 * MIB, "{huge} bytes of hugepages");
    give(many);
}

/// A thread that takes more has spans of its own, which it finds again when its blocks come home.
fn grows_out_of_it() {
    let before = theap::stats();
    for _ in 0..50 {
        let blocks: Vec<_> = (0..20_000).map(|_| raw::alloc(64)).collect();
        // SAFETY: live, and not used any more.
        blocks
            .into_iter()
            .for_each(|block| unsafe { raw::free(block) });
    }
    let after = theap::stats();
    let (remote, drained) = (
        after.totals.remote_words - before.totals.remote_words,
        after.totals.drained_blocks - before.totals.drained_blocks,
    );
    assert!(
        remote * 100 < drained,
        "{remote} remote frees, {drained} blocks"
    );
}

/// Threads that end leave the few blocks that they hold to the next ones, which take none of any
/// span. The C library ends a thread's cache a little later than what the thread does here, but
/// before `join` returns. The threads run on one CPU, as those that they start do.
fn is_handed_on() {
    core_affinity::set_for_current(core_affinity::get_core_ids().unwrap()[0]);
    let life = || thread::spawn(|| free(1, few_blocks(1))).join().unwrap();
    (0..5).for_each(|_| life());
    let before = theap::stats();
    (0..100).for_each(|_| life());
    let after = theap::stats();
    let refills = after.totals.refills - before.totals.refills;
    assert!(refills < 100, "{refills} refills for 100 threads");
    assert_eq!(after.heaps, before.heaps, "heaps that were made");
    let ended = || theap::heaps().filter(|heap| heap.thread == 0 && heap.cached > 0);
    assert!(ended().count() > 0, "nothing was left");
    for heap in ended() {
        assert!(heap.cached <= 32 << 10, "{} bytes left", heap.cached);
    }
    theap::collect();
    assert_eq!(ended().count(), 0, "what was left comes home");
    // A thread that holds much leaves nothing.
    let much = || {
        let blocks: Vec<_> = (0..1000).map(|_| raw::alloc(1000)).collect();
        // SAFETY: live, and not used any more.
        (blocks.into_iter()).for_each(|block| unsafe { raw::free(block) });
    };
    thread::spawn(much).join().unwrap();
    assert_eq!(ended().count(), 0, "a thread with spans of its own");
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test nursery"]
fn scenario() {
    match child::role().as_deref() {
        Some("little") => rests_in_little(),
        Some("much") => rests_in_much(),
        Some("grows") => grows_out_of_it(),
        Some("handed on") => is_handed_on(),
        Some("sizes") => holds_all_sizes(),
        _ => {}
    }
}

#[test]
fn resting_threads_take_little() {
    passes("little", &[("THEAP_PAGES", "small")]);
}

#[test]
fn they_do_so_on_hugepages_too() {
    passes("little", &[("THEAP_PAGES", "thp")]);
    passes("sizes", &[("THEAP_PAGES", "thp")]);
}

#[test]
fn without_nurseries_they_take_much() {
    passes("much", &[("THEAP_PAGES", "small"), ("THEAP_NURSERY", "0")]);
}

#[test]
#[cfg(not(any(feature = "hardened", feature = "valgrind")))]
fn the_next_thread_finds_the_blocks_of_the_last_one() {
    passes("handed on", &[("THEAP_PAGES", "small")]);
}

#[test]
fn busy_threads_have_spans_of_their_own() {
    passes("grows", &[("THEAP_PAGES", "small")]);
}
