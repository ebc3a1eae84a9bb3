//! Fork: parent and child both write to all of the heap, while the hugetlb pool has room for the
//! copies or has not, and while another thread of the parent writes or none does. A child of a
//! process that publishes its figures has figures of its own, while the parent runs on.
#![allow(unsafe_code)] // Calls the allocator directly, and fork.

mod cgroup;
mod child;
mod hugepages;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{slice, thread};
use theap::raw;

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
/// Blocks of one MiB each, which take about six SuperSlabs.
const BLOCKS: usize = 10;

fn block_of_my_own() -> &'static mut [u8] {
    let start = raw::alloc(MIB);
    assert!(!start.is_null());
    // SAFETY: the block is new, has this size, and is never freed.
    unsafe { slice::from_raw_parts_mut(start, MIB) }
}

/// Forks; the child exits with 0 if `in_child` returns.
fn fork(in_child: impl FnOnce(), in_parent: impl FnOnce()) {
    // SAFETY: the child uses this thread's memory and theap, which is made for it, and ends without
    // unwinding.
    match unsafe { libc::fork() } {
        -1 => panic!("fork"),
        0 => {
            in_child();
            // SAFETY: the call ends the child and does not run the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        pid => {
            in_parent();
            let mut status = 0;
            // SAFETY: `status` is live and writable.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert_eq!(status, 0, "the child died: {status:#x}");
        }
    }
}

/// Writes to every cell, and compares the value that it wrote in the round before, until `stop` is
/// set. Returns the number of rounds.
fn write_on(cells: &[&AtomicU64], stop: &AtomicBool) -> u64 {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        for cell in cells {
            let before = cell.swap(round + 1, Ordering::Relaxed);
            assert_eq!(before, round, "a write was lost");
        }
        round += 1;
    }
    round
}

/// Forks once; then both sides read and write every block.
fn fork_and_write(blocks: &mut [&'static mut [u8]], before: impl Fn(usize) -> u8, after: u8) {
    let places: Vec<*mut u8> = blocks.iter_mut().map(|block| block.as_mut_ptr()).collect();
    fork(
        || {
            for (i, &place) in places.iter().enumerate() {
                // SAFETY: the place is the child's copy of a block, which nobody else uses in the
                // child.
                let block = unsafe { slice::from_raw_parts_mut(place, MIB) };
                assert!(
                    block.iter().all(|&b| b == before(i)),
                    "the child reads something else"
                );
                block.fill(0xCC);
            }
            block_of_my_own().fill(7);
        },
        || blocks.iter_mut().for_each(|block| block.fill(after)),
    );
    assert!(blocks.iter().all(|block| block.iter().all(|&b| b == after)));
}

fn forks(threaded: bool) {
    let mut blocks: Vec<_> = (0..BLOCKS).map(|_| block_of_my_own()).collect();
    for (i, block) in blocks.iter_mut().enumerate() {
        block.fill(i as u8);
    }
    let shared = block_of_my_own();
    shared.fill(0);
    let cells: Vec<&AtomicU64> = shared
        .chunks_exact(PAGE)
        // SAFETY: the page is aligned, and from here on used only through the atomic.
        .map(|page| unsafe { AtomicU64::from_ptr(page.as_ptr().cast_mut().cast()) })
        .collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = threaded.then(|| scope.spawn(|| write_on(&cells, &stop)));
        fork_and_write(&mut blocks, |i| i as u8, 1);
        for round in 1..8 {
            fork_and_write(&mut blocks, |_| round, round + 1);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.is_none_or(|writer| writer.join().unwrap() > 0));
    });
    println!("on hugetlb pages: {}", theap::stats().mapped_hugetlb);
}

/// The reading end of a pipe. A new child waits for a byte from it, before theap's own fork handler
/// runs.
static GO: AtomicI32 = AtomicI32::new(-1);

extern "C" fn wait_for_go() {
    let mut byte = 0_u8;
    // SAFETY: `byte` has room for the byte that is read.
    unsafe { libc::read(GO.load(Ordering::Relaxed), (&raw mut byte).cast(), 1) };
}

/// The parent makes heaps and maps memory between the fork and the child's first step.
fn parent_runs_ahead() {
    let mut ends = [0; 2];
    // SAFETY: the array has room for both ends, and the handler is a function that any child may
    // call.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        // The handlers of children run in the order of their registration, and theap registers its
        // own when it is used for the first time, which is below.
        assert_eq!(libc::pthread_atfork(None, None, Some(wait_for_go)), 0);
    }
    GO.store(ends[0], Ordering::Relaxed);
    let keep: Vec<*mut u8> = (0..1000).map(|i| raw::alloc(100 + i * 20)).collect();
    let run = raw::alloc(MIB);
    let warm: Vec<*mut u8> = (0..20).map(|_| raw::alloc(200 << 10)).collect();
    let free = |blocks: &[*mut u8]| {
        for &block in blocks {
            // SAFETY: each process frees its copy of a live block once.
            unsafe { raw::free(block) };
        }
    };
    free(&warm);
    let before = theap::stats();
    assert!(before.empty > 0);
    fork(
        || {
            let now = theap::stats();
            assert_eq!(now.heaps, before.heaps);
            assert_eq!(now.mapped(), before.mapped());
            assert_eq!(now.empty, before.empty);
            assert_eq!(now.active, before.active);
            free(&keep);
            free(&[run]);
            // SAFETY: the child has one thread.
            #[cfg(debug_assertions)]
            unsafe { theap::is_valid() }.unwrap();
        },
        || {
            let barrier = Barrier::new(40);
            let work = || {
                for size in [16, 100, 1000, 30_000, 300_000] {
                    raw::alloc(size);
                }
                barrier.wait();
            };
            thread::scope(|scope| (0..40).for_each(|_| drop(scope.spawn(work))));
            // SAFETY: the array holds the byte that is written.
            let written = unsafe { libc::write(ends[1], [1_u8].as_ptr().cast(), 1) };
            assert_eq!(written, 1);
        },
    );
    assert!(theap::stats().heaps > 32, "each thread has a heap");
}

/// Forks again and again while hugetlb pages come and go. A child lives on for a while, in which
/// whoever takes such a page counts those that are shared.
fn pages_come_and_go() {
    let (stop, mut died) = (&AtomicBool::new(false), false);
    let end = Instant::now() + Duration::from_secs(3);
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let mut blocks = std::collections::VecDeque::new();
                for round in (thread..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                    let block = raw::alloc(3 * MIB);
                    assert!(!block.is_null());
                    // SAFETY: a block of this size.
                    unsafe { block.write_bytes(round as u8, 3 * MIB) };
                    blocks.push_back((block, round as u8));
                    if blocks.len() <= 12 {
                        continue;
                    }
                    for (block, byte) in blocks.drain(..round % 12) {
                        // SAFETY: a live block of this size, which is freed once.
                        unsafe {
                            assert_eq!(block.add(3 * MIB - 1).read(), byte);
                            raw::free(block);
                        }
                    }
                    theap::purge();
                }
            });
        }
        while Instant::now() < end {
            // SAFETY: the child sleeps and ends, by calls that allocate nothing.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                // SAFETY: as above.
                unsafe {
                    libc::usleep(2_000);
                    libc::_exit(0);
                }
            }
            let mut status = 0;
            // SAFETY: `status` is live and writable.
            let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
            // No panic before the threads stop, for whom the scope waits.
            died |= waited != pid || status != 0;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!died, "a child died");
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test fork"]
fn scenario() {
    match child::role().as_deref() {
        Some("pages come and go") => pages_come_and_go(),
        Some("alone") => forks(false),
        Some("threaded") => forks(true),
        Some("published") => parent_runs_ahead(),
        role => panic!("no such scenario: {role:?}"),
    }
}

/// Runs a scenario with a pool of `pages` pages. Returns whether the heap was still on hugetlb
/// pages at the end, and what the scenario wrote to standard error.
fn run(scenario: &str, pages: usize) -> Option<(bool, String)> {
    let pool = hugepages::Pool::take()?;
    if !pool.set(pages) {
        return None;
    }
    let output = child::run(scenario, &[("THEAP_PAGES", "hugetlb")]);
    let (out, err) = (child::text(&output.stdout), child::text(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    let kept = out
        .lines()
        .find_map(|line| line.split_once("on hugetlb pages: "))
        .expect("a figure")
        .1;
    Some((kept.trim().parse::<usize>().unwrap() >= BLOCKS * MIB, err))
}

#[test]
fn a_pool_with_room_for_the_copies_keeps_the_heap() {
    for scenario in ["alone", "threaded"] {
        if let Some((kept, said)) = run(scenario, 64) {
            assert!(kept);
            assert_eq!(said, "");
        }
    }
}

#[test]
fn a_dry_pool_kills_nobody() {
    // The heap takes about eight pages: the pool has too few for the heap, or none or too few for
    // the copies.
    for pages in [7, 8, 10] {
        for scenario in ["alone", "threaded"] {
            if let Some((_, said)) = run(scenario, pages) {
                assert_eq!(said.matches("theap: fork: ").count(), 1, "{said}");
                assert!(said.contains("moved"), "{said}");
            }
        }
    }
}

#[test]
fn pages_of_the_pool_may_come_and_go_meanwhile() {
    let Some(pool) = hugepages::Pool::take() else {
        return;
    };
    if pool.set(400) {
        let output = child::run("pages come and go", &[("THEAP_PAGES", "hugetlb")]);
        let said = child::text(&output.stderr);
        assert!(output.status.success(), "{}\n{said}", output.status);
    }
}

/// A control group limits the pages that are touched, or those that are promised; the pool itself
/// has enough.
#[test]
fn a_group_with_few_hugetlb_pages_kills_nobody() {
    let Some(pool) = hugepages::Pool::take() else {
        return;
    };
    let touched = ["hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"];
    let promised = ["hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.rsvd.max"];
    for limits in [touched, promised] {
        for pages in [1, 7, 8, 10] {
            let bytes = (pages * 2 * MIB).to_string();
            let Some(group) = cgroup::Group::new("hugetlb", limits, &bytes) else {
                return;
            };
            if !pool.set(64) {
                return;
            }
            for scenario in ["alone", "threaded"] {
                let mut command = child::command(scenario, &[("THEAP_PAGES", "hugetlb")]);
                group.hold(&mut command);
                let output = command.output().unwrap();
                let said = child::text(&output.stderr) + &child::text(&output.stdout);
                assert!(output.status.success(), "{limits:?} {pages}: {said}");
            }
        }
    }
}

#[test]
fn a_published_child_has_its_own_figures() {
    let variables = [("THEAP_PUBLISH", "1"), ("THEAP_PAGES", "small")];
    let output = child::run("published", &variables);
    let said = child::text(&output.stderr) + &child::text(&output.stdout);
    assert!(output.status.success(), "{}\n{said}", output.status);
}
