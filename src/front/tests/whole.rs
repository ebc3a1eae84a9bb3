//! Blocks that are spans by themselves: who keeps them, and whose their spans are.

use super::{SMALL, World};
use crate::classes::class_for;
use std::vec::Vec;

const SIZE: usize = 400_000;
const MILLISECOND: u64 = 1_000_000;

/// Who takes and frees a large block again and again has it in a magazine, as long as that is
/// often; and the class goes without again when it has not been used for long.
#[test]
fn only_lively_classes_are_kept() {
    for (pace, kept) in [(10, 0), (0, 1)] {
        let mut world = World::new(SMALL, |_| {}).expect("an arena");
        world.fake.set_now(1);
        let cache = world.cache().expect("a cache");
        for _ in 0..20 {
            let block = world.alloc(cache, SIZE, 1).expect("memory");
            world.fake.advance(pace * MILLISECOND);
            world.free(cache, block);
        }
        let class = class_for(SIZE, 1).expect("a class");
        assert_eq!(cache.with(|cache| cache.held(class)), kept, "pace {pace}");
        let before = cache.counters().refills.get();
        let block = world.alloc(cache, SIZE, 1).expect("memory");
        world.free(cache, block);
        assert_eq!(cache.counters().refills.get() - before, 1 - kept as u64);
        world.is_valid();
        world.end([cache].into());
    }
}

/// A block that another thread frees leaves nothing behind: neither its owner nor a list has it.
#[test]
fn who_frees_a_block_has_its_span() {
    let mut world = World::new(SMALL, |_| {}).expect("an arena");
    let [owner, freer] = [(); 2].map(|()| world.cache().expect("a cache"));
    let before = world.active();
    let blocks: Vec<_> = (0..40)
        .map(|_| world.alloc(owner, SIZE, 1).expect("memory"))
        .collect();
    assert!(world.active() >= before + 40 * SIZE as u64);
    for block in blocks {
        world.free(freer, block);
        world.is_valid();
    }
    assert_eq!(world.active(), before, "all slots are free");
    assert_eq!(owner.counters().spans_released.get(), 0);
    assert_eq!(freer.counters().spans_released.get(), 40);
    world.end([owner, freer].into());
}

/// Blocks of a class that come and go at random teach the heap to keep no spans; bursts do.
#[test]
fn only_bursts_keep_spans() {
    for (blocks, kept) in [(3, false), (600, true)] {
        let config = SMALL
            .address_space(1 << 30)
            .thread_cache(16 << 20)
            .budget(1 << 30);
        let mut world = World::new(config.retain(1 << 30), |_| {}).expect("an arena");
        let cache = world.cache().expect("a cache");
        let mut live = Vec::new();
        for round in 0..400usize {
            let count = if kept {
                blocks
            } else {
                round * 7 % 11 % blocks
            };
            if live.is_empty() {
                live.extend((0..count).map(|_| world.alloc(cache, SIZE, 1).expect("memory")));
            } else {
                live.drain(..).for_each(|block| world.free(cache, block));
            }
            if kept && round == 40 {
                break;
            }
        }
        live.drain(..).for_each(|block| world.free(cache, block));
        let spans = cache.counters().spans_kept.get();
        assert_eq!(spans > 0, kept, "{blocks}: {spans} spans");
        world.end([cache].into());
    }
}
