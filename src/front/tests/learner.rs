//! The learner: magazines that grow with bursts, within the budget.

use super::{SMALL, World};
use crate::classes;
use crate::front::thread::Front;
use std::vec::Vec;

/// Bursts of a class: so many blocks come and go, round after round.
fn bursts(world: &mut World, front: &mut Front, size: usize, blocks: usize, rounds: usize) {
    for _ in 0..rounds {
        let burst: Vec<_> = (0..blocks)
            .map(|_| world.alloc(front, size, 1).expect("memory"))
            .collect();
        burst.into_iter().for_each(|block| world.free(front, block));
    }
}

#[test]
fn magazines_grow_with_bursts_within_the_budget_and_forget() {
    let config = SMALL.magazine(4096).budget(512 << 10);
    let mut world = World::new(config, |_| {}).expect("an arena");
    world.fake.set_now(1);
    let front = world.front().expect("a front");
    let fixed = front.capacities;
    // 64, 256 and 1024 bytes: 64, 16 and 16 blocks fixed.
    let classes = [3, 11, 19];
    bursts(&mut world, front, 64, 1000, 40);
    assert_eq!(front.capacities[3], 1024);
    let before = front.heap.counters.refills.get();
    bursts(&mut world, front, 64, 1000, 10);
    assert_eq!(front.heap.counters.refills.get(), before, "it fits now");
    assert_eq!(front.heap.class_counters[3].learned_blocks.get(), 1024 - 64);
    // The others want more than there is; what is not used meanwhile makes room.
    for _ in 0..20 {
        bursts(&mut world, front, 256, 600, 10);
        bursts(&mut world, front, 1024, 200, 10);
        let beyond = |class: usize| {
            usize::from(front.capacities[class] - fixed[class])
                * classes::CLASSES[class].size as usize
        };
        assert!(classes.into_iter().map(beyond).sum::<usize>() <= 256 << 10);
    }
    assert!(
        classes[1..]
            .iter()
            .any(|&class| front.capacities[class] > 2 * fixed[class])
    );
    assert!(front.capacities[3] < 1024);
    // Frozen: nothing changes, whatever happens.
    world.arena.set_learning(false);
    let frozen = front.capacities;
    bursts(&mut world, front, 48, 3000, 100);
    assert_eq!(front.capacities, frozen);
    world.arena.set_learning(true);
    // A workload that turns no more, and time that passes.
    for _ in 0..12_000 {
        let block = world.alloc(front, 4096, 1).expect("memory");
        world.free(front, block);
        front.flush();
        world.fake.advance(10_000_000);
    }
    assert_eq!(front.capacities, fixed, "all is forgotten");
    assert!(front.heap.counters.magazines_shrunk.get() > 0);
    bursts(&mut world, front, 64, 1000, 40);
    world.end([front].into());
}

/// A class that asks for more when the budget is used up does not pay with what it has itself, also if the clock has just
/// been looked at: the budget's books stay right. How many other classes missed before decides when it is looked at.
#[test]
fn what_asks_for_more_keeps_what_it_has() {
    const BUDGET: usize = 16 << 10;
    for others in 0..8 {
        let config = SMALL.magazine(4096).budget(BUDGET).decay(0);
        let mut world = World::new(config, |_| {}).expect("an arena");
        let front = world.front().expect("a front");
        let kept: Vec<_> = (0..others)
            .map(|other| world.alloc(front, 1024 << other, 1).expect("memory"))
            .collect();
        for _ in 0..400 {
            bursts(&mut world, front, 64, 150, 1);
            assert!(world.arena.budget.spent() <= BUDGET, "{others}");
        }
        kept.into_iter().for_each(|block| world.free(front, block));
        world.end([front].into());
    }
}
