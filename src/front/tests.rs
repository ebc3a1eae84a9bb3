//! Fronts and arenas of their own behind a fake operating system: every call failing at every position, several NUMA
//! nodes, random sequences of operations on several heaps. After each run no block may be lost.

mod faults;
// Compares the numbers of refills as well.
#[cfg(all(
    feature = "theap",
    feature = "drain",
    feature = "stats",
    not(any(feature = "hardened", feature = "valgrind"))
))]
mod learner;
// Told by their counters.
#[cfg(all(feature = "numa", feature = "stats"))]
mod numa;
#[cfg(all(
    feature = "shared-pool",
    feature = "stats",
    not(any(feature = "hardened", feature = "valgrind"))
))]
mod stock;

use super::thread::{FRONT_BYTES, Front};
use crate::classes;
use crate::config::{Config, Pages};
use crate::gate::{self, Classes};
use crate::heap::ownership::{NOBODY, RUN};
use crate::pool::{Arena, SLOT, SUPER, SpanId, kind};
use core::sync::atomic::Ordering;
use proptest::prelude::*;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;
use theap_platform::{Call, Error, Fake, Os, PageMode};

const SMALL: Config = Config::new().address_space(128 << 20).pages(Pages::Small);

/// An arena behind a fake, with the blocks that are live in it.
struct World {
    fake: &'static Fake,
    arena: &'static Arena,
    /// Address -> size. Behind a lock, as several threads may use the world (`faults`).
    live: Mutex<BTreeMap<usize, usize>>,
}

impl World {
    fn new(config: Config, prepare: impl FnOnce(&Fake)) -> Result<Self, Error> {
        let fake: &'static Fake = Box::leak(Box::new(Fake::new()));
        prepare(fake);
        let arena = Arena::create(Os::faked(fake), config, FRONT_BYTES)?;
        Ok(Self {
            fake,
            arena,
            live: Mutex::default(),
        })
    }

    fn front(&self) -> Option<&'static mut Front> {
        // SAFETY: a new front is the caller's alone.
        Front::new_in(self.arena).map(|front| unsafe { &mut *front })
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<usize, usize>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allocates, checks that the block is nobody else's, and writes its ends.
    fn alloc(&mut self, front: &mut Front, size: usize, align: usize) -> Option<usize> {
        self.alloc_beside(front, size, align)
    }

    /// As `alloc`, while other threads do the same.
    fn alloc_beside(&self, front: &mut Front, size: usize, align: usize) -> Option<usize> {
        let block = match classes::class_for(size, align) {
            Some(class) => front.alloc_class(class),
            None => self
                .arena
                .acquire_run(front.node(), size, align)
                .map_or(core::ptr::null_mut(), |r| r.0),
        };
        if block.is_null() {
            return None;
        }
        let address = block as usize;
        assert!(address.is_multiple_of(align) && self.arena.contains(address));
        let mut live = self.live();
        let below = live.range(..address + size).next_back();
        assert!(
            below.is_none_or(|(at, len)| at + len <= address),
            "a block was handed out twice"
        );
        // SAFETY: the block has `size` bytes and is ours.
        unsafe {
            block.write(address as u8);
            block.add(size - 1).write(size as u8);
        }
        live.insert(address, size);
        Some(address)
    }

    fn free(&mut self, front: &mut Front, address: usize) {
        self.free_beside(front, address);
    }

    /// As `free`, while other threads do the same.
    fn free_beside(&self, front: &mut Front, address: usize) {
        let size = self.live().remove(&address).expect("live");
        let block = address as *mut u8;
        // SAFETY: a live block of the world.
        unsafe {
            assert_eq!(
                block.add(size - 1).read(),
                size as u8,
                "somebody wrote into a live block"
            );
            assert!(size == 1 || block.read() == address as u8);
        }
        match self
            .arena
            .kind(self.arena.slot_of(address))
            .load(Ordering::Relaxed)
        {
            kind::FREE => panic!("a live block's slot is free"),
            kind::LARGE | kind::HUGE => {
                let (slot, _) = self.arena.run_at(address).expect("a run");
                assert!(self.arena.release_run(slot));
            }
            what => front.free_class(usize::from(what - kind::FIRST), block),
        }
    }

    fn resize(&self, address: usize, size: usize) -> bool {
        let (slot, _) = self.arena.run_at(address).expect("a run");
        let resized = self.arena.resize_run(slot, size);
        if resized {
            // SAFETY: the run has `size` bytes now.
            unsafe {
                (address as *mut u8).write(address as u8);
                ((address + size - 1) as *mut u8).write(size as u8);
            }
            self.live().insert(address, size);
        }
        resized
    }

    fn apply(&mut self, op: Op, fronts: &mut [&'static mut Front]) {
        match op {
            Op::Alloc { front, size, align } => {
                self.alloc(fronts[front], size, 1 << align);
            }
            Op::Free { front, pick } => {
                let pick = pick % (self.live().len().max(1));
                let picked = self.live().keys().nth(pick).copied();
                if let Some(address) = picked {
                    self.free(fronts[front], address);
                }
            }
            Op::Retire { front } => {
                fronts[front].retire();
                fronts[front] = self.front().expect("a front");
            }
            Op::Flush { front } => fronts[front].flush(),
            Op::Collect { front } => super::release_cached(fronts[front]),
            Op::Gate { classes } => self.arena.gate.set_classes(Classes::from_bits(classes)),
            Op::Purge => self.arena.nodes().iter().for_each(|node| {
                node.purge();
            }),
        }
    }

    fn is_valid(&self) {
        // SAFETY: no front of the world is in use now.
        unsafe { super::check(self.arena) }.expect("a valid heap");
    }

    fn active(&self) -> u64 {
        self.arena.board().unwrap().stats().active
    }

    /// Frees everything, retires the fronts, and finds every slot free again.
    fn end(mut self, mut fronts: Vec<&'static mut Front>) {
        let left: Vec<_> = self.live().keys().copied().collect();
        for address in left {
            let front = fronts.first_mut().expect("no block without a front");
            self.free(front, address);
        }
        fronts.iter_mut().for_each(|front| front.retire());
        self.arena.nodes().iter().for_each(|node| {
            node.purge();
        });
        self.is_valid();
        assert_eq!(self.active(), 0, "slots are lost");
        let stats = self.arena.board().unwrap().stats();
        assert_eq!(stats.empty, 0, "memory is kept");
        assert_eq!(
            self.arena.budget.spent(),
            0,
            "what was learned ends with the threads"
        );
        // SAFETY: nobody uses the arena any more.
        unsafe { self.arena.destroy() };
    }
}

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

/// A life of a heap: two fronts, all kinds of blocks, hand-over, retirement, purge.
fn scenario(mut world: World) {
    let (mut a, mut b) = (world.front(), world.front());
    let mut blocks = Vec::new();
    for round in 0..4 {
        for (i, &size) in SIZES.iter().cycle().take(80).enumerate() {
            if let Some(a) = a.as_deref_mut() {
                blocks.extend(world.alloc(a, size + round, if i % 7 == 0 { 64 } else { 1 }));
            }
        }
        if let Some(a) = a.as_deref_mut() {
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
            match (b.as_deref_mut(), a.as_deref_mut()) {
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
                    b.retire();
                }
                b = world.front();
            }
            _ => {}
        }
    }
    world.fake.heal();
    let mut fronts: Vec<_> = [a, b].into_iter().flatten().collect();
    if fronts.is_empty() {
        fronts.extend(world.front());
    }
    world.end(fronts);
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
                // The pool of the host is not this test's; thp stands for what is populated and huge.
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
    let front = world.front().expect("a front");
    for _ in 0..40 {
        world.alloc(front, 1 << 20, 1).expect("memory");
    }
    let node = &world.arena.nodes()[0];
    assert_eq!(node.mapped_bytes(PageMode::Hugetlb), 0);
    assert!(node.mapped_bytes(PageMode::Thp) >= 40 << 20);
    assert_eq!(lines(world.fake), 1);
    world.end([front].into());
}

#[test]
fn stashes_overflow_to_the_list_and_are_found_from_other_cpus() {
    let mut world = World::new(SMALL, |_| {}).expect("an arena");
    world.fake.set_cpu(0);
    let owner = world.front().expect("a front");
    let freer = world.front().expect("a front");
    // 1 KiB: 64 blocks a span. Sixteen spans run full and are left to nobody.
    let blocks: Vec<_> = (0..1024)
        .map(|_| world.alloc(owner, 1024, 1).expect("memory"))
        .collect();
    let mapped = world.active();
    for &block in blocks.iter().step_by(2) {
        world.free(freer, block);
    }
    freer.flush();
    // The spans wait in CPU 0's stash and, since it has four places, on the list; CPU 1 finds them all.
    world.fake.set_cpu(1);
    let taker = world.front().expect("a front");
    for _ in 0..512 - 64 {
        world.alloc(taker, 1024, 1).expect("memory");
    }
    assert!(
        world.active() <= mapped + 2 * SLOT as u64 || cfg!(not(feature = "shared-pool")),
        "memory grew"
    );
    if cfg!(feature = "stats") {
        assert!(taker.heap.counters.stage_partial.get() >= 12);
    }
    world.end([owner, freer, taker].into());
}

/// Memory that goes and comes again is kept beyond `retain`, and given back when it is not needed for a while.
#[test]
fn what_was_given_back_too_early_is_kept_until_it_decays() {
    const MIB: usize = 1 << 20;
    let mut world = World::new(SMALL.retain(4 * MIB), |_| {}).expect("an arena");
    world.fake.set_now(1);
    let front = world.front().expect("a front");
    let mut burst = |world: &mut World| {
        let blocks: Vec<_> = (0..20)
            .map(|_| world.alloc(front, 2 * MIB, 1).expect("memory"))
            .collect();
        blocks
            .into_iter()
            .for_each(|block| world.free(front, block));
        world.arena.board().unwrap().stats().empty
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
        let block = world.alloc(front, 100_000, 1).expect("memory");
        world.free(front, block);
        front.flush();
        front.heap.collect();
    }
    let last = world.arena.board().unwrap().stats().empty;
    assert!(last <= 6 * MIB as u64, "{last} stay warm in the end");
    world.end([front].into());
}

#[derive(Clone, Debug)]
enum Op {
    Alloc {
        front: usize,
        size: usize,
        align: u32,
    },
    Free {
        front: usize,
        pick: usize,
    },
    Retire {
        front: usize,
    },
    Flush {
        front: usize,
    },
    Purge,
    Gate {
        classes: u64,
    },
    Collect {
        front: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![8 => 1usize..1100, 3 => 1000usize..40_000, 2 => 40_000usize..300_000, 1 => 250_000usize..6_000_000];
    prop_oneof![
        20 => (0usize..3, size, 0u32..8).prop_map(|(front, size, align)| Op::Alloc { front, size, align }),
        16 => (0usize..3, any::<usize>()).prop_map(|(front, pick)| Op::Free { front, pick }),
        1 => (0usize..3).prop_map(|front| Op::Retire { front }),
        1 => (0usize..3).prop_map(|front| Op::Flush { front }),
        1 => (0usize..3).prop_map(|front| Op::Collect { front }),
        1 => Just(Op::Purge),
        1 => prop_oneof![Just(0), Just(!0), any::<u64>()].prop_map(|classes| Op::Gate { classes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_lives_lose_nothing(ops in prop::collection::vec(op(), 1..1500)) {
        let mut world = World::new(SMALL.magazine(1024).budget(64 << 10).messages(false), |_| {}).expect("an arena");
        let mut fronts: Vec<_> = (0..3).map(|_| world.front().expect("a front")).collect();
        for op in ops {
            world.apply(op, &mut fronts);
            world.is_valid();
        }
        world.end(fronts);
    }
}

/// Breaks one invariant after another and finds `is_valid` saying so.
#[test]
fn broken_heaps_are_not_valid() {
    let mut world = World::new(SMALL, |_| {}).expect("an arena");
    let front = world.front().expect("a front");
    for size in [100, 100, 3000, 300_000] {
        world.alloc(front, size, 1).expect("memory");
    }
    front.flush();
    world.is_valid();
    let arena = world.arena;
    let broken = |what: &str| {
        // SAFETY: as in `World::is_valid`.
        let found = unsafe { super::check(arena) }.expect_err(what);
        assert!(found.what.contains(what), "{found}");
    };
    let in_use: Vec<_> = world.live().keys().map(|&at| arena.slot_of(at)).collect();
    for slot in in_use {
        let is = arena.kind(slot).swap(kind::FREE, Ordering::Relaxed);
        broken("ACTIVE slots");
        arena.kind(slot).store(is, Ordering::Relaxed);
        let span = SpanId((slot - usize::from(arena.head(slot).load(Ordering::Relaxed))) as u32);
        let meta = arena.span(span);
        if is < kind::LARGE {
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
    world.end([front].into());
}
