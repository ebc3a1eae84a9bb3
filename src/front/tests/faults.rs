//! Platform calls that fail while several threads use one arena: each kind of call, at positions
//! counted over all threads, once, for good, or until the middle of the run.
//!
//! Three threads allocate, hand blocks on, free, resize, move, purge and retire; where there is a
//! warmer, a fourth does its steps. After each run: every block is where the ledger has it,
//! everything can be freed, no slot is in use and none warm, no message was given twice, and there
//! is memory again.
#![allow(unsafe_code)] // Moves runs, and reads and writes them.

use super::world::topology;
use super::{SIZES, SMALL, World};
use crate::config::{Config, Numa, Pages, Prefault};
use crate::front::cache::ThreadCache;
use crate::front::handle::Handle;
use crate::geometry::SUPER;
use std::collections::BTreeSet;
use std::string::String;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::vec::Vec;
use std::{eprintln, format, iter, println, thread};
use theap_platform::{Call, Error};

#[path = "../../../tests/hugepages/mod.rs"]
mod hugepages;

const THREADS: usize = 3;
const ROUNDS: usize = 6;
/// Time for a kind of memory; a slower machine sees fewer positions, and so do builds without a
/// layer.
const BUDGET: Duration = Duration::from_millis(
    if cfg!(all(
        feature = "magazines",
        feature = "shared-pool",
        feature = "drain"
    )) {
        2000
    } else {
        200
    },
);
const HEAP: Config = SMALL.address_space(1 << 30).retain(8 << 20);

/// The time for which calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    Once,
    ForGood,
    /// From the position on until every thread has done half of its rounds.
    UntilHalf,
}

/// A sequence of numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// A thread of a run.
struct Life<'a> {
    world: &'a World,
    dice: Dice,
    next: Sender<usize>,
    inbox: Receiver<usize>,
    mine: Vec<usize>,
    /// From now on there must be memory.
    healed: bool,
}

impl Life<'_> {
    fn round(&mut self, cache: Handle) {
        for _ in 0..40 {
            let (size, align) = (SIZES[self.dice.below(SIZES.len())], 1 << self.dice.below(8));
            let block = self.world.alloc_beside(cache, size, align);
            assert!(block.is_some() || !self.healed, "no {size} bytes");
            self.mine.extend(block);
        }
        if self.dice.below(2) == 0 {
            self.use_huge_runs(cache);
        }
        for block in core::mem::take(&mut self.mine) {
            match self.dice.below(4) {
                0 => self.next.send(block).expect("a thread that lives"),
                1 => self.mine.push(block),
                _ => self.world.free_beside(cache, block),
            }
        }
        for block in self.inbox.try_iter() {
            self.world.free_beside(cache, block);
        }
        let node = &self.world.arena.nodes()[0];
        match self.dice.below(6) {
            0 => {
                self.world.arena.demote_sparse();
                node.purge();
                self.world.arena.heaps().purge();
            }
            1 => {
                let _ = node.warm(4 << 20);
            }
            2 => cache.flush(),
            3 => cache.with(ThreadCache::collect),
            _ => {}
        }
    }

    /// A run that grows in place, and one whose pages move to another.
    fn use_huge_runs(&mut self, cache: Handle) {
        let (world, size) = (self.world, 2 * SUPER + (300 << 10));
        let [Some(old), Some(new)] =
            [size, size + SUPER].map(|s| world.alloc_beside(cache, s, SUPER))
        else {
            return;
        };
        self.mine.push(old);
        let in_range = |run: &usize| world.arena.addresses().contains(*run);
        if self.dice.below(2) == 0 || ![old, new].iter().all(in_range) {
            world.resize(old, size + SUPER / 2);
            self.mine.push(new);
            return;
        }
        // The ledger has the new one until its addresses may be another thread's.
        let ledger = world.live().remove(&new);
        let word = SUPER + 8;
        // SAFETY: both runs are this thread's and start SuperSlabs.
        let moved = unsafe {
            ((old + word) as *mut usize).write(old);
            world.arena.runs().move_supers(old, new, 2 * SUPER)
        };
        if moved.is_ok() {
            // SAFETY: as above; the new one has the old one's contents, and gets its own first
            // byte.
            unsafe {
                assert_eq!(((new + word) as *const usize).read(), old, "not moved");
                (new as *mut u8).write(new as u8);
                // The old one's pages are gone, its addresses are not.
                (old as *mut u8).write(old as u8);
            }
            world.live().extend(ledger.map(|size| (new, size)));
            self.mine.push(new);
        } else {
            // SAFETY: as above.
            assert_eq!(unsafe { ((old + word) as *const usize).read() }, old);
        }
    }

    /// The rounds of one half.
    fn live(&mut self) {
        let mut cache = self.world.cache();
        for _ in 0..ROUNDS / 2 {
            match cache {
                Some(cache) => self.round(cache),
                None => thread::yield_now(),
            }
            if cache.is_none() || self.dice.below(4) == 0 {
                cache.take().into_iter().for_each(Handle::end);
                cache = self.world.cache();
            }
        }
        assert!(cache.is_some() || !self.healed, "no heap");
        cache.into_iter().for_each(Handle::end);
    }
}

/// Lives of all threads, healed in the middle or not. Whether a call was made to fail.
fn run(world: &World, failing: Failing, seed: u64, warmer: bool) -> bool {
    let (half, over) = (Barrier::new(THREADS), AtomicBool::new(false));
    let hit = AtomicBool::new(false);
    let (mut senders, inboxes): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| channel()).unzip();
    senders.rotate_left(1);
    thread::scope(|scope| {
        if warmer {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    world.arena.nodes()[0].warmer().step();
                    thread::sleep(Duration::from_micros(200));
                }
            });
        }
        let lives = iter::zip(senders, inboxes).enumerate();
        let threads: Vec<_> = lives
            .map(|(i, (next, inbox))| {
                let mut life = Life {
                    world,
                    dice: Dice(seed.wrapping_add(i as u64)),
                    next,
                    inbox,
                    mine: Vec::new(),
                    healed: false,
                };
                let (half, hit) = (&half, &hit);
                scope.spawn(move || {
                    life.live();
                    if half.wait().is_leader() && failing == Failing::UntilHalf {
                        hit.store(world.fake.failed() > 0, Ordering::Relaxed);
                        world.fake.heal();
                    }
                    half.wait();
                    life.healed = failing == Failing::UntilHalf;
                    life.live();
                    half.wait();
                })
            })
            .collect();
        let ends: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        over.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok), "a thread panicked");
    });
    hit.into_inner() || world.fake.failed() > 0
}

/// Checks the invariants that hold after a run, whatever failed.
fn finish(mut world: World) {
    world.fake.heal();
    world.is_valid();
    let mut text = [0; 4096];
    let said = String::from_utf8_lossy(world.fake.read_stderr(&mut text)).into_owned();
    let what = |line: &str| line.split(['(', ';', ':', '.']).take(2).collect::<String>();
    let kinds: BTreeSet<_> = said.lines().map(what).collect();
    assert_eq!(kinds.len(), said.lines().count(), "said twice: {said}");
    // A retired heap is used again.
    let cache = world.cache().expect("a heap");
    if world.arena.policy().limit().is_set() {
        world.free_all(cache);
    }
    // Heap 0 and those of nurseries are no thread's.
    let heaps = world.arena.heaps();
    assert!(heaps.made() <= THREADS + 1 + heaps.nurseries());
    for size in SIZES.into_iter().chain([5 << 20]) {
        assert!(
            world.alloc_beside(cache, size, 1).is_some(),
            "no {size} bytes"
        );
    }
    world.end([cache].into());
}

/// Runs with the calls failing at positions that lie wider and wider apart, as long as they are
/// reached.
fn fail(name: &str, config: Config, calls: &[Option<Call>], error: Option<Error>) {
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    let (start, mut runs, mut hits) = (Instant::now(), 0, 0);
    let all = [Failing::Once, Failing::ForGood, Failing::UntilHalf];
    // Addresses that are lost are so for good: there would be none left.
    // Nor must there be memory again at once where threads fill the heap up to its limit.
    let ways = if error == Some(Error::Lost) || config.limit > 0 {
        &all[..1]
    } else {
        &all
    };
    let cases = || {
        calls
            .iter()
            .flat_map(|&call| ways.iter().map(move |&way| (call, way)))
    };
    let mut left: Vec<_> = cases().collect();
    let (mut position, mut step) = (0, 1);
    while !left.is_empty() && start.elapsed() < BUDGET {
        left.retain(|&(call, failing)| {
            // The first call of a kind is reached by some seed; later ones end the row.
            let tries = if position == 0 { 20 } else { 1 };
            let hit = (0..tries).any(|i| {
                let seed = (seed ^ position).wrapping_add(i);
                let told = format!("{name}: {call:?} fails {failing:?} at {position}, seed {seed}");
                let report = OnPanic(&told);
                let hit = fail_at(config, (call, error), failing, (position, seed));
                core::mem::forget(report);
                runs += 1;
                hit
            });
            hits += usize::from(hit);
            hit
        });
        (position, step) = (position + step, step + step.div_ceil(2));
    }
    println!("{name}: {hits} of {runs} runs with failures, up to position {position}, seed {seed}");
    assert!(hits >= calls.len(), "calls that never failed");
}

/// A run with the calls of a kind, or any, failing from a position on. Whether one failed.
fn fail_at(
    config: Config,
    (call, error): (Option<Call>, Option<Error>),
    failing: Failing,
    (position, seed): (u64, u64),
) -> bool {
    let world = World::new(config, |fake| {
        if config.numa == Numa::Interleave {
            fake.set_topology(topology(&[(0, 1, 0), (2, 3, 1)]));
        }
    })
    .expect("an arena");
    call.into_iter().for_each(|call| world.fake.fail_only(call));
    error
        .into_iter()
        .for_each(|error| world.fake.fail_with(error));
    match failing {
        Failing::Once => world.fake.fail_nth(position),
        _ => world.fake.fail_from(position),
    }
    let ahead = config.prefault == Prefault::Ahead;
    let hit = run(&world, failing, seed, ahead);
    finish(world);
    hit
}

/// Says what was being done if that panics.
struct OnPanic<'a>(&'a str);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        eprintln!("{}", self.0);
    }
}

#[test]
fn small_pages_of_several_threads() {
    let calls = [
        None,
        Some(Call::Commit),
        Some(Call::Map),
        Some(Call::Purge),
        Some(Call::MovePages),
    ];
    fail("small pages", HEAP, &calls, None);
}

#[test]
fn prefaulted_pages_with_a_warmer() {
    let config = HEAP
        .pages(Pages::Thp)
        .prefault(Prefault::Ahead)
        .ahead(8 << 20)
        .decay(1);
    let calls = [
        Call::Map,
        Call::Populate,
        Call::Purge,
        Call::Collapse,
        Call::StartWorker,
    ]
    .map(Some);
    fail("warmer", config, &calls, None);
}

#[test]
fn a_limit_that_several_threads_meet() {
    let calls = [
        Call::Map,
        Call::Commit,
        Call::Unmap,
        Call::Purge,
        Call::Reserve,
    ]
    .map(Some);
    // Without the shared pool each class of each heap has SuperSlabs of its own.
    let limit = if cfg!(feature = "shared-pool") {
        40
    } else {
        160
    };
    fail("limit", HEAP.limit(limit << 20), &calls, None);
}

#[test]
fn locked_memory_of_several_threads() {
    fail("locked", HEAP.lock(true), &[Some(Call::Lock)], None);
}

#[test]
#[cfg(feature = "numa")]
fn bound_memory_of_several_threads() {
    let config = HEAP.numa(Numa::Interleave);
    fail("bound", config, &[Some(Call::Bind)], None);
}

#[test]
fn addresses_lost_by_several_threads() {
    let calls = [Call::Map, Call::MovePages].map(Some);
    fail("lost", HEAP, &calls, Some(Error::Lost));
}

#[test]
fn hugetlb_pages_of_several_threads() {
    let Some(pool) = hugepages::Pool::take() else {
        return;
    };
    if pool.set(64) {
        let calls = [Call::Map, Call::Unmap].map(Some);
        fail("hugetlb", HEAP.pages(Pages::Hugetlb), &calls, None);
        let calls = [Call::Demote, Call::Purge].map(Some);
        let config = HEAP.pages(Pages::Hugetlb).demote(true);
        fail("moved off hugetlb", config, &calls, None);
        assert!(pool.returns_to(64), "pages are lost");
    }
}
