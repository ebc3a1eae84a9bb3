//! A thousand threads at once, and many thousands one after another (100,000 in optimised builds,
//! 10,000 in debug builds), on theap as the global allocator. The memory that they took must be
//! free again at the end.
#![allow(unsafe_code)] // Sets the length of vectors to bytes that were not written.

mod child;

use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use std::{fs, hint};
use theap::{Config, Pages, Theap};

// The heap is on small pages, because a block for each class and thread would take gigabytes of
// hugepages.
#[global_allocator]
static HEAP: Theap = Theap::with(Config::new().pages(Pages::Small));

const ALIVE: usize = 1000;
/// Nurseries that threads make on a machine with few CPUs.
const NURSERIES: u64 = 8;
const LATER: usize = if cfg!(debug_assertions) {
    10_000
} else {
    100_000
};
/// The threads of [`LATER`] that may run at once.
const BATCH: usize = 50;
/// The bytes of a thread's stack, which are enough for the tests.
const STACK: usize = 64 << 10;
const MIB: u64 = 1 << 20;
/// The bytes by which the resident memory may grow: 3 KiB for each heap ever made, and the tables
/// of the addresses that were used.
const KEPT: u64 = 8 * MIB;

/// The memory of the process in bytes, while no other thread does anything.
#[derive(Debug)]
struct Level {
    resident: u64,
    active: u64,
    mapped: u64,
    heaps: u64,
}

impl Level {
    fn now() -> Self {
        theap::collect();
        theap::purge();
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        let stats = theap::stats();
        Self {
            resident: pages * 4096,
            active: stats.active,
            mapped: stats.mapped(),
            heaps: stats.heaps,
        }
    }
}

fn start(body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(body)
        .unwrap()
}

/// Allocates a block of each class up to 256 KiB and a larger one, and writes to both ends of each.
fn one_of_each() -> Vec<Box<[u8]>> {
    let classes = theap::stats().classes;
    let sizes = classes.iter().map(|class| class.size as usize);
    sizes
        .filter(|&size| size <= 256 << 10)
        .chain([300 << 10])
        .map(|size| {
            let mut block = Vec::with_capacity(size);
            block.spare_capacity_mut()[size - 1].write(1);
            block.push(1);
            // SAFETY: nobody reads a byte that was not written; the vector's capacity is `size`.
            unsafe { block.set_len(size) };
            hint::black_box(block).into_boxed_slice()
        })
        .collect()
}

fn a_thousand_at_once() {
    let barrier = Arc::new(Barrier::new(ALIVE + 1));
    let threads: Vec<_> = (0..ALIVE)
        .map(|_| {
            let barrier = barrier.clone();
            start(move || {
                let blocks = one_of_each();
                barrier.wait();
                barrier.wait();
                drop(blocks);
            })
        })
        .collect();
    barrier.wait();
    println!("{ALIVE} at once: {:?}", Level::now());
    assert!(theap::stats().heaps >= ALIVE as u64);
    barrier.wait();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

fn many_later() {
    for _ in 0..LATER / BATCH {
        let threads: Vec<_> = (0..BATCH)
            .map(|_| {
                start(|| {
                    let blocks: Vec<_> = (1..30).map(|n| vec![1u8; n * 40]).collect();
                    drop(hint::black_box(blocks));
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test many_threads"]
fn scenario() {
    if child::role().is_none() {
        return;
    }
    // The harness and the first threads make some things once, which must not count.
    let first = || drop(one_of_each());
    (0..BATCH).for_each(|_| start(first).join().unwrap());
    let before = Level::now();
    println!("before: {before:?}");
    let runs = [
        ("1,000 at once", a_thousand_at_once as fn()),
        ("many later", many_later),
        ("1,000 again", a_thousand_at_once),
    ];
    let levels = runs.map(|(what, run)| {
        let begun = Instant::now();
        run();
        let after = Level::now();
        println!("{what}: {after:?}, {:?}", begun.elapsed());
        // More nurseries than before may have a span with a block that lives on.
        assert!(after.active <= before.active + MIB, "slots are lost");
        assert!(after.resident <= before.resident + KEPT, "memory is lost");
        after
    });
    let [once, _, again] = &levels;
    assert!(again.resident <= once.resident + MIB, "it grows");
    assert!(
        again.heaps <= before.heaps + ALIVE as u64 + NURSERIES,
        "heaps are lost"
    );
    // The peaks differ by what nurseries served, and growth comes in large steps.
    assert!(again.mapped <= once.mapped + 32 * MIB, "addresses are lost");
}

#[test]
fn what_threads_took_is_back_when_they_are_gone() {
    // The C library's cache of stacks keeps 16 KiB of each stack that was ever used, so it is off.
    let tunables = [("GLIBC_TUNABLES", "glibc.pthread.stack_cache_size=0")];
    let output = child::run("levels", &tunables);
    let said = [&output.stdout, &output.stderr].map(|bytes| child::text(bytes));
    println!("{}", said[0]);
    assert!(output.status.success(), "{}\n{}", output.status, said[1]);
}
