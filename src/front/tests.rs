//! Thread caches and arenas of their own behind a fake operating system: every call failing at
//! every position, several NUMA nodes, random sequences of operations on several heaps. After each
//! run no block may be lost.
#![allow(unsafe_code)] // Looks at the metadata of spans.

// Looks at the class of a span, which has another place without slots to share.
#[cfg(all(feature = "shared-pool", not(any(miri, feature = "valgrind"))))]
mod bare;
mod faults;
mod room;
mod world;
// Compares the numbers of refills as well.
#[cfg(all(
    feature = "magazines",
    feature = "drain",
    feature = "stats",
    not(any(feature = "hardened", feature = "valgrind"))
))]
mod learner;
// Shares what the learner gives.
#[cfg(all(
    feature = "magazines",
    feature = "drain",
    feature = "stats",
    not(any(feature = "hardened", feature = "valgrind"))
))]
mod allowance;
// Told by their counters.
#[cfg(all(
    feature = "shared-pool",
    feature = "stats",
    not(any(feature = "hardened", feature = "valgrind"))
))]
mod keeping;
// A cache that holds blocks back is not left with them.
#[cfg(all(
    feature = "magazines",
    feature = "drain",
    feature = "stats",
    not(any(feature = "hardened", feature = "valgrind"))
))]
mod lines;
#[cfg(all(feature = "numa", feature = "stats"))]
mod numa;
#[cfg(all(
    feature = "magazines",
    feature = "shared-pool",
    feature = "stats",
    not(any(feature = "hardened", feature = "valgrind"))
))]
mod nursery;
#[cfg(all(
    feature = "shared-pool",
    feature = "stats",
    not(any(feature = "hardened", feature = "valgrind"))
))]
mod reclaim;
#[cfg(all(
    feature = "magazines",
    feature = "drain",
    feature = "shared-pool",
    feature = "stats",
    not(any(feature = "hardened", feature = "valgrind"))
))]
mod whole;

use super::cache::ThreadCache;
use super::handle::Handle;
use crate::config::{Config, Pages};
use crate::gate::{self, Classes};
use crate::geometry::{Kind, SLOT, SUPER};
use crate::pool::metadata::ownership::{NOBODY, RUN};
use proptest::prelude::*;
use std::vec::Vec;
use theap_platform::{Call, Error, Fake, PageMode};
use world::World;

const SMALL: Config = Config::new().address_space(128 << 20).pages(Pages::Small);

/// For tests that look at the spans of a thread's heap: it has all of its blocks in them.
const OWN: Config = SMALL.nursery(false);

/// Operations of a random life, at most; Miri is slow.
const LIFE: usize = if cfg!(miri) { 40 } else { 1500 };
/// Random lives.
const LIVES: u32 = if cfg!(miri) { 2 } else { 40 };

const SIZES: [usize; 12] = [
    1,
    16,
    48,
    100,
    512,
    1024,
    3000,
    9000,
    40_000,
    200_000,
    300_000,
    1 << 20,
];

/// A life of a heap: two caches, all kinds of blocks, hand-over, retirement, purge.
fn scenario(mut world: World) {
    let (a, mut b) = (world.cache(), world.cache());
    let mut blocks = Vec::new();
    for round in 0..4 {
        for (i, &size) in SIZES.iter().cycle().take(80).enumerate() {
            if let Some(a) = a {
                blocks.extend(world.alloc(a, size + round, if i % 7 == 0 { 64 } else { 1 }));
            }
        }
        if let Some(a) = a {
            for (size, align) in [(5 << 20, 1), (2 << 20, 4 << 20), (3 * SLOT, 2 * SLOT)] {
                if let Some(block) = world.alloc(a, size, align) {
                    world.resize(block, size + SUPER);
                    blocks.push(block);
                }
            }
        }
        // The other heap frees two thirds, its owner the rest of every second round.
        let count = blocks.len();
        for (i, address) in core::mem::take(&mut blocks).into_iter().enumerate() {
            match (b, a) {
                (Some(b), _) if i % 3 != 0 => world.free(b, address),
                (_, Some(a)) if round % 2 == 0 && i < count / 2 => world.free(a, address),
                _ => blocks.push(address),
            }
        }
        world.is_valid();
        match round {
            1 => {
                let _ = world.arena.nodes()[0].warm(8 << 20);
            }
            2 => {
                world.arena.nodes()[0].purge();
                if let Some(b) = b.take() {
                    b.end();
                }
                b = world.cache();
            }
            _ => {}
        }
    }
    world.fake.heal();
    let mut caches: Vec<_> = [a, b].into_iter().flatten().collect();
    if caches.is_empty() {
        caches.extend(world.cache());
    }
    world.end(caches);
}

fn lines(fake: &Fake) -> usize {
    let mut buffer = [0; 4096];
    fake.read_stderr(&mut buffer)
        .iter()
        .filter(|&&b| b == b'\n')
        .count()
}

/// Runs the scenario with call after call failing, once or for good, with the given options.
fn every_position(config: Config, lasting: bool, error: Error) {
    let mut hits = 0;
    // Without the shared pool the same calls are made for many more SuperSlabs.
    let step = if cfg!(feature = "shared-pool") { 1 } else { 5 };
    for position in (0..).step_by(step) {
        let world = World::new(config, |fake| {
            fake.fail_with(error);
            if config.pages != Pages::Small {
                // The pool of the host is not this test's; thp stands for what is populated and
                // huge.
                fake.refuse(PageMode::Hugetlb);
            }
            if lasting {
                fake.fail_from(position)
            } else {
                fake.fail_nth(position)
            }
        });
        let Ok(world) = world else {
            hits += 1;
            continue;
        };
        let fake = world.fake;
        scenario(world);
        assert!(
            lines(fake) <= 2,
            "one message for hugepages, one for memory"
        );
        if fake.calls() <= position {
            break;
        }
        hits += 1;
    }
    assert!(hits > 10, "only {hits} positions were hit");
}

#[test]
fn each_call_fails_once_at_each_position() {
    every_position(SMALL, false, Error::NoMemory);
}

#[test]
fn each_call_fails_for_good_from_each_position() {
    every_position(SMALL, true, Error::NoMemory);
}

#[test]
fn each_call_fails_once_on_transparent_hugepages() {
    every_position(SMALL.pages(Pages::Hugetlb), false, Error::Unsupported);
}

#[test]
fn each_call_fails_once_beside_nurseries_on_small_pages() {
    every_position(SMALL.pages(Pages::Thp), false, Error::NoMemory);
}

#[test]
fn each_call_fails_for_good_with_the_classic_front() {
    every_position(SMALL.front(gate::Front::Classic), true, Error::NoMemory);
}

#[test]
fn addresses_lost_at_each_position() {
    for position in 0..40 {
        for call in [Call::Map, Call::Unmap] {
            let world = World::new(SMALL, |fake| {
                fake.fail_with(Error::Lost);
                fake.fail_only(call);
                fake.fail_nth(position);
            });
            scenario(world.expect("neither is called at creation"));
        }
    }
}

#[test]
fn hugetlb_falls_back_with_one_message() {
    let mut world = World::new(
        Config::new().address_space(128 << 20).pages(Pages::Hugetlb),
        |fake| {
            fake.refuse(PageMode::Hugetlb);
        },
    )
    .expect("an arena");
    let cache = world.cache().expect("a cache");
    for _ in 0..40 {
        world.alloc(cache, 1 << 20, 1).expect("memory");
    }
    let node = &world.arena.nodes()[0];
    assert_eq!(node.pages().mapped_bytes(PageMode::Hugetlb), 0);
    assert!(node.pages().mapped_bytes(PageMode::Thp) >= 40 << 20);
    assert_eq!(lines(world.fake), 1);
    world.end([cache].into());
}

#[test]
fn stashes_overflow_to_the_list_and_are_found_from_other_cpus() {
    let mut world = World::new(SMALL, |_| {}).expect("an arena");
    world.fake.set_cpu(0);
    let owner = world.cache().expect("a cache");
    let freer = world.cache().expect("a cache");
    // 1 KiB: 64 blocks a span. Sixteen spans run full and are left to nobody.
    let blocks: Vec<_> = (0..1024)
        .map(|_| world.alloc(owner, 1024, 1).expect("memory"))
        .collect();
    let mapped = world.active();
    for &block in blocks.iter().step_by(2) {
        world.free(freer, block);
    }
    freer.flush();
    // The spans wait in CPU 0's stash and, since it has four places, on the list; CPU 1 finds them
    // all.
    world.fake.set_cpu(1);
    let taker = world.cache().expect("a cache");
    for _ in 0..512 - 64 {
        world.alloc(taker, 1024, 1).expect("memory");
    }
    assert!(
        world.active() <= mapped + 2 * SLOT as u64 || cfg!(not(feature = "shared-pool")),
        "memory grew"
    );
    if cfg!(feature = "stats") {
        assert!(taker.counters().stage_partial.get() >= 12);
    }
    world.end([owner, freer, taker].into());
}

/// A FastCache that cannot leave its nest has a longer list behind it than one that has left.
#[test]
fn a_list_that_may_suddenly_hold_less_loses_no_block() {
    let config = SMALL.front(gate::Front::Classic).magazine(32 << 10);
    let mut world = World::new(config, |_| {}).expect("an arena");
    let cache = world.cache().expect("a cache");
    let blocks: Vec<_> = (0..100)
        .map(|_| world.alloc(cache, 1024, 1).expect("memory"))
        .collect();
    // All arrays of a heap are opened at once, which is refused while the list becomes full.
    world.fake.fail_from(0);
    for &block in &blocks[..50] {
        world.free(cache, block);
    }
    world.fake.heal();
    for &block in &blocks[50..] {
        world.free(cache, block);
    }
    world.end([cache].into());
}

/// Memory that goes and comes again is kept beyond `retain`, and given back when it is not needed
/// for a while.
#[test]
fn what_was_given_back_too_early_is_kept_until_it_decays() {
    const MIB: usize = 1 << 20;
    let mut world = World::new(OWN.soft_limit(64 * MIB), |_| {}).expect("an arena");
    world.fake.set_now(1);
    let cache = world.cache().expect("a cache");
    // More than the alignment of any class, so that no thread keeps them.
    let burst = |world: &mut World| {
        let blocks: Vec<_> = (0..20)
            .map(|_| world.alloc(cache, 2 * MIB, MIB).expect("memory"))
            .collect();
        blocks
            .into_iter()
            .for_each(|block| world.free(cache, block));
        world.arena.figures().board().unwrap().stats().empty
    };
    let first = burst(&mut world);
    assert!(first <= 6 * MIB as u64, "{first} stay warm at first");
    burst(&mut world);
    assert!(burst(&mut world) >= 40 * MIB as u64, "all is kept");
    world.fake.advance(10_000_000_000);
    assert!(
        burst(&mut world) >= 40 * MIB as u64,
        "it was needed meanwhile"
    );
    for _ in 0..12 {
        world.fake.advance(10_000_000_000);
        let block = world.alloc(cache, 100_000, 1).expect("memory");
        world.free(cache, block);
        cache.flush();
        cache.with(|cache| cache.heap.collect());
    }
    let last = world.arena.figures().board().unwrap().stats().empty;
    assert!(last <= 6 * MIB as u64, "{last} stay warm in the end");
    world.end([cache].into());
}

/// A step of a random life.
#[derive(Clone, Debug)]
enum Op {
    Alloc {
        cache: usize,
        size: usize,
        align: u32,
    },
    Free {
        cache: usize,
        pick: usize,
    },
    Retire {
        cache: usize,
    },
    Flush {
        cache: usize,
    },
    Purge,
    Gate {
        classes: u64,
    },
    Collect {
        cache: usize,
    },
}

impl World {
    fn apply(&mut self, op: Op, caches: &mut [Handle]) {
        match op {
            Op::Alloc { cache, size, align } => {
                self.alloc(caches[cache], size, 1 << align);
            }
            Op::Free { cache, pick } => {
                let pick = pick % (self.live().len().max(1));
                let picked = self.live().keys().nth(pick).copied();
                if let Some(address) = picked {
                    self.free(caches[cache], address);
                }
            }
            Op::Retire { cache } => {
                caches[cache].end();
                caches[cache] = self.cache().expect("a cache");
            }
            Op::Flush { cache } => caches[cache].flush(),
            Op::Collect { cache } => caches[cache].with(ThreadCache::collect),
            Op::Gate { classes } => self
                .arena
                .policy()
                .gate()
                .set_classes(Classes::from_bits(classes)),
            Op::Purge => {
                self.arena.purge();
            }
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![8 => 1usize..1100, 3 => 1000usize..40_000, 2 => 40_000usize..300_000, 1 => 250_000usize..6_000_000];
    prop_oneof![
        20 => (0usize..3, size, 0u32..8).prop_map(|(cache, size, align)| Op::Alloc { cache, size, align }),
        16 => (0usize..3, any::<usize>()).prop_map(|(cache, pick)| Op::Free { cache, pick }),
        1 => (0usize..3).prop_map(|cache| Op::Retire { cache }),
        1 => (0usize..3).prop_map(|cache| Op::Flush { cache }),
        1 => (0usize..3).prop_map(|cache| Op::Collect { cache }),
        1 => Just(Op::Purge),
        1 => prop_oneof![Just(0), Just(!0), any::<u64>()].prop_map(|classes| Op::Gate { classes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: LIVES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_lives_lose_nothing(ops in prop::collection::vec(op(), 1..LIFE)) {
        let mut world = World::new(SMALL.magazine(1024).budget(64 << 10).messages(false), |_| {}).expect("an arena");
        let mut caches: Vec<_> = (0..3).map(|_| world.cache().expect("a cache")).collect();
        for (step, op) in ops.into_iter().enumerate() {
            world.apply(op, &mut caches);
            // A look at the whole heap takes Miri seconds.
            if !cfg!(miri) || step % 16 == 0 {
                world.is_valid();
            }
        }
        world.end(caches);
    }
}

/// Breaks one invariant after another and finds `is_valid` saying so.
#[test]
fn broken_heaps_are_not_valid() {
    let mut world = World::new(SMALL, |_| {}).expect("an arena");
    let cache = world.cache().expect("a cache");
    // Two of a class, so that one free block more than there are does not make a span wholly free.
    for size in [100, 100, 3000, 3000, 3 << 20] {
        world.alloc(cache, size, 1).expect("memory");
    }
    cache.flush();
    world.is_valid();
    let arena = world.arena;
    let broken = |what: &str| {
        let found = world.check().expect_err(what);
        assert!(found.what.contains(what), "{found}");
    };
    let in_use: Vec<_> = world
        .live()
        .keys()
        .map(|&at| arena.addresses().slot_of(at))
        .collect();
    for slot in in_use {
        let addresses = arena.addresses();
        let is = addresses.replace_kind(slot, Kind::Free);
        broken("ACTIVE slots");
        addresses.replace_kind(slot, is);
        let span = slot.back(addresses.distance(slot)).span();
        // SAFETY: the block's span lies in a mapped SuperSlab.
        let meta = unsafe { arena.metadata().span(span) };
        if matches!(is, Kind::Class(_)) {
            meta.free.set(meta.free.get() + 1);
            broken("free blocks");
            meta.free.set(meta.free.get() - 1);
            let owner = meta.shake.owner();
            meta.shake.claim(owner + 1);
            broken("heap");
            meta.shake.claim(owner);
        } else {
            meta.shake.claim(NOBODY);
            broken("owner");
            meta.shake.claim(RUN);
        }
    }
    world.is_valid();
    world.end([cache].into());
}
