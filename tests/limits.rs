//! The limits of the heap: `limit`, beyond which allocations get null, and `soft_limit`, at which
//! the program is told. Each scenario is a process of its own.
#![allow(unsafe_code)] // Calls the allocator directly, and forks.

mod child;

use child::{passes, text};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::time::Duration;
use std::{ptr, slice, thread};
use theap::{Theap, raw};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Sizes from huge to tiny, so that each finds the memory that the one before has left.
const SIZES: [usize; 6] = [3 * MIB, 300 * KIB, 40 * KIB, 5000, 700, 16];
/// Bytes that the option `limit` has in the scenarios.
const LIMIT: usize = 64 * MIB;
const PAGES: [&str; 3] = ["small", "thp", "auto"];

/// A live block, written at both ends.
struct Block(*mut u8, usize);

// SAFETY: a block is whoever's that has it.
unsafe impl Send for Block {}

impl Block {
    fn new(size: usize) -> Option<Self> {
        Self::signed(raw::alloc(size), size)
    }

    /// The block that an allocation has answered, signed; `None` if it is null.
    fn signed(at: *mut u8, size: usize) -> Option<Self> {
        if at.is_null() {
            return None;
        }
        // SAFETY: a new block of this size, at least 16 bytes.
        unsafe {
            at.cast::<usize>().write_unaligned(size);
            at.add(size - 8).cast::<usize>().write_unaligned(size);
        }
        Some(Self(at, size))
    }

    fn is_whole(&self) -> bool {
        // SAFETY: the block is live, and was signed at these places.
        unsafe {
            self.0.cast::<usize>().read_unaligned() == self.1
                && self.0.add(self.1 - 8).cast::<usize>().read_unaligned() == self.1
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        assert!(self.is_whole());
        // SAFETY: the block is live until here.
        unsafe { raw::free(self.0) };
    }
}

fn charged() -> usize {
    theap::stats().charged as usize
}

fn refused() -> u64 {
    theap::stats().limit_refusals
}

/// Blocks of all sizes until there are no more.
fn fill() -> Vec<Block> {
    let more = |&size: &usize| std::iter::from_fn(move || Block::new(size));
    SIZES.iter().flat_map(more).collect()
}

/// Bytes of the blocks.
fn bytes(blocks: &[Block]) -> usize {
    blocks.iter().map(|block| block.1).sum()
}

/// Null at the limit, and memory again when some was freed, for every size, in turns.
fn hard() {
    let size = child::memory("VmSize");
    // Plain calls need all addresses from the start.
    let reserves = std::env::var_os("THEAP_CALLS").is_some();
    for round in 0..3 {
        let before = refused();
        let mut blocks = fill();
        assert!(charged() <= LIMIT, "round {round}: {}", charged());
        // The tables, and what the test itself needs, do not count.
        let mapped = child::memory("VmSize") - size;
        assert!(
            reserves || mapped <= LIMIT + 16 * MIB,
            "round {round}: {mapped}"
        );
        assert!(
            bytes(&blocks) > LIMIT / 2,
            "round {round}: {}",
            bytes(&blocks)
        );
        let counted = refused() - before;
        assert!(counted >= SIZES.len() as u64, "round {round}: {counted}");
        // Below the limit again: half of the blocks make room for one of each size.
        let mut number = 0;
        blocks.retain(|_| {
            number += 1;
            number % 2 == 0
        });
        let again: Vec<_> = SIZES.into_iter().filter_map(Block::new).collect();
        assert_eq!(again.len(), SIZES.len(), "round {round}");
        drop((blocks, again));
        // Free SuperSlabs that are apart make room for one huge block.
        let huge = Block::new(LIMIT - 20 * MIB).expect("everything was freed");
        assert!(charged() <= LIMIT && huge.is_whole());
    }
    assert!(theap::warm_up(2 * LIMIT).is_err());
    let empty = Block::new(16).is_some() && Block::new(40 * MIB).is_some();
    assert!(empty, "a refused preparation takes nothing");
    assert!(charged() <= LIMIT);
}

/// Every way to ask for memory gets null at the limit, and a block that cannot grow stays.
fn every_way() {
    let heap = Theap::new();
    let [small, run, huge] = [700, 300 * KIB, 5 * MIB].map(|size| Block::new(size).unwrap());
    let mut held = fill();
    // Mappings of their own take what is too little for a SuperSlab.
    let pages = || Block::signed(raw::alloc_pages(64 * KIB, 4096), 64 * KIB);
    held.extend(std::iter::from_fn(pages));
    let layout = |size, align| Layout::from_size_align(size, align).unwrap();
    // SAFETY: the layouts have a size. The blocks that are to grow are live, and stay as they are
    // when the answer is null.
    unsafe {
        for size in [600 * KIB, 3 * MIB, 100 * MIB] {
            let before = refused();
            assert!(heap.alloc(layout(size, 8)).is_null());
            assert!(heap.alloc_zeroed(layout(size, 8)).is_null());
            assert!(heap.alloc(layout(size, 2 * MIB)).is_null());
            assert!(raw::alloc_aligned(size, 4096).is_null());
            assert!(raw::alloc_pages(size, 4096).is_null());
            assert!(raw::alloc_zeroed(size).is_null());
            let asked = 6;
            assert!(
                refused() - before >= asked,
                "{size}: {}",
                refused() - before
            );
        }
        for (block, more) in [(&small, 300 * KIB), (&run, 90 * MIB), (&huge, 90 * MIB)] {
            assert!(raw::realloc(block.0, more).is_null());
            assert!(block.is_whole());
        }
        // To less is possible at the limit too.
        let Block(at, _) = huge;
        std::mem::forget(huge);
        let less = raw::realloc(at, 100);
        assert!(!less.is_null());
        raw::free(less);
    }
    assert!(charged() <= LIMIT);
    held.clear();
    let zeroed = raw::alloc_zeroed(3 * MIB);
    // SAFETY: a new block of this size.
    unsafe {
        assert!(
            slice::from_raw_parts(zeroed, 3 * MIB)
                .iter()
                .all(|&byte| byte == 0)
        );
        raw::free(zeroed);
    }
}

/// Blocks that have mappings of their own count too.
fn outside() {
    let block = Block::new(100 * MIB).expect("the limit allows one");
    assert!(theap::stats().outside >= 100 * MIB as u64 && charged() >= 100 * MIB);
    assert!(Block::new(100 * MIB).is_none());
    let Block(at, size) = block;
    std::mem::forget(block);
    // SAFETY: the block is live; the old address is not used after an answer that is not null.
    let at = unsafe {
        assert!(raw::realloc(at, 200 * MIB).is_null());
        let larger = raw::realloc(at, 130 * MIB);
        assert!(!larger.is_null() && charged() >= 130 * MIB);
        assert!(raw::alloc(80 * MIB).is_null());
        raw::realloc(larger, 70 * MIB)
    };
    assert!(!at.is_null() && charged() < 90 * MIB, "{}", charged());
    let second = Block::new(65 * MIB).expect("the first one has become smaller");
    assert!(charged() <= 160 * MIB && theap::stats().outside >= (70 + 65) * MIB as u64);
    // SAFETY: as above; the size was changed with the contents' start.
    unsafe {
        assert_eq!(at.cast::<usize>().read(), size);
        raw::free(at);
    }
    drop(second);
    assert!(charged() < 20 * MIB && theap::stats().outside == 0);
}

/// Threads that fill the heap at once never exceed the limit, and each gets its null.
fn threads() {
    let (all, over) = (Barrier::new(8), AtomicBool::new(false));
    thread::scope(|scope| {
        let most = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = charged().max(most);
            }
            most
        });
        let fillers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..4 {
                        all.wait();
                        let mine = fill();
                        all.wait();
                        assert!(mine.iter().all(Block::is_whole));
                    }
                    theap::collect();
                })
            })
            .collect();
        fillers
            .into_iter()
            .for_each(|filler| filler.join().unwrap());
        over.store(true, Ordering::Relaxed);
        let most = most.join().unwrap();
        assert!((LIMIT / 2..=LIMIT).contains(&most), "{most}");
    });
    theap::collect();
    assert!(Block::new(3 * MIB).is_some() && refused() >= 8);
}

/// Calls of the program's function, and what it was told last.
static CALLS: AtomicUsize = AtomicUsize::new(0);
static TOLD: AtomicUsize = AtomicUsize::new(0);

fn count(mapped: usize) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    TOLD.store(mapped, Ordering::Relaxed);
}

fn calls() -> usize {
    CALLS.load(Ordering::Relaxed)
}

/// Blocks of 1 MiB until so many bytes count.
fn grow_to(bytes: usize) -> Vec<Block> {
    let grow = || (charged() < bytes).then(|| Block::new(MIB).expect("no hard limit"));
    let grown = std::iter::from_fn(grow).collect();
    // The note of the last growth is acted on by now, at the latest.
    drop(Block::new(400 * KIB));
    grown
}

/// The function is called once for a crossing, once for each further eighth, and again when the
/// heap had fallen below.
fn soft() {
    theap::on_soft_limit(Some(count));
    let held = grow_to(60 * MIB);
    assert_eq!(calls(), 0);
    let more = grow_to(LIMIT + MIB);
    assert_eq!(calls(), 1, "beyond the limit");
    assert_eq!(theap::stats().soft_limits, 1);
    let told = TOLD.load(Ordering::Relaxed);
    assert!((50 * MIB..=LIMIT + 4 * MIB).contains(&told), "{told}");
    (0..100).for_each(|_| drop(Block::new(200 * KIB)));
    assert_eq!(calls(), 1);
    let eighth = grow_to(LIMIT + 9 * MIB);
    assert_eq!(calls(), 2, "an eighth more");
    drop((held, more, eighth));
    // Free memory stays mapped until it is purged, at the crossing after the next growth.
    let huge = Block::new(160 * MIB);
    assert_eq!(calls(), 3);
    assert!(
        TOLD.load(Ordering::Relaxed) < 180 * MIB,
        "what was free is unmapped"
    );
    drop(huge);
    theap::on_soft_limit(None);
    let _more = Block::new(300 * MIB);
    assert!(calls() == 3 && theap::stats().soft_limits >= 4);
}

static HELD: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// A function that itself makes the heap grow, far beyond the next call, and frees.
fn allocate(_: usize) {
    assert_eq!(
        INSIDE.fetch_add(1, Ordering::Relaxed),
        0,
        "called inside of itself"
    );
    CALLS.fetch_add(1, Ordering::Relaxed);
    let blocks: Vec<_> = (0..60).map(|_| Block::new(MIB).unwrap()).collect();
    assert!(blocks.iter().all(Block::is_whole));
    let kept = HELD.swap(ptr::null_mut(), Ordering::Relaxed);
    // SAFETY: null, or a block that nobody uses.
    unsafe { raw::free(kept) };
    INSIDE.fetch_sub(1, Ordering::Relaxed);
}

/// The function may allocate and free, and a crossing inside of it is acted on afterwards.
fn re_entrant() {
    theap::on_soft_limit(Some(allocate));
    HELD.store(raw::alloc(30 * MIB), Ordering::Relaxed);
    let held = grow_to(LIMIT + MIB);
    assert!(calls() >= 1 && HELD.load(Ordering::Relaxed).is_null());
    assert!(held.iter().all(Block::is_whole));
    let before = calls();
    let more = grow_to(3 * LIMIT);
    assert!(calls() > before, "called again afterwards");
    drop((held, more));
}

/// Many threads cross the limit at once: each crossing is told once, by one thread at a time.
fn soft_threads() {
    theap::on_soft_limit(Some(allocate));
    let all = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let blocks: Vec<_> = (0..40).map(|_| Block::new(MIB).unwrap()).collect();
                all.wait();
                assert!(blocks.iter().all(Block::is_whole));
                (0..1000).for_each(|_| drop(Block::new(3000)));
            });
        }
    });
    let crossed = theap::stats().soft_limits as usize;
    assert!((1..=crossed).contains(&calls()), "{} of {crossed}", calls());
}

/// A thread that is inside of the function while another one forks.
fn wait_in_function(_: usize) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    while INSIDE.load(Ordering::Relaxed) == 0 {
        std::hint::spin_loop();
    }
}

/// In a forked child the limit is told, although the parent's other thread was inside.
fn forked() {
    theap::on_soft_limit(Some(wait_in_function));
    thread::scope(|scope| {
        scope.spawn(|| grow_to(LIMIT + MIB));
        while calls() == 0 {
            std::hint::spin_loop();
        }
        // SAFETY: the child allocates, which theap allows, and ends.
        let child = unsafe { libc::fork() };
        INSIDE.store(1, Ordering::Relaxed);
        if child == 0 {
            INSIDE.store(1, Ordering::Relaxed);
            let grown = grow_to(LIMIT + 20 * MIB);
            let told = calls() > 1 && grown.iter().all(Block::is_whole);
            std::mem::forget(grown);
            // SAFETY: no destructor of this process needs to run.
            unsafe { libc::_exit(i32::from(!told)) };
        }
        let mut status = -1;
        // SAFETY: the status is a local variable.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
    });
}

/// A thread of the program's serves the limit: others grow on beyond it and do not wait.
fn served() {
    theap::on_soft_limit(Some(count));
    let served = &AtomicUsize::new(0);
    let [grown, end] = &[const { AtomicBool::new(false) }; 2];
    let wait_for = |times: usize| {
        while served.load(Ordering::Relaxed) < times {
            thread::sleep(Duration::from_millis(1));
        }
    };
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let me = thread::current().id();
            theap::serve_soft_limit(|mapped| {
                assert!(thread::current().id() == me && mapped > LIMIT / 2);
                let number = served.fetch_add(1, Ordering::Relaxed);
                // The function may allocate, free and purge.
                let blocks: Vec<_> = SIZES.into_iter().filter_map(Block::new).collect();
                assert!(blocks.len() == SIZES.len() && blocks.iter().all(Block::is_whole));
                theap::purge();
                // The first time the growing thread must get on meanwhile.
                while number == 0 && !grown.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
                !end.load(Ordering::Relaxed)
            })
        });
        // Until the thread serves the limit, the one that grows is told.
        let mut held = Vec::new();
        while served.load(Ordering::Relaxed) == 0 {
            held.extend(grow_to(charged().max(LIMIT) + MIB));
            thread::sleep(Duration::from_millis(5));
        }
        let before = calls();
        assert!(!theap::serve_soft_limit(|_| true), "a thread serves it");
        let full = charged();
        let more = grow_to(full + LIMIT);
        // A child has no such thread: the one that grows is told.
        // SAFETY: the child allocates, which theap allows, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let more = grow_to(full + 3 * LIMIT);
            let told = calls() > before && more.iter().all(Block::is_whole);
            std::mem::forget(more);
            // SAFETY: no destructor of this process needs to run.
            unsafe { libc::_exit(i32::from(!told)) };
        }
        let mut status = -1;
        // SAFETY: the status is a local variable.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
        grown.store(true, Ordering::Relaxed);
        // It was crossed while the function ran; the note is acted on afterwards.
        wait_for(2);
        let mut last = grow_to(full + 2 * LIMIT);
        assert_eq!(calls(), before, "no other thread was told");
        end.store(true, Ordering::Relaxed);
        while !server.is_finished() {
            last.extend(grow_to(charged() + 10 * MIB));
            thread::sleep(Duration::from_millis(20));
        }
        assert!(server.join().unwrap(), "the function has ended that");
        let before = calls();
        drop((held, more, last));
        theap::purge();
        drop(grow_to(charged() + 4 * LIMIT));
        assert!(calls() > before, "nobody serves the limit");
    });
}

/// Without the option there is nothing to serve.
fn not_served() {
    drop(Block::new(MIB));
    assert!(!theap::serve_soft_limit(|_| true));
}

/// The warmer's stock ends at the limits.
fn warmer() {
    theap::on_soft_limit(Some(count));
    let _held = grow_to(40 * MIB);
    thread::sleep(Duration::from_millis(500));
    assert!(charged() <= LIMIT && calls() == 0, "{}", charged());
    assert!(theap::stats().warmer_starts > 0);
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test limits"]
fn scenario() {
    match child::role().as_deref() {
        Some("hard") => hard(),
        Some("ways") => every_way(),
        Some("outside") => outside(),
        Some("threads") => threads(),
        Some("soft") => soft(),
        Some("re-entrant") => re_entrant(),
        Some("soft-threads") => soft_threads(),
        Some("forked") => forked(),
        Some("served") => served(),
        Some("not-served") => not_served(),
        Some("warmer") => warmer(),
        _ => {}
    }
}

/// Runs a scenario under the hard limit, in all page modes; the one message says so.
fn at_the_limit(scenario: &str, options: &[(&str, &str)]) {
    for pages in PAGES {
        let all = [options, &[("THEAP_PAGES", pages)]].concat();
        let output = child::run(scenario, &all);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{scenario} {pages}: {said}");
        let lines: Vec<_> = said.lines().collect();
        let start = "theap: the heap may map ";
        let one = lines.len() == 1 && lines[0].starts_with(start);
        assert!(one, "{scenario} {pages}: {said}");
    }
}

const HARD: (&str, &str) = ("THEAP_LIMIT", "64M");
const SOFT: (&str, &str) = ("THEAP_SOFT_LIMIT", "64M");

#[test]
fn at_the_limit_allocations_get_null_until_memory_is_freed() {
    at_the_limit("hard", &[HARD]);
    at_the_limit("hard", &[HARD, ("THEAP_PREFAULT", "ahead")]);
    at_the_limit("hard", &[HARD, ("THEAP_CALLS", "plain")]);
}

#[test]
fn every_way_to_ask_meets_the_limit() {
    at_the_limit("ways", &[HARD]);
}

#[test]
fn mappings_of_their_own_count() {
    let options = [("THEAP_LIMIT", "160M"), ("THEAP_ADDRESS_SPACE", "64M")];
    at_the_limit("outside", &options);
}

#[test]
fn threads_together_stay_below_the_limit() {
    at_the_limit("threads", &[HARD]);
}

#[test]
fn the_program_is_told_of_the_soft_limit() {
    for pages in PAGES {
        let options = [SOFT, ("THEAP_PAGES", pages), ("THEAP_GROWTH", "2M")];
        passes("soft", &options);
        passes("re-entrant", &options);
        passes("soft-threads", &options);
    }
}

#[test]
fn a_thread_of_the_program_serves_the_soft_limit() {
    for pages in PAGES {
        let options = [SOFT, ("THEAP_PAGES", pages), ("THEAP_GROWTH", "2M")];
        passes("served", &options);
        let background = [&options[..], &[("THEAP_BACKGROUND", "1")]].concat();
        passes("served", &background);
    }
    passes("not-served", &[]);
}

#[test]
fn a_forked_child_is_told_of_the_soft_limit() {
    passes("forked", &[SOFT, ("THEAP_PAGES", "small")]);
}

#[test]
fn the_warmer_stays_below_the_limits() {
    let ahead = [("THEAP_PREFAULT", "ahead"), ("THEAP_AHEAD", "512M")];
    for limit in [SOFT, HARD] {
        passes(
            "warmer",
            &[&ahead[..], &[limit, ("THEAP_PAGES", "small")]].concat(),
        );
    }
}
