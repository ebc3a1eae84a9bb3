//! Rows about the memory that is left ([`RESIDENT`]): threads do their work and rest, and what the
//! process has then is read while all of them are alive.
//!
//! - Every block gets a byte in each of its pages, so that all of it was resident once.
//! - Small blocks are freed in a random order, as programs free them. The lists of blocks lie in
//!   memory of the harness's own, which is unmapped before the reading ([`Shelf`]).
//! - A row that waits has the main thread serve a request a hundredth of a second meanwhile, for
//!   every contender alike ([`Rest::wait`]): allocators that give memory back in passing do so
//!   when a thread calls them.
//! - A row that trims calls what the contender's own interface has for that
//!   ([`Contender::trim`]), on the main thread, and [`TRIMS`] tells whether there is such a call:
//!   `theap::purge`, `malloc_trim`, `mi_collect(true)`, jemalloc's `arena.4096.purge` after a flush
//!   of the thread's cache, `rpmalloc_thread_collect`, `MallocExtension_ReleaseFreeMemory` of
//!   tcmalloc, `scalable_allocation_command` of tbbmalloc. snmalloc and smmalloc have none.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Budget;
use crate::block::{Block, Shelf};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::{Metric, PEAK, RESIDENT, bytes, peak_memory, resident_memory};
use crate::steps::{Random, SEED, Sizes};
use crate::thread::joined;

/// Metric: calls of the contender that give memory back.
const TRIMS: &str = "trims";

/// Sizes of small blocks.
const SMALL: Sizes = Sizes::constant(16, 1024);

/// Sizes that meet every size class of a thread.
const CLASSES: Sizes = Sizes::constant(16, 256 << 10);

/// Threads that rest with a few blocks, and threads that rest after a burst.
const MANY: usize = 100;

/// Blocks of each of those threads.
const FEW: usize = 64;

/// Blocks of a burst in one class, and the bytes that end it earlier.
const BURST: (usize, usize) = (64, 1 << 20);

/// Threads of a pool that work in turn.
const POOL: usize = 20;

/// Bytes of each of them.
const POOL_BYTES: usize = 100 << 20;

/// Bytes of small blocks that another thread frees, or of which next to nothing stays.
const LARGE: usize = 1 << 30;

/// One block of so many stays in the sparse heap: 1 MiB of 1 GiB.
const SPARSE: usize = 1024;

/// Bytes that a thread allocates and frees.
const MODERATE: usize = 200 << 20;

/// Blocks of 90 kB, in bytes and their number.
const MIDDLE: (usize, usize) = (90_000, 5_000);

/// Bytes of blocks of a heap that becomes smaller, the blocks of each hundred that it keeps then,
/// and how often each of those is replaced.
const PACKING: (usize, usize, usize) = (256 << 20, 30, 3);

/// Sizes of those blocks: in most spans and runs there are few.
const LONG: Sizes = Sizes::constant(64 << 10, 1 << 20);

/// Threads that hold blocks of every class at once, and blocks of each class.
const ALL: (usize, usize) = (8, 4);

/// One block of so many is proved where there are too many for all.
const PROVED: usize = 512;

/// The time between two requests of the main thread while it waits.
const PACE: Duration = Duration::from_millis(10);

/// Small blocks of such a request, and the bytes of its buffer.
const REQUEST: (usize, usize) = (200, 300 << 10);

/// Threads with a few small blocks.
pub(super) fn few<A: Contender>(a: &A) -> Result<Vec<Metric>, Error> {
    let work = |nth| {
        let mut random = Random::new(SEED + nth as u64);
        let mut shelf = Shelf::with_room(FEW)?;
        for _ in 0..FEW {
            shelf.push(small(a, &mut random)?);
        }
        Ok(shelf)
    };
    let end = |shelf| free(a, shelf, 1);
    Rest::of_many(MANY, work, left, end)
}

/// Threads that have had a burst in every class, and hold nothing.
pub(super) fn bursts<A: Contender>(a: &A, budget: Budget) -> Result<Vec<Metric>, Error> {
    let work = |_| {
        let mut shelf = Shelf::with_room(BURST.0)?;
        for size in CLASSES.ladder() {
            for _ in 0..BURST.0.min(BURST.1 / size) {
                shelf.push(touched(a, size)?);
            }
            give(a, &mut shelf, PROVED)?;
            shelf.clear();
        }
        Ok(())
    };
    Rest::of_many(MANY, work, || Rest::wait(a, budget), Ok)
}

/// Threads that work one after another, each with memory of its own, and hold nothing.
pub(super) fn pool<A: Contender>(a: &A, trim: bool) -> Result<Vec<Metric>, Error> {
    let work = |nth| fill(a, nth, POOL_BYTES).and_then(|shelf| free_at_random(a, nth, shelf));
    let look = || if trim { left_after_trim(a) } else { left() };
    Rest::in_turn(POOL, work, look, Ok)
}

/// One thread allocates, the main thread frees.
pub(super) fn handed<A: Contender>(a: &A, budget: Budget) -> Result<Vec<Metric>, Error> {
    let way = Mutex::new(None);
    let on_way = || way.lock().unwrap_or_else(PoisonError::into_inner);
    let work = |nth| {
        *on_way() = Some(fill(a, nth, LARGE)?);
        Ok(())
    };
    let look = || {
        // Nothing, if the thread has failed.
        if let Some(shelf) = on_way().take() {
            free_at_random(a, 0, shelf)?;
        }
        Rest::wait(a, budget)
    };
    Rest::of_many(1, work, look, Ok)
}

/// A thread that frees all but a few of its blocks, which are spread evenly.
pub(super) fn sparse<A: Contender>(a: &A) -> Result<Vec<Metric>, Error> {
    let work = |nth| {
        let mut shelf = fill(a, nth, LARGE)?;
        let mut stay = Shelf::with_room(shelf.len() / SPARSE + 1)?;
        for slot in shelf.iter_mut().step_by(SPARSE) {
            slot.take().into_iter().for_each(|block| stay.push(block));
        }
        free_at_random(a, nth, shelf)?;
        Ok(stay)
    };
    Rest::of_many(1, work, || left_after_trim(a), |stay| free(a, stay, 1))
}

/// A thread that frees all of its small blocks.
pub(super) fn freed<A: Contender>(a: &A, budget: Budget) -> Result<Vec<Metric>, Error> {
    let work = |nth| fill(a, nth, MODERATE).and_then(|shelf| free_at_random(a, nth, shelf));
    Rest::of_many(1, work, || Rest::wait(a, budget), Ok)
}

/// A thread that frees all of its blocks of 90 kB, in the order in which it allocated them.
pub(super) fn freed_middle<A: Contender>(a: &A, budget: Budget) -> Result<Vec<Metric>, Error> {
    let work = |_| {
        let (size, count) = MIDDLE;
        let mut shelf = Shelf::with_room(count)?;
        for _ in 0..count {
            shelf.push(touched(a, size)?);
        }
        free(a, shelf, PROVED)
    };
    Rest::of_many(1, work, || Rest::wait(a, budget), Ok)
}

/// A thread whose heap grows, loses most of its blocks at random, and goes on with as many as are
/// left: again and again a random one is replaced by a new one.
pub(super) fn packing<A: Contender>(a: &A) -> Result<Vec<Metric>, Error> {
    let (total, kept, turns) = PACKING;
    let work = |nth| {
        let mut random = Random::new(SEED + nth as u64);
        let mut blocks = Shelf::with_room(total / LONG.min())?;
        let mut sum = 0;
        while sum < total {
            let block = touched(a, random.log_size(LONG) as usize)?;
            sum += block.size();
            blocks.push(block);
        }
        let mut stay = Shelf::with_room(blocks.len())?;
        for slot in blocks.iter_mut() {
            if random.below(100) < kept as u64 {
                slot.take().into_iter().for_each(|block| stay.push(block));
            }
        }
        free_at_random(a, nth, blocks)?;
        for _ in 0..turns * stay.len() {
            let at = random.below(stay.len() as u64) as usize;
            if let Some(block) = stay[at].take() {
                block.prove(a)?;
                block.give(a);
            }
            stay[at] = Some(touched(a, random.log_size(LONG) as usize)?);
        }
        Ok(stay)
    };
    Rest::of_many(1, work, || left_after_trim(a), |stay| free(a, stay, 1))
}

/// Threads that hold blocks of every class. As in the workload `all-classes`, only the first byte
/// of each block is written: the row shows what the classes cost, not what the blocks do.
pub(super) fn all_classes<A: Contender>(a: &A) -> Result<Vec<Metric>, Error> {
    let (threads, each) = ALL;
    let work = |_| {
        let mut shelf = Shelf::with_room(each * CLASSES.ladder().count())?;
        for size in CLASSES.ladder() {
            for _ in 0..each {
                shelf.push(Block::take(a, size, 1)?);
            }
        }
        Ok(shelf)
    };
    Rest::of_many(threads, work, left, |shelf| free(a, shelf, 1))
}

/// A block with a byte in each page.
fn touched<A: Contender>(a: &A, size: usize) -> Result<Block<A>, Error> {
    let mut block = Block::take(a, size, 1)?;
    block.touch_pages(1);
    Ok(block)
}

fn small<A: Contender>(a: &A, random: &mut Random) -> Result<Block<A>, Error> {
    touched(a, random.even_size(SMALL) as usize)
}

/// Small blocks of `total` bytes, those of the `nth` thread.
fn fill<A: Contender>(a: &A, nth: usize, total: usize) -> Result<Shelf<A>, Error> {
    let mut random = Random::new(SEED + nth as u64);
    let mut shelf = Shelf::with_room(total / SMALL.min())?;
    let mut sum = 0;
    while sum < total {
        let block = small(a, &mut random)?;
        sum += block.size();
        shelf.push(block);
    }
    Ok(shelf)
}

/// Frees the blocks in a random order, that of the `nth` thread.
fn free_at_random<A: Contender>(a: &A, nth: usize, mut shelf: Shelf<A>) -> Result<(), Error> {
    let mut random = Random::new(SEED + nth as u64);
    for last in (1..shelf.len()).rev() {
        shelf.swap(last, random.below(last as u64 + 1) as usize);
    }
    free(a, shelf, PROVED)
}

fn free<A: Contender>(a: &A, mut shelf: Shelf<A>, proved: usize) -> Result<(), Error> {
    give(a, &mut shelf, proved)
}

/// Frees the blocks after `a` has proved one of every `proved`.
fn give<A: Contender>(a: &A, shelf: &mut Shelf<A>, proved: usize) -> Result<(), Error> {
    let mut some = shelf.iter().step_by(proved).flatten();
    some.try_for_each(|block| block.prove(a))?;
    for slot in shelf.iter_mut() {
        slot.take().into_iter().for_each(|block| block.give(a));
    }
    Ok(())
}

/// Reads what the process has in memory, and what it had at most.
fn left() -> Result<Vec<Metric>, Error> {
    Ok(vec![
        bytes(RESIDENT, resident_memory()?),
        bytes(PEAK, peak_memory()?),
    ])
}

/// Reads what the process has after the contender has given memory back, as far as it has a call
/// for that.
fn left_after_trim<A: Contender>(a: &A) -> Result<Vec<Metric>, Error> {
    let trims = f64::from(u8::from(a.trim()));
    let mut metrics = left()?;
    metrics.push(Metric::new(TRIMS, "calls", trims));
    Ok(metrics)
}

/// Threads that rest after their work, until all is measured.
#[derive(Default)]
struct Rest {
    /// The number of threads that rest, and whether the rest is over.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Rest {
    /// Has `threads` threads do their work at the same time, calls `look` when all rest, and has
    /// each end with what its work left.
    fn of_many<T>(
        threads: usize,
        work: impl Fn(usize) -> Result<T, Error> + Sync,
        look: impl FnOnce() -> Result<Vec<Metric>, Error>,
        end: impl Fn(T) -> Result<(), Error> + Sync,
    ) -> Result<Vec<Metric>, Error> {
        Self::default().run((threads, false), work, look, end)
    }

    /// Does the same with threads that work one after another.
    fn in_turn<T>(
        threads: usize,
        work: impl Fn(usize) -> Result<T, Error> + Sync,
        look: impl FnOnce() -> Result<Vec<Metric>, Error>,
        end: impl Fn(T) -> Result<(), Error> + Sync,
    ) -> Result<Vec<Metric>, Error> {
        Self::default().run((threads, true), work, look, end)
    }

    fn run<T>(
        &self,
        (threads, in_turn): (usize, bool),
        work: impl Fn(usize) -> Result<T, Error> + Sync,
        look: impl FnOnce() -> Result<Vec<Metric>, Error>,
        end: impl Fn(T) -> Result<(), Error> + Sync,
    ) -> Result<Vec<Metric>, Error> {
        let member = |nth: usize| {
            let done = work(nth);
            self.rest();
            end(done?)
        };
        thread::scope(|scope| {
            let member = &member;
            let mut members = Vec::with_capacity(threads);
            for nth in 0..threads {
                members.push(scope.spawn(move || member(nth)));
                self.await_resting(if in_turn { nth + 1 } else { 0 });
            }
            self.await_resting(threads);
            let metrics = look();
            self.state().1 = true;
            self.changed.notify_all();
            members.into_iter().try_for_each(joined)?;
            metrics
        })
    }

    fn state(&self) -> MutexGuard<'_, (usize, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rests until the rest is over.
    fn rest(&self) {
        let mut state = self.state();
        state.0 += 1;
        self.changed.notify_all();
        let over = self.changed.wait_while(state, |(_, over)| !*over);
        drop(over);
    }

    fn await_resting(&self, threads: usize) {
        let resting = (self.changed).wait_while(self.state(), |(resting, _)| *resting < threads);
        drop(resting);
    }

    /// Waits for the time of [`Budget::wait`], and tells what is left then. Meanwhile the calling
    /// thread serves a request in each [`PACE`]: it allocates small blocks and a buffer, and frees
    /// them.
    fn wait<A: Contender>(a: &A, budget: Budget) -> Result<Vec<Metric>, Error> {
        let until = Instant::now() + budget.wait()?;
        let mut random = Random::new(SEED);
        let mut shelf = Shelf::with_room(REQUEST.0 + 1)?;
        while Instant::now() < until {
            for _ in 0..REQUEST.0 {
                shelf.push(small(a, &mut random)?);
            }
            shelf.push(Block::take(a, REQUEST.1, 1)?);
            give(a, &mut shelf, PROVED)?;
            shelf.clear();
            thread::sleep(PACE);
        }
        drop(shelf);
        left()
    }
}
