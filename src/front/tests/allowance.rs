//! The allowance of a thread: what its magazines hold together, and how they share it.

use super::learner::bursts;
use super::{SMALL, World};
use crate::classes::{CLASS_COUNT, CLASSES, Class, WHOLE_CLASSES};
use crate::config::Config;
use crate::front::allowance::{NESTS, nest_capacity};
use crate::front::cache::ThreadCache;
use crate::front::handle::Handle;
use crate::gate::Classes;
use crate::geometry::ClassId;
use proptest::prelude::*;
use std::vec::Vec;

const KIB: usize = 1 << 10;

impl Handle {
    fn capacity(self, class: usize) -> usize {
        usize::from(self.capacities()[class])
    }

    /// Bytes of blocks that the thread's magazines hold now.
    fn holds(self) -> usize {
        let held = |class: ClassId| {
            self.with(|cache| cache.held(class)) * CLASSES[class.index()].size as usize
        };
        ClassId::all().map(held).sum()
    }

    /// Bytes of blocks that they may hold, as the board says.
    fn allowed(self) -> usize {
        self.with(|cache| cache.heap.board.allowed.get()) as usize
    }
}

fn world(config: Config) -> (World, Handle) {
    let world = World::new(config, |_| {}).expect("an arena");
    let cache = world.cache().expect("a cache");
    (world, cache)
}

/// A burst in each of these classes, one after another or all at once.
fn burst_in(classes: &[Class], world: &mut World, cache: Handle, at_once: bool) {
    for _ in 0..6 {
        let mut blocks = Vec::new();
        for class in classes {
            let count = (256 * KIB / class.size as usize).clamp(12, 1000);
            for _ in 0..count {
                blocks.push(world.alloc(cache, class.size as usize, 1).expect("memory"));
            }
            if !at_once {
                (blocks.drain(..)).for_each(|block| world.free(cache, block));
            }
        }
        (blocks.into_iter()).for_each(|block| world.free(cache, block));
        world.is_valid();
    }
}

#[test]
fn a_burst_in_every_class_leaves_what_the_thread_may_hold() {
    for option in [0, NESTS, 400 * KIB, 1024 * KIB, 8 << 20, usize::MAX] {
        for at_once in [false, true] {
            let (mut world, cache) = world(SMALL.address_space(512 << 20).thread_cache(option));
            burst_in(&CLASSES, &mut world, cache, at_once);
            let (allowed, holds) = (cache.allowed(), cache.holds());
            assert!(
                holds <= allowed && allowed <= option.saturating_add(NESTS),
                "{holds} {allowed}"
            );
            let whole = |class: ClassId| {
                cache.capacity(class.index()) >= cache.with(|cache| cache.fixed_capacity(class))
            };
            match option {
                usize::MAX => assert!(ClassId::all().any(whole)),
                option if option > 0 => {
                    let least = option.min(1024 * KIB) / 2;
                    assert!(allowed > least, "{allowed} of {option}");
                }
                _ => assert_eq!(allowed, NESTS),
            }
            world.end([cache].into());
        }
    }
}

#[test]
fn a_class_that_is_used_now_gets_what_others_had() {
    // What others have learned they keep: there is room beside that.
    let option = 1536 * KIB;
    let (mut world, cache) = world(SMALL.address_space(512 << 20).thread_cache(option));
    burst_in(
        &CLASSES[..CLASS_COUNT - WHOLE_CLASSES],
        &mut world,
        cache,
        false,
    );
    let before = cache.allowed();
    for class in [3, 20, 33, 45] {
        let size = CLASSES[class].size as usize;
        let whole = cache.with(|cache| cache.fixed_capacity(ClassId::new(class)));
        // As often as the class misses until others make way. A burst ends with drains, which take
        // it again.
        let mut most = 0;
        for _ in 0..160 {
            let burst: Vec<_> = (0..whole + 8)
                .map(|_| world.alloc(cache, size, 1).expect("memory"))
                .collect();
            most = most.max(cache.capacity(class));
            burst.into_iter().for_each(|block| world.free(cache, block));
        }
        assert!(most >= whole, "{class}: {most} of {whole}");
        world.is_valid();
    }
    assert!(cache.allowed() <= option + NESTS && before <= option + NESTS);
    world.end([cache].into());
}

/// A class that wants more than there is does not keep others from their share, and who is content
/// keeps what it needs.
#[test]
fn classes_in_constant_use_share() {
    let (mut world, cache) = world(SMALL.address_space(512 << 20));
    bursts(&mut world, cache, 1024, 4000, 20);
    let greedy = cache.capacity(19);
    assert!(greedy > 700, "a class alone gets everything: {greedy}");
    let others = [0, 5, 11, 17, 25];
    for _ in 0..60 {
        bursts(&mut world, cache, 1024, 4000, 1);
        for class in others {
            let size = CLASSES[class].size as usize;
            bursts(&mut world, cache, size, 64 * KIB / size, 1);
        }
        world.is_valid();
    }
    for class in others {
        let whole = cache.with(|cache| cache.fixed_capacity(ClassId::new(class)));
        assert!(
            cache.capacity(class) >= whole,
            "{class}: {}",
            cache.capacity(class)
        );
    }
    assert!(cache.capacity(19) >= 100, "{}", cache.capacity(19));
    world.end([cache].into());
}

/// A thread that only frees holds less, in batches that are as large.
#[cfg(feature = "stats")]
#[test]
fn a_class_that_only_drains_holds_half() {
    let (mut world, cache) = world(SMALL.address_space(512 << 20));
    let blocks: Vec<_> = (0..20_000)
        .map(|_| world.alloc(cache, 64, 1).expect("memory"))
        .collect();
    let whole = cache.with(|cache| cache.fixed_capacity(ClassId::new(3)));
    assert_eq!(cache.capacity(3), whole);
    for block in blocks {
        world.free(cache, block);
    }
    assert_eq!(cache.capacity(3), whole / 2);
    let batch = whole / 2 - nest_capacity(ClassId::new(3));
    let drains = cache.counters().drains.get() as usize;
    assert!(drains <= 20_000 / batch + 2, "{drains}");
    bursts(&mut world, cache, 64, whole, 1);
    assert_eq!(cache.capacity(3), whole, "it refills again");
    world.is_valid();
    world.end([cache].into());
}

#[test]
fn the_next_thread_begins_with_the_nests() {
    let (mut world, cache) = world(SMALL.address_space(512 << 20));
    burst_in(&CLASSES, &mut world, cache, false);
    cache.end();
    let cache = world.cache().expect("a cache");
    assert_eq!((cache.allowed(), cache.holds()), (NESTS, 0));
    assert!(ClassId::all().all(|class| {
        let nest = nest_capacity(class);
        // A new cache looks at the gate when it first misses.
        [nest, cache.with(|cache| cache.fixed_capacity(class))]
            .contains(&cache.capacity(class.index()))
    }));
    world.end([cache].into());
}

/// A sealed heap shares as well, without memory for that: what was learned goes first.
#[test]
fn a_sealed_heap_shares_without_a_call() {
    let (mut world, cache) = world(SMALL.address_space(512 << 20).thread_cache(256 * KIB));
    // There is room for all that follows.
    bursts(&mut world, cache, 8192, 1000, 2);
    bursts(&mut world, cache, 64, 10_000, 30);
    assert!(cache.capacity(3) > 1000, "{}", cache.capacity(3));
    let (calls, policy) = (world.fake.calls(), world.arena.policy());
    policy.set_sealed(true);
    bursts(&mut world, cache, 8192, 100, 60);
    let refusals = world.arena.figures().board().unwrap().stats().refusals;
    assert_eq!((world.fake.calls(), refusals), (calls, 0));
    // A burst ends with drains, which let half of it.
    assert!(cache.capacity(31) >= 8, "{}", cache.capacity(31));
    assert!(cache.capacity(3) <= 512, "{}", cache.capacity(3));
    world.arena.policy().set_sealed(false);
    world.end([cache].into());
}

#[derive(Clone, Debug)]
enum Op {
    Bursts {
        class: usize,
        blocks: usize,
        rounds: usize,
    },
    Gate(u64),
    Collect,
    Retire,
    Learn(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let burst = (0..CLASSES.len(), 1usize..700, 1usize..12);
    prop_oneof![
        20 => burst.prop_map(|(class, blocks, rounds)| {
            let most = (1 << 20) / CLASSES[class].size as usize;
            Op::Bursts { class, blocks: blocks.min(most), rounds }
        }),
        2 => prop_oneof![Just(0), Just(!0), any::<u64>()].prop_map(Op::Gate),
        1 => Just(Op::Collect),
        1 => Just(Op::Retire),
        1 => any::<bool>().prop_map(Op::Learn),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 30 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// `is_valid` compares the sum of what the classes may hold with the books.
    #[test]
    fn the_books_are_right_whatever_happens(
        option in prop_oneof![Just(0usize), 0usize..2 << 20],
        ops in prop::collection::vec(op(), 1..if cfg!(miri) { 4 } else { 60 }),
    ) {
        let config = SMALL.address_space(256 << 20).thread_cache(option).budget(1 << 20);
        let (mut world, mut cache) = world(config.messages(false));
        for op in ops {
            match op {
                Op::Bursts { class, blocks, rounds } => {
                    bursts(&mut world, cache, CLASSES[class].size as usize, blocks, rounds);
                }
                Op::Gate(bits) => {
                    world.arena.policy().gate().set_classes(Classes::from_bits(bits));
                }
                Op::Collect => cache.with(ThreadCache::collect),
                Op::Retire => {
                    cache.end();
                    cache = world.cache().expect("a cache");
                }
                Op::Learn(on) => world.arena.policy().set_learning(on),
            }
            world.is_valid();
            prop_assert!(cache.allowed() <= option.saturating_add(NESTS));
        }
        world.end([cache].into());
    }
}
