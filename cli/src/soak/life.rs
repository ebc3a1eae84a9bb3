//! One life: a process whose threads allocate, resize and free blocks, hand blocks to each other,
//! fork, and end; other threads rest meanwhile (`rest.rs`). When all threads have ended, the
//! process frees every block, and the heap must be empty.
//!
//! Under a limit (`THEAP_LIMIT`) the heap refuses blocks, and the life goes on without them. The
//! heap must never take more than the limit.
//!
//! A forked child checks and frees the blocks of the thread that forked, and allocates blocks of
//! its own.
#![allow(unsafe_code)] // Calls signal, alarm, fork and waitpid.

use std::env;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;

use anyhow::{Result, ensure};
use clap::Args;
use procfs::process::Process;
use serde::{Deserialize, Serialize};

use super::Chance;
use super::block::Block;
use super::rest::{self, Rest, Waker};
use crate::arguments;

/// The most bytes that are live at once.
const LIVE: usize = 96 << 20;
/// The most threads that rest during a life.
const RESTING: usize = 8;
/// Seconds after which a forked child counts as hung; a child needs less than one.
const CHILD_LIMIT: u32 = 120;
/// Resident bytes that a life may still have when it has freed everything: metadata, thread caches
/// and stacks.
const REST: u64 = 48 << 20;

/// Live one life in this process.
#[derive(Args)]
pub struct Life {
    /// The number that decides all that happens in the life
    number: u64,
    /// Seconds after which the life counts as hung, and SIGALRM kills it
    #[arg(long, default_value_t = 600)]
    limit: u32,
}

/// The numbers that tell what one or more lives did.
#[derive(Default, Serialize, Deserialize)]
pub struct Report {
    processes: u64,
    /// Processes with a limit.
    limited: u64,
    threads: u64,
    /// Threads among them that rested.
    pub(super) resting: u64,
    forks: u64,
    pub(super) operations: u64,
    /// Allocations and resizings that got nothing.
    refusals: u64,
    bytes: u64,
    peak_mapped: u64,
    rest: u64,
}

impl Report {
    /// Adds the numbers of other lives.
    pub fn add(&mut self, other: &Self) {
        self.processes += other.processes;
        self.limited += other.limited;
        self.threads += other.threads;
        self.resting += other.resting;
        self.forks += other.forks;
        self.operations += other.operations;
        self.refusals += other.refusals;
        self.bytes += other.bytes;
        self.peak_mapped = self.peak_mapped.max(other.peak_mapped);
        self.rest = self.rest.max(other.rest);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} processes, {} of them under a limit, {} threads, {} of them resting, {} forks, {} operations, {} \
             refusals, {} MiB allocated; at most {} MiB mapped, {} MiB more resident when all was freed",
            self.processes,
            self.limited,
            self.threads,
            self.resting,
            self.forks,
            self.operations,
            self.refusals,
            self.bytes >> 20,
            self.peak_mapped >> 20,
            self.rest >> 20
        )
    }
}

/// The state that the threads of a life share.
#[derive(Default)]
pub struct Shared {
    /// Blocks on their way from one thread to another.
    given: Mutex<Vec<Block>>,
    /// Bytes that are live.
    live: AtomicUsize,
}

impl Shared {
    fn given(&self) -> MutexGuard<'_, Vec<Block>> {
        self.given.lock().expect("no thread panics with it")
    }
}

impl Life {
    pub fn run(self) -> Result<()> {
        end_after(self.limit);
        let mut chance = Chance(self.number);
        let shared = Shared::default();
        let _ = Block::new(100, 1, 1, false).map(Block::free);
        let before = resident()?;
        let limit = memory_limit()?;
        let mut report = Report {
            processes: 1,
            limited: u64::from(limit < u64::MAX),
            ..Report::default()
        };
        let resting = seeds(&mut chance, RESTING);
        let rest = Rest::default();
        thread::scope(|scope| {
            let resting = resting.iter().map(|&seed| {
                let (shared, rest) = (&shared, &rest);
                scope.spawn(move || rest::live(shared, rest, seed))
            });
            let resting: Vec<_> = resting.collect();
            let waker = Waker(&rest);
            rest.await_resting(resting.len());
            let worked = work(&shared, &mut chance, limit, &mut report);
            drop(waker);
            for thread in resting {
                report.add(&thread.join().expect("a thread panicked"));
            }
            worked
        })?;
        let left = shared.given.into_inner().expect("no thread panics with it");
        left.into_iter().for_each(Block::free);
        theap::purge();
        let stats = theap::stats();
        ensure!(
            stats.active == 0,
            "{} bytes are still in use when all is freed: {stats:?}",
            stats.active
        );
        report.rest = resident()?.saturating_sub(before);
        ensure!(
            report.rest <= REST,
            "{} more bytes are resident than at the start, when all is freed",
            report.rest
        );
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }
}

/// Generations of threads that work, one after another.
fn work(shared: &Shared, chance: &mut Chance, limit: u64, report: &mut Report) -> Result<()> {
    for _ in 0..1 + chance.below(6) {
        let mut threads = vec![chance.next()];
        threads.extend(seeds(chance, 7));
        let reports: Vec<_> = thread::scope(|scope| {
            let lives = threads
                .iter()
                .map(|&seed| scope.spawn(move || ThreadLife::live(shared, seed)));
            let lives: Vec<_> = lives.collect();
            lives
                .into_iter()
                .map(|life| life.join().expect("a thread panicked"))
                .collect()
        });
        reports.iter().for_each(|other| report.add(other));
        let stats = theap::stats();
        report.peak_mapped = report.peak_mapped.max(stats.mapped());
        ensure!(
            stats.charged <= limit,
            "the heap has {} bytes under a limit of {limit}",
            stats.charged
        );
        if chance.below(3) == 0 {
            theap::purge();
        }
    }
    Ok(())
}

/// The seeds of at most `most` threads.
fn seeds(chance: &mut Chance, most: usize) -> Vec<u64> {
    (0..chance.below(most + 1)).map(|_| chance.next()).collect()
}

/// The bytes that the heap may take, as `THEAP_LIMIT` has them.
fn memory_limit() -> Result<u64> {
    let limit = env::var("THEAP_LIMIT").map_or(Ok(0), |text| arguments::bytes(&text))?;
    Ok(if limit == 0 { u64::MAX } else { limit as u64 })
}

/// Has the kernel kill this process after this time.
fn end_after(seconds: u32) {
    // SAFETY: neither call touches memory of this process. The signal gets its default disposition
    // because a caller may ignore it, and a hung process would stay then.
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

/// The life of one thread, with the blocks that it holds.
pub struct ThreadLife<'a> {
    shared: &'a Shared,
    pub chance: Chance,
    pub blocks: Vec<Block>,
    /// Whether the thread allocates small blocks only.
    small_only: bool,
    pub report: Report,
}

impl<'a> ThreadLife<'a> {
    pub fn new(shared: &'a Shared, mut chance: Chance) -> Self {
        Self {
            shared,
            small_only: chance.below(3) == 0,
            chance,
            blocks: Vec::new(),
            report: Report {
                threads: 1,
                ..Report::default()
            },
        }
    }

    /// Lives through the number of operations that the seed decides.
    fn live(shared: &'a Shared, seed: u64) -> Report {
        let mut life = Self::new(shared, Chance(seed));
        for _ in 0..life.chance.below(40_000) {
            life.report.operations += 1;
            life.operation();
        }
        life.end()
    }

    /// Leaves the blocks that are left to other threads, which free them.
    pub fn end(mut self) -> Report {
        self.shared.given().append(&mut self.blocks);
        self.report
    }

    pub fn operation(&mut self) {
        match self.chance.below(200) {
            0..95 => self.allocate(),
            95..165 if !self.blocks.is_empty() => self.free(),
            165..175 if !self.blocks.is_empty() => self.resize(),
            175..188 if !self.blocks.is_empty() => self.give(),
            188..198 => {
                let taken = self.shared.given().pop();
                self.blocks.extend(taken);
            }
            198 if self.chance.below(20) == 0 => theap::collect(),
            199 if self.chance.below(150) == 0 => {
                self.report.forks += 1;
                fork(&self.blocks, self.chance.next());
            }
            _ => {}
        }
    }

    fn any_block(&mut self) -> Block {
        let nth = self.chance.below(self.blocks.len());
        self.blocks.swap_remove(nth)
    }

    /// Frees one of the blocks, of which there must be some.
    pub fn free(&mut self) {
        let block = self.any_block();
        self.shared.live.fetch_sub(block.size, Ordering::Relaxed);
        block.free();
    }

    /// Gives one of the blocks, of which there must be some, to other threads.
    pub fn give(&mut self) {
        let block = self.any_block();
        self.shared.given().push(block);
    }

    pub fn allocate(&mut self) {
        let chance = &mut self.chance;
        let size = if self.small_only {
            8 + chance.below(500)
        } else {
            size(chance)
        };
        let live = &self.shared.live;
        if live.load(Ordering::Relaxed) + size > LIVE {
            return;
        }
        let align = if chance.below(8) == 0 {
            1 << chance.below(14)
        } else {
            1
        };
        let zeroed = align == 1 && chance.below(10) == 0;
        let Some(block) = Block::new(size, chance.next(), align, zeroed) else {
            self.report.refusals += 1;
            return;
        };
        live.fetch_add(size, Ordering::Relaxed);
        self.report.bytes += size as u64;
        self.blocks.push(block);
    }

    fn resize(&mut self) {
        let nth = self.chance.below(self.blocks.len());
        let (block, size) = (&mut self.blocks[nth], size(&mut self.chance));
        let old = block.size;
        let live = &self.shared.live;
        if live.load(Ordering::Relaxed) + size <= LIVE {
            let resized = block.resize(size);
            self.report.refusals += u64::from(!resized);
            live.fetch_add(block.size, Ordering::Relaxed);
            live.fetch_sub(old, Ordering::Relaxed);
        }
    }
}

/// Forks. The child allocates and frees some blocks, and must end with 0.
fn fork(blocks: &[Block], seed: u64) {
    // SAFETY: the child calls only the heap, whose fork handlers make it usable there, and _exit.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        end_after(CHILD_LIMIT); // a child does not inherit the alarm
        let mut chance = Chance(seed);
        for block in blocks {
            // SAFETY: this is the forked child, which frees each block once and uses it no more.
            unsafe { block.free_copy() };
        }
        for _ in 0..500 {
            if let Some(block) = Block::new(size(&mut chance).min(1 << 20), chance.next(), 1, false)
            {
                block.free();
            }
        }
        // SAFETY: _exit ends the child and runs no handlers, which belong to the parent.
        unsafe { libc::_exit(0) };
    }
    assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: `pid` is the child above, and `status` is live and writable.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(status, 0, "a forked child went wrong");
}
