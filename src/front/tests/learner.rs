//! The learner: magazines that grow with bursts, within the budget.

use super::{SMALL, World};
use crate::classes::{self, CLASS_COUNT};
use crate::front::handle::Handle;
use crate::geometry::ClassId;
use crate::stats::board::ClassCounters;
use std::vec::Vec;

impl Handle {
    pub fn capacities(self) -> [u16; CLASS_COUNT] {
        self.with(|cache| cache.capacities)
    }

    /// The capacities that classes have before they learn.
    fn fixed(self) -> [u16; CLASS_COUNT] {
        let fixed = |class| self.with(|cache| cache.fixed_capacity(class)) as u16;
        core::array::from_fn(|class| fixed(ClassId::new(class)))
    }

    fn class_counters(self) -> &'static [ClassCounters; CLASS_COUNT] {
        self.with(|cache| cache.heap.class_counters)
    }
}

/// Bursts of a class: so many blocks come and go, round after round.
pub fn bursts(world: &mut World, cache: Handle, size: usize, blocks: usize, rounds: usize) {
    for _ in 0..rounds {
        let burst: Vec<_> = (0..blocks)
            .map(|_| world.alloc(cache, size, 1).expect("memory"))
            .collect();
        burst.into_iter().for_each(|block| world.free(cache, block));
    }
}

#[test]
fn magazines_grow_with_bursts_within_the_budget_and_forget() {
    let config = SMALL.magazine(4096).budget(512 << 10);
    let mut world = World::new(config, |_| {}).expect("an arena");
    world.fake.set_now(1);
    let cache = world.cache().expect("a cache");
    let fixed = cache.fixed();
    // 64, 256 and 1024 bytes: 64, 16 and 16 blocks fixed.
    let classes = [3, 11, 19];
    bursts(&mut world, cache, 64, 1000, 40);
    assert_eq!(cache.capacities()[3], 1024);
    let before = cache.counters().refills.get();
    bursts(&mut world, cache, 64, 1000, 10);
    assert_eq!(cache.counters().refills.get(), before, "it fits now");
    assert_eq!(cache.class_counters()[3].learned_blocks.get(), 1024 - 64);
    // The others want more than there is; what is not used meanwhile makes room.
    for _ in 0..20 {
        bursts(&mut world, cache, 256, 600, 10);
        bursts(&mut world, cache, 1024, 200, 10);
        let beyond = |class: usize| {
            usize::from(cache.capacities()[class].saturating_sub(fixed[class]))
                * classes::CLASSES[class].size as usize
        };
        assert!(classes.into_iter().map(beyond).sum::<usize>() <= 256 << 10);
    }
    assert!(
        classes[1..]
            .iter()
            .any(|&class| cache.capacities()[class] > 2 * fixed[class])
    );
    assert!(cache.capacities()[3] < 1024);
    // Frozen: no magazine grows beyond its fixed capacity, whatever happens.
    world.arena.policy().set_learning(false);
    let mut frozen = cache.capacities();
    // The last burst ends with drains, which let half of it.
    frozen[2] = fixed[2].div_ceil(2);
    bursts(&mut world, cache, 48, 3000, 100);
    assert_eq!(cache.capacities(), frozen);
    world.arena.policy().set_learning(true);
    // A workload that turns no more, and time that passes.
    for _ in 0..12_000 {
        let block = world.alloc(cache, 4096, 1).expect("memory");
        world.free(cache, block);
        cache.flush();
        world.fake.advance(10_000_000);
    }
    let is_fixed = |(&now, fixed)| now <= fixed;
    assert!(
        cache.capacities().iter().zip(fixed).all(is_fixed),
        "all is forgotten"
    );
    assert!(cache.counters().magazines_shrunk.get() > 0);
    bursts(&mut world, cache, 64, 1000, 40);
    world.end([cache].into());
}

/// A class that asks for more when the budget is used up does not pay with what it has itself, also
/// if the clock has just been looked at: the budget's books stay right. How many other classes
/// missed before decides when it is looked at.
#[test]
fn what_asks_for_more_keeps_what_it_has() {
    const BUDGET: usize = 16 << 10;
    for others in 0..8 {
        let config = SMALL.magazine(4096).budget(BUDGET).decay(0);
        let mut world = World::new(config, |_| {}).expect("an arena");
        let cache = world.cache().expect("a cache");
        let kept: Vec<_> = (0..others)
            .map(|other| world.alloc(cache, 1024 << other, 1).expect("memory"))
            .collect();
        for _ in 0..400 {
            bursts(&mut world, cache, 64, 150, 1);
            assert!(world.arena.policy().budget().spent() <= BUDGET, "{others}");
        }
        kept.into_iter().for_each(|block| world.free(cache, block));
        world.end([cache].into());
    }
}
