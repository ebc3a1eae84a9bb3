//! The option `demote`: a purge moves the few live blocks of sparse hugetlb pages to small pages,
//! and no write of a thread is lost.
#![allow(unsafe_code)] // Calls the allocator, and writes to blocks.

mod child;
mod hugepages;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use theap::raw;

const MIB: usize = 1 << 20;
/// Bytes of the blocks, and of one.
const BYTES: usize = 64 * MIB;
const SIZE: usize = 1024;
/// One block of so many stays.
const SPARSE: usize = 512;

fn counter(block: usize) -> &'static AtomicU64 {
    // SAFETY: the block is live while it counts, and aligned for that.
    unsafe { AtomicU64::from_ptr(block as *mut u64) }
}

/// The second half of a block never changes.
fn marks(block: usize) -> &'static mut [u8] {
    // SAFETY: the block is live and has SIZE bytes; nobody else looks at this half of it.
    unsafe { std::slice::from_raw_parts_mut((block + SIZE / 2) as *mut u8, SIZE / 2) }
}

/// Free pages of the pool.
fn free_pages() -> usize {
    let file = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    let text = fs::read_to_string(file).expect("a pool");
    text.trim().parse().expect("a number")
}

/// A heap of which next to nothing stays, and a thread that writes to what stays. Returns the bytes
/// on hugetlb pages before and after a purge.
fn shrinks() -> (u64, u64) {
    let mut blocks: Vec<usize> = Vec::with_capacity(BYTES / SIZE);
    for nth in 0..BYTES / SIZE {
        let block = raw::alloc(SIZE) as usize;
        counter(block).store(0, Ordering::Relaxed);
        marks(block).fill(nth as u8);
        blocks.push(block);
    }
    let before = theap::stats().mapped_hugetlb;
    let pages = free_pages();
    let mut stay = Vec::new();
    for (nth, block) in blocks.into_iter().enumerate() {
        if nth % SPARSE == 0 {
            stay.push((nth, block));
        } else {
            // SAFETY: the block is live, and nobody uses it any more.
            unsafe { raw::free(block as *mut u8) };
        }
    }
    let (over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let after = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) || rounds == 0 {
                for (_, block) in &stay {
                    let count = counter(*block);
                    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                }
                rounds += 1;
                written.store(rounds, Ordering::Relaxed);
            }
            rounds
        });
        while written.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        theap::purge();
        let after = theap::stats().mapped_hugetlb;
        over.store(true, Ordering::Relaxed);
        let rounds = writer.join().unwrap();
        for (nth, block) in &stay {
            assert_eq!(counter(*block).load(Ordering::Relaxed), rounds, "{nth}");
            assert!(
                marks(*block).iter().all(|&mark| mark == *nth as u8),
                "{nth}"
            );
        }
        after
    });
    let gone = (before - after) as usize / (2 * MIB);
    assert_eq!(free_pages(), pages + gone, "the pages are the pool's again");
    // A page for each block that stays, and what the test itself has.
    let rss = child::memory("VmRSS") / MIB;
    assert!(rss <= 16, "{rss} MiB");
    for (_, block) in stay {
        // SAFETY: as above.
        unsafe { raw::free(block as *mut u8) };
    }
    theap::purge();
    // SAFETY: no other thread is in the allocator.
    #[cfg(debug_assertions)]
    unsafe { theap::is_valid() }.unwrap();
    (before, after)
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test demote"]
fn scenario() {
    let Some(role) = child::role() else { return };
    let (before, after) = shrinks();
    println!("{before} to {after}");
    assert!(before >= BYTES as u64, "{before}");
    match role.as_str() {
        "moves" => assert!(after <= 8 * MIB as u64, "{after}"),
        _ => assert!(after >= BYTES as u64 / 2, "{after}"),
    }
}

fn passes(role: &str, demote: &str) {
    let Some(pool) = hugepages::Pool::take() else {
        return;
    };
    if !pool.set(80) {
        return;
    }
    let options = [("THEAP_PAGES", "hugetlb"), ("THEAP_DEMOTE", demote)];
    child::passes(role, &options);
}

#[test]
fn a_purge_moves_the_live_blocks_of_sparse_hugetlb_pages() {
    passes("moves", "1");
}

#[test]
fn without_the_option_hugetlb_pages_with_a_live_block_stay() {
    passes("stays", "0");
}
