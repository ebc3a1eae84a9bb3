//! Huge blocks for which the heap's range has no room: larger than the range, or more than it
//! holds. They behave as other blocks do, in the thread that made them and elsewhere. Each test is
//! a process of its own, as the range is small there.
#![allow(unsafe_code)] // Calls the allocator directly.

mod child;

use child::passes;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use std::alloc::{GlobalAlloc, Layout};
use std::thread;
use theap::{Theap, raw};

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
/// The smallest range.
const SMALL: [(&str, &str); 2] = [
    ("THEAP_ADDRESS_SPACE", "64M"),
    // A host's pool of hugetlb pages may be too small for a fork.
    ("THEAP_MESSAGES", "0"),
];

/// Writes a number to both ends of a block.
fn sign(block: *mut u8, size: usize, number: u64) {
    // SAFETY: within the block, which is the caller's.
    unsafe {
        block.cast::<u64>().write(number);
        block.add(size - 8).cast::<u64>().write_unaligned(number);
    }
}

/// Whether the number stands at an offset of a block.
fn holds(block: *mut u8, at: usize, number: u64) -> bool {
    // SAFETY: within the block, which is the caller's.
    unsafe { block.add(at).cast::<u64>().read_unaligned() == number }
}

fn free(block: *mut u8) {
    // SAFETY: live, and not used any more.
    unsafe { raw::free(block) };
}

/// Whether all runs outside of the range together have so many bytes, or the ends that the feature
/// `hardened` adds.
fn outside(bytes: usize) -> bool {
    (bytes..=bytes + (64 << 10)).contains(&(theap::stats().outside as usize))
}

/// A block that is larger than the range, through every size.
fn one_block() {
    let block = raw::alloc(100 * MIB);
    assert!(!block.is_null());
    assert!(theap::owns(block) && theap::usable_size(block) >= 100 * MIB);
    assert!(outside(100 * MIB));
    sign(block, 100 * MIB, 7);
    // SAFETY: live; the old address is not used any more.
    let block = unsafe { raw::realloc(block, 300 * MIB) };
    assert!(holds(block, 0, 7) && holds(block, 100 * MIB - 8, 7));
    assert!(holds(block, 100 * MIB, 0), "what was added reads zero");
    // SAFETY: as above.
    let block = unsafe { raw::realloc(block, 90 * MIB) };
    assert!(holds(block, 0, 7) && outside(90 * MIB));
    // SAFETY: as above.
    let block = unsafe { raw::realloc(block, 100) };
    assert!(holds(block, 0, 7) && theap::stats().outside == 0);
    // SAFETY: as above.
    let block = unsafe { raw::realloc(block, 80 * MIB) };
    assert!(holds(block, 0, 7));
    free(block);
    assert_eq!(theap::stats().outside, 0);
    // A run of whole SuperSlabs in the range becomes one outside.
    let block = raw::alloc_aligned(10 * MIB, 2 * MIB);
    sign(block, 10 * MIB, 8);
    assert_eq!(theap::stats().outside, 0);
    // SAFETY: as above.
    let block = unsafe { raw::realloc(block, 200 * MIB) };
    assert!(holds(block, 0, 8) && holds(block, 10 * MIB - 8, 8) && outside(200 * MIB));
    free(block);
    let layout = Layout::from_size_align(70 * MIB, GIB).unwrap();
    // SAFETY: the layout has a size, and the block is freed with it.
    unsafe {
        let block = Theap::new().alloc_zeroed(layout);
        assert!(block.addr().is_multiple_of(GIB) && holds(block, 70 * MIB - 8, 0));
        let grown = Theap::new().realloc(block, layout, 90 * MIB);
        assert!(grown.addr().is_multiple_of(GIB));
        let layout = Layout::from_size_align(90 * MIB, GIB).unwrap();
        Theap::new().dealloc(grown, layout);
    }
    assert_eq!(theap::stats().outside, 0);
}

/// Several threads take, pass on and free blocks that do not fit into the range together.
fn many_blocks() {
    const BLOCKS: u64 = 300;
    let lives = |number: u64| {
        let size = (3 + number as usize % 6) * MIB;
        let block = raw::alloc(size);
        assert!(!block.is_null());
        sign(block, size, number);
        (block.addr(), size, number)
    };
    let end = |(at, size, number): (usize, usize, u64)| {
        let block = std::ptr::with_exposed_provenance_mut(at);
        assert!(holds(block, 0, number) && holds(block, size - 8, number));
        free(block);
    };
    let makers = (0..4).map(|maker| {
        thread::spawn(move || {
            let numbers = (0..BLOCKS).map(|i| maker * BLOCKS + i);
            let (kept, ended): (Vec<_>, Vec<_>) = numbers
                .map(lives)
                .partition(|&(_, _, number)| number % 3 == 0);
            ended.into_iter().for_each(end);
            kept
        })
    });
    let makers: Vec<_> = makers.collect();
    let kept: Vec<_> = makers
        .into_iter()
        .flat_map(|it| it.join().unwrap())
        .collect();
    assert!(theap::stats().outside > 0, "more than fits into the range");
    // SAFETY: the child ends at once, and only looks at its memory and frees it.
    let child = unsafe { libc::fork() };
    kept.into_iter().for_each(end);
    assert_eq!(theap::stats().outside, 0);
    if child == 0 {
        // SAFETY: no destructor of this process needs to run.
        unsafe { libc::_exit(0) };
    }
    let mut status = -1;
    // SAFETY: the status is a local variable.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "the child frees its copies");
}

/// Sparse blocks, more of them than the machine has memory.
fn sparse() {
    let blocks: Vec<_> = (0..20).map(|_| raw::alloc(12 * GIB)).collect();
    for (number, &block) in blocks.iter().enumerate() {
        assert!(!block.is_null(), "block {number}");
        sign(block, 12 * GIB, number as u64);
    }
    for (number, block) in blocks.into_iter().enumerate() {
        assert!(holds(block, 12 * GIB - 8, number as u64));
        free(block);
    }
}

/// A limit of addresses leaves room for the block, but not for whole SuperSlabs around it.
fn in_little_room() {
    let (small, size) = (raw::alloc(100), 3 * MIB);
    setrlimit(
        Resource::RLIMIT_AS,
        (child::memory("VmSize") + 3 * MIB + MIB / 2) as u64,
        RLIM_INFINITY,
    )
    .unwrap();
    for round in 0..3 {
        let block = raw::alloc(size);
        assert!(!block.is_null(), "round {round}");
        assert!(theap::owns(block) && (size..size + MIB).contains(&theap::usable_size(block)));
        assert!(outside(size));
        assert!(holds(block, size - 8, 0), "new memory reads zero");
        sign(block, size, round);
        // SAFETY: live; the old address is not used any more.
        let less = unsafe { raw::realloc(block, size - MIB) };
        assert!(holds(less, 0, round));
        free(less);
    }
    assert!(raw::alloc(4 * MIB).is_null());
    free(small);
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test outside"]
fn scenario() {
    match child::role().as_deref() {
        Some("one") => one_block(),
        Some("many") => many_blocks(),
        Some("sparse") => sparse(),
        Some("little") => in_little_room(),
        _ => {}
    }
}

#[test]
fn a_block_may_be_larger_than_the_range() {
    for pages in ["small", "thp", "auto"] {
        passes("one", &[SMALL[0], ("THEAP_PAGES", pages)]);
    }
}

#[test]
fn a_block_needs_no_more_room_than_its_own() {
    for pages in ["small", "thp"] {
        passes("little", &[("THEAP_MESSAGES", "0"), ("THEAP_PAGES", pages)]);
    }
}

#[test]
fn blocks_that_do_not_fit_have_mappings_of_their_own() {
    passes("many", &SMALL);
}

#[test]
fn sparse_blocks_may_exceed_the_machine() {
    if std::fs::read_to_string("/proc/sys/vm/overcommit_memory")
        .unwrap()
        .trim()
        == "2"
    {
        eprintln!("skipped: the system does not let memory be promised twice");
        return;
    }
    passes("sparse", &[("THEAP_PAGES", "small")]);
}
