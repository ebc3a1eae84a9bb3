//! One life: a process whose threads allocate, resize, free, hand blocks to each other, end, and fork; then everything is
//! freed, and nothing may be in use.
//!
//! Every block is full of a pattern of its number, compared before it is resized or freed. A forked child compares and
//! frees the blocks of the thread that forked, and allocates its own.
#![allow(unsafe_code)] // Calls the allocator and fork directly.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use clap::Args;
use procfs::process::Process;
use serde::{Deserialize, Serialize};
use theap::raw;

use super::Chance;

/// Bytes that are live at once.
const LIVE: usize = 96 << 20;
/// Seconds after which a forked child is taken for hung: it needs a part of one.
const CHILD_LIMIT: u32 = 120;
/// Resident bytes that a life may keep for itself when it has freed everything: metadata, fronts, threads' stacks.
const REST: u64 = 48 << 20;

/// Live one life in this process.
#[derive(Args)]
pub struct Life {
    /// Everything that is left to chance follows from it
    number: u64,
    /// Seconds after which it is taken for hung and killed by SIGALRM
    #[arg(long, default_value_t = 600)]
    limit: u32,
}

/// What lives did.
#[derive(Default, Serialize, Deserialize)]
pub struct Report {
    processes: u64,
    threads: u64,
    forks: u64,
    operations: u64,
    bytes: u64,
    peak_mapped: u64,
    rest: u64,
}

impl Report {
    /// Adds another's numbers.
    pub fn add(&mut self, other: &Self) {
        self.processes += other.processes;
        self.threads += other.threads;
        self.forks += other.forks;
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.peak_mapped = self.peak_mapped.max(other.peak_mapped);
        self.rest = self.rest.max(other.rest);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} processes, {} threads, {} forks, {} operations, {} MiB allocated; at most {} MiB mapped, {} MiB more \
             resident when all was freed",
            self.processes,
            self.threads,
            self.forks,
            self.operations,
            self.bytes >> 20,
            self.peak_mapped >> 20,
            self.rest >> 20
        )
    }
}

/// A live block, full of its number's pattern.
struct Block {
    start: *mut u8,
    size: usize,
    number: u64,
}

// SAFETY: a block is its holder's.
unsafe impl Send for Block {}

/// What the threads of a life share.
#[derive(Default)]
struct Shared {
    /// Blocks on their way to whoever takes them.
    given: Mutex<Vec<Block>>,
    live: AtomicUsize,
}

impl Block {
    fn new(size: usize, number: u64, align: usize, zeroed: bool) -> Option<Self> {
        let start = match (zeroed, align) {
            (true, _) => raw::alloc_zeroed(size),
            (_, 1) => raw::alloc(size),
            _ => raw::alloc_aligned(size, align),
        };
        if start.is_null() {
            return None;
        }
        assert!(
            (start as usize).is_multiple_of(align),
            "{align} for {start:?}"
        );
        let block = Self {
            start,
            size,
            number,
        };
        if zeroed {
            assert!(
                block.words().all(|(_, word)| word == 0),
                "a zeroed block is not zero"
            );
        }
        block.fill();
        Some(block)
    }

    /// Every word of a small block, every 61st of a large one.
    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        let step = if self.size < 8192 { 1 } else { 61 };
        (0..self.size / 8).step_by(step)
    }

    fn words(&self) -> impl Iterator<Item = (usize, u64)> {
        // SAFETY: within the block.
        self.places()
            .map(|at| (at, unsafe { self.start.cast::<u64>().add(at).read() }))
    }

    fn fill(&self) {
        for at in self.places() {
            // SAFETY: within the block.
            unsafe {
                self.start
                    .cast::<u64>()
                    .add(at)
                    .write(self.number ^ at as u64)
            };
        }
    }

    fn check(&self) {
        let same = self
            .words()
            .all(|(at, word)| word == self.number ^ at as u64);
        assert!(
            same,
            "somebody wrote to {} bytes at {:?}",
            self.size, self.start
        );
    }

    fn resize(&mut self, size: usize) {
        self.check();
        // SAFETY: a live block.
        let moved = unsafe { raw::realloc(self.start, size) };
        if !moved.is_null() {
            let kept = Self {
                start: moved,
                size: self.size.min(size),
                number: self.number,
            };
            // Of what a large block was marked with, the places are the same.
            if self.size < 8192 && size < 8192 || self.size >= 8192 && size >= 8192 {
                let step = if self.size < 8192 { 1 } else { 61 };
                for at in (0..kept.size / 8).step_by(step) {
                    // SAFETY: within the block.
                    let word = unsafe { moved.cast::<u64>().add(at).read() };
                    assert_eq!(word, self.number ^ at as u64, "lost when resized to {size}");
                }
            }
            (self.start, self.size) = (moved, size);
            self.fill();
        }
    }

    fn free(self) {
        self.check();
        // SAFETY: a live block.
        unsafe { raw::free(self.start) };
    }
}

impl Life {
    pub fn run(self) -> Result<()> {
        end_after(self.limit);
        let mut chance = Chance(self.number);
        let shared = Shared::default();
        let _ = Block::new(100, 1, 1, false).map(Block::free);
        let before = resident()?;
        let mut report = Report {
            processes: 1,
            ..Report::default()
        };
        for _ in 0..1 + chance.below(6) {
            let threads: Vec<_> = (0..1 + chance.below(8)).map(|_| chance.next()).collect();
            let reports: Vec<_> = thread::scope(|scope| {
                let lives = threads.iter().map(|&seed| {
                    let shared = &shared;
                    scope.spawn(move || thread_life(shared, seed))
                });
                let lives: Vec<_> = lives.collect();
                lives
                    .into_iter()
                    .map(|life| life.join().expect("a thread panicked"))
                    .collect()
            });
            reports.iter().for_each(|other| report.add(other));
            report.peak_mapped = report.peak_mapped.max(theap::stats().mapped());
            if chance.below(3) == 0 {
                theap::purge();
            }
        }
        let left = shared.given.into_inner().expect("no thread panics with it");
        left.into_iter().for_each(Block::free);
        theap::purge();
        let stats = theap::stats();
        ensure!(
            stats.active == 0,
            "{} bytes are lost: {stats:?}",
            stats.active
        );
        report.rest = resident()?.saturating_sub(before);
        ensure!(
            report.rest <= REST,
            "{} more bytes are resident than at the start",
            report.rest
        );
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }
}

/// Has this process killed after so many seconds.
fn end_after(seconds: u32) {
    // SAFETY: two system calls; a caller that ignores the signal must not keep a hung process.
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::alarm(seconds);
    }
}

fn resident() -> Result<u64> {
    let status = Process::myself()?.status()?;
    Ok(status.vmrss.unwrap_or_default() * 1024)
}

fn size(chance: &mut Chance) -> usize {
    match chance.below(100) {
        0..60 => 8 + chance.below(1024),
        60..85 => 8 + chance.below(32 << 10),
        85..96 => 8 + chance.below(512 << 10),
        96..99 => 8 + chance.below(4 << 20),
        _ => 8 + chance.below(24 << 20),
    }
}

fn thread_life(shared: &Shared, seed: u64) -> Report {
    let mut chance = Chance(seed);
    let mut report = Report {
        threads: 1,
        ..Report::default()
    };
    let mut blocks: Vec<Block> = Vec::new();
    let tiny_only = chance.below(3) == 0;
    for _ in 0..chance.below(40_000) {
        report.operations += 1;
        match chance.below(200) {
            0..95 => {
                let size = if tiny_only {
                    8 + chance.below(500)
                } else {
                    size(&mut chance)
                };
                if shared.live.load(Ordering::Relaxed) + size > LIVE {
                    continue;
                }
                let align = if chance.below(8) == 0 {
                    1 << chance.below(14)
                } else {
                    1
                };
                let zeroed = align == 1 && chance.below(10) == 0;
                if let Some(block) = Block::new(size, chance.next(), align, zeroed) {
                    shared.live.fetch_add(size, Ordering::Relaxed);
                    report.bytes += size as u64;
                    blocks.push(block);
                }
            }
            95..165 if !blocks.is_empty() => {
                let block = blocks.swap_remove(chance.below(blocks.len()));
                shared.live.fetch_sub(block.size, Ordering::Relaxed);
                block.free();
            }
            165..175 if !blocks.is_empty() => {
                let which = chance.below(blocks.len());
                let (block, size) = (&mut blocks[which], size(&mut chance));
                let old = block.size;
                if shared.live.load(Ordering::Relaxed) + size <= LIVE {
                    block.resize(size);
                    shared.live.fetch_add(block.size, Ordering::Relaxed);
                    shared.live.fetch_sub(old, Ordering::Relaxed);
                }
            }
            175..188 if !blocks.is_empty() => {
                let block = blocks.swap_remove(chance.below(blocks.len()));
                shared
                    .given
                    .lock()
                    .expect("no thread panics with it")
                    .push(block);
            }
            188..198 => {
                let taken = shared.given.lock().expect("no thread panics with it").pop();
                blocks.extend(taken);
            }
            198 if chance.below(20) == 0 => theap::collect(),
            199 if chance.below(150) == 0 => {
                report.forks += 1;
                fork(&blocks, chance.next());
            }
            _ => {}
        }
    }
    // What is left is handed over: somebody else frees it.
    shared
        .given
        .lock()
        .expect("no thread panics with it")
        .append(&mut blocks);
    report
}

/// Forks; the child lives a little and must end well.
fn fork(blocks: &[Block], seed: u64) {
    // SAFETY: the child calls nothing but the heap, whose fork handlers are the matter here, and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        end_after(CHILD_LIMIT); // an alarm is not inherited
        let mut chance = Chance(seed);
        for block in blocks {
            block.check();
            // SAFETY: the child's copy of a live block.
            unsafe { raw::free(block.start) };
        }
        for _ in 0..500 {
            if let Some(block) = Block::new(size(&mut chance).min(1 << 20), chance.next(), 1, false)
            {
                block.free();
            }
        }
        // SAFETY: ends the child without handlers, which are the parent's.
        unsafe { libc::_exit(0) };
    }
    assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: the child above.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(status, 0, "a forked child went wrong");
}
