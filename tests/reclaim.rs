//! What rests is taken, while threads go on: heaps whose threads come and go, rest for a moment and
//! wake up again, beside reclaimers that come every millisecond. Each scenario runs in a process of
//! its own.
#![cfg(feature = "stats")]
#![allow(unsafe_code)] // Calls the allocator directly, and forks.

mod child;

use std::panic::{self, AssertUnwindSafe};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{ptr, slice, thread};
use theap::raw;

const MIB: usize = 1 << 20;
/// Threads that have a burst and rest.
const THREADS: usize = 10;

/// A block and the byte that all of it has.
type Block = (*mut u8, usize, u8);

fn filled(size: usize, byte: u8) -> Block {
    let block = raw::alloc(size);
    assert!(!block.is_null());
    // SAFETY: a block of so many bytes.
    unsafe { ptr::write_bytes(block, byte, size) };
    (block, size, byte)
}

fn free((block, size, byte): Block) {
    // SAFETY: a live block of so many bytes, which is freed once.
    unsafe {
        let bytes = slice::from_raw_parts(block, size);
        assert!(bytes.iter().all(|&it| it == byte), "a block has changed");
        raw::free(block);
    }
}

/// A number that looks random.
fn next(state: &mut u64) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    (*state >> 33) as usize
}

/// The sizes of every third class.
fn sizes() -> Vec<usize> {
    free(filled(1, 1)); // There is a heap.
    let classes = theap::stats().classes;
    classes
        .iter()
        .map(|class| class.size as usize)
        .skip(2)
        .step_by(3)
        .collect()
}

/// Blocks of these sizes, 1 MiB of each: more than a nursery gives.
fn all_sizes(sizes: &[usize]) -> Vec<Block> {
    let of_size = |&size: &usize| (0..MIB / size).map(move |_| filled(size, 7));
    sizes.iter().flat_map(of_size).collect()
}

/// Runs `meanwhile` while threads rest that had a burst in many classes, and have them go on
/// afterwards.
fn beside_resting_threads(meanwhile: impl FnOnce()) {
    let (sizes, barrier) = (sizes(), Barrier::new(THREADS + 1));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut blocks = all_sizes(&sizes);
                let stays: Vec<_> = blocks.iter().copied().step_by(50).collect();
                let mut at = 0;
                blocks.retain(|_| {
                    at += 1;
                    at % 50 != 1
                });
                blocks.into_iter().for_each(free);
                barrier.wait();
                barrier.wait();
                all_sizes(&sizes).into_iter().for_each(free);
                stays.into_iter().for_each(free);
            });
        }
        barrier.wait();
        // The threads must not wait for ever.
        let done = panic::catch_unwind(AssertUnwindSafe(meanwhile));
        barrier.wait();
        done.unwrap_or_else(|cause| panic::resume_unwind(cause));
    });
}

/// Bursts of many sizes for so long, none like the one before: they are more than magazines hold.
fn work(time: Duration) {
    let (begun, mut state) = (Instant::now(), 1);
    while begun.elapsed() < time {
        let count = next(&mut state) % 20_000;
        let blocks: Vec<_> = (0..count)
            .map(|_| raw::alloc(16 + next(&mut state) % 1000))
            .collect();
        for block in blocks {
            // SAFETY: a live block, which is freed once.
            unsafe { raw::free(block) };
        }
    }
}

/// Bytes in spans of all heaps.
fn in_heaps() -> u64 {
    theap::heaps().map(|heap| heap.span_bytes).sum()
}

fn resting(rest: impl Fn()) {
    beside_resting_threads(|| {
        let (before, resident) = (in_heaps(), child::memory("VmRSS"));
        rest();
        let (after, then) = (in_heaps(), child::memory("VmRSS"));
        let reclaimed = theap::stats().totals.spans_reclaimed;
        println!(
            "{} MiB in heaps, then {}; resident {} MiB, then {}; {reclaimed} spans taken",
            before / MIB as u64,
            after / MIB as u64,
            resident / MIB,
            then / MIB
        );
        assert!(reclaimed > 100, "{reclaimed} spans taken");
        assert!(
            after * 2 < before,
            "{after} of {before} bytes stay in heaps"
        );
        assert!(
            then < resident - 8 * MIB,
            "{then} of {resident} bytes resident"
        );
    });
}

/// Threads that work for a moment, rest for a moment, and free each other's blocks; some end.
fn restless() {
    let (end, mail) = (
        AtomicBool::new(false),
        std::sync::Mutex::new(Vec::<usize>::new()),
    );
    let life = |seed: usize| {
        let mut state = seed as u64;
        let mut blocks: Vec<Block> = Vec::new();
        while !end.load(Ordering::Relaxed) {
            for _ in 0..next(&mut state) % 3000 {
                let shift = next(&mut state) % 15;
                blocks.push(filled(1 + next(&mut state) % (16 << shift), seed as u8));
            }
            let keep = blocks.len() / (1 + next(&mut state) % 8);
            while blocks.len() > keep {
                let block = blocks.swap_remove(next(&mut state) % blocks.len());
                if next(&mut state).is_multiple_of(4) {
                    let boxed = Box::into_raw(Box::new(block));
                    mail.lock().unwrap().push(boxed as usize);
                } else {
                    free(block);
                }
            }
            let letters = std::mem::take(&mut *mail.lock().unwrap());
            for letter in letters {
                // SAFETY: a box that a thread has sent once.
                free(*unsafe { Box::from_raw(letter as *mut Block) });
            }
            match next(&mut state) % 8 {
                0 => thread::sleep(Duration::from_millis(15)),
                1 => _ = theap::purge(),
                _ => thread::sleep(Duration::from_micros(next(&mut state) as u64 % 3000)),
            }
        }
        blocks.into_iter().for_each(free);
    };
    thread::scope(|scope| {
        for seed in 1..=6 {
            scope.spawn(move || life(seed));
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            thread::spawn(|| work(Duration::from_millis(5)))
                .join()
                .unwrap();
            forked();
        }
        end.store(true, Ordering::Relaxed);
    });
    let letters = std::mem::take(&mut *mail.lock().unwrap());
    for letter in letters {
        // SAFETY: a box that a thread has sent once.
        free(*unsafe { Box::from_raw(letter as *mut Block) });
    }
    let reclaimed = theap::stats().totals.spans_reclaimed;
    println!("{reclaimed} spans taken");
    assert!(reclaimed > 1000, "{reclaimed} spans taken");
}

/// A child that goes on allocating, as one of a process in which heaps are being reclaimed.
fn forked() {
    // SAFETY: the child allocates, which the heap allows, and ends.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            work(Duration::from_millis(5));
            theap::purge();
            libc::_exit(0);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert_eq!(status, 0, "the child failed");
    }
}

/// A sealed heap is left alone: what threads have is there when they wake up.
fn sealed() {
    beside_resting_threads(|| {
        theap::seal();
        let before = theap::stats().totals.spans_reclaimed;
        work(Duration::from_millis(300));
        assert_eq!(theap::stats().totals.spans_reclaimed, before);
        theap::unseal();
    });
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test reclaim"]
fn scenario() {
    match child::role().as_deref() {
        Some("in passing") => resting(|| work(Duration::from_secs(2))),
        Some("background") => resting(|| thread::sleep(Duration::from_secs(2))),
        Some("purge") => resting(|| _ = theap::purge()),
        Some("restless") => restless(),
        Some("sealed") => sealed(),
        _ => {}
    }
}

const SOON: (&str, &str) = ("THEAP_DECAY", "300");
const THP: (&str, &str) = ("THEAP_PAGES", "thp");
const AT_ONCE: (&str, &str) = ("THEAP_DECAY", "1");
const SMALL: (&str, &str) = ("THEAP_PAGES", "small");
const BACKGROUND: (&str, &str) = ("THEAP_BACKGROUND", "1");

#[test]
fn busy_threads_take_what_others_let_lie() {
    // A thread whose magazines have learned to hold its bursts passes by nothing.
    child::passes("in passing", &[SMALL, SOON, ("THEAP_LEARN", "0")]);
}

#[test]
fn the_background_takes_what_threads_let_lie() {
    if cfg!(target_env = "musl") {
        return eprintln!("skipped: programs of musl have no warmer");
    }
    child::passes("background", &[SMALL, SOON, BACKGROUND]);
}

#[test]
fn a_purge_takes_what_other_threads_let_lie() {
    child::passes("purge", &[SMALL]);
}

#[test]
fn restless_threads_lose_nothing() {
    child::passes("restless", &[SMALL, AT_ONCE]);
    child::passes("restless", &[THP, AT_ONCE, BACKGROUND]);
    child::passes("restless", &[THP, AT_ONCE, ("THEAP_PREFAULT", "ahead")]);
}

#[test]
fn a_sealed_heap_is_left_alone() {
    child::passes("sealed", &[SMALL, AT_ONCE]);
    child::passes("sealed", &[THP, AT_ONCE, BACKGROUND]);
}
