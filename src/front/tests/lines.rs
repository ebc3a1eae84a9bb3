//! Which cache lines the blocks of several threads lie in. A thread that frees a neighbour of
//! others' blocks before it has allocated does not get that block.

use super::{SMALL, World};
use crate::classes::{CLASSES, class_for};
use crate::front::cache::ThreadCache;
use crate::front::handle::Handle;
use crate::geometry::ClassId;
use std::vec::Vec;

const LINE: usize = 64;
/// Blocks that go home one by one before a magazine opens.
const HOME: usize = 8;

fn class_of(size: usize) -> ClassId {
    class_for(size, 1).expect("a class")
}

fn lines(block: usize, size: usize) -> core::ops::RangeInclusive<usize> {
    block / LINE..=(block + size - 1) / LINE
}

fn share(a: usize, b: usize, size: usize) -> bool {
    let (a, b) = (lines(a, size), lines(b, size));
    a.start() <= b.end() && b.start() <= a.end()
}

fn held(cache: Handle, size: usize) -> usize {
    cache.with(|cache| cache.held(class_of(size)))
}

/// Hands neighbours to threads, one each, which free them, allocate as many blocks as a batch, and
/// keep these. No two of the threads may have blocks in one line.
fn hand_out(world: &mut World, giver: Handle, takers: &[Handle], size: usize) {
    let given: Vec<_> = (takers.iter())
        .map(|_| world.alloc(giver, size, 1).expect("memory"))
        .collect();
    for (&taker, &block) in takers.iter().zip(&given) {
        let before = held(taker, size);
        world.free(taker, block);
        assert_eq!(held(taker, size), before, "{size}: the block stayed");
    }
    let got: Vec<Vec<usize>> = (takers.iter())
        .map(|&taker| {
            let next = || world.alloc(taker, size, 1).expect("memory");
            core::iter::repeat_with(next).take(8).collect()
        })
        .collect();
    for (nth, blocks) in got.iter().enumerate() {
        for other in got.iter().skip(nth + 1).flatten() {
            let shared = blocks.iter().any(|&block| share(block, *other, size));
            assert!(!shared, "{size}: two threads have blocks in one line");
        }
    }
    for (&taker, blocks) in takers.iter().zip(got) {
        blocks
            .into_iter()
            .for_each(|block| world.free(taker, block));
    }
}

/// Also where a cache goes from thread to thread with the blocks in it.
#[test]
fn what_a_thread_frees_first_is_not_what_it_gets() {
    for size in [1, 16, 24, 32, 48] {
        let mut world = World::new(SMALL, |_| {}).expect("an arena");
        let giver = world.cache().expect("a cache");
        let takers = [(); 4].map(|()| world.cache().expect("a cache"));
        for _ in 0..12 {
            hand_out(&mut world, giver, &takers, size);
            for taker in takers {
                assert!(held(taker, size) > 0, "{size}: its own blocks stayed");
                assert!(taker.with(ThreadCache::rest), "{size}: it holds little");
            }
            world.is_valid();
        }
        world.end([giver].into_iter().chain(takers).collect());
    }
}

/// A few blocks go home alone, and then whole batches.
#[test]
fn who_only_frees_gets_a_magazine() {
    let mut world = World::new(SMALL, |_| {}).expect("an arena");
    let [giver, taker] = [(); 2].map(|()| world.cache().expect("a cache"));
    let blocks: Vec<_> = (0..100)
        .map(|_| world.alloc(giver, 16, 1).expect("memory"))
        .collect();
    for (nth, block) in blocks.into_iter().enumerate() {
        world.free(taker, block);
        assert_eq!(held(taker, 16) > 0, nth >= HOME, "after block {nth}");
    }
    assert!(taker.counters().drains.get() < 20, "batches went home");
    world.end(Vec::from([giver, taker]));
}

/// Blocks of whole lines share none, and so stay.
#[test]
fn blocks_of_whole_lines_stay() {
    assert_eq!(CLASSES[class_of(64).index()].size as usize, LINE);
    let mut world = World::new(SMALL, |_| {}).expect("an arena");
    let [giver, taker] = [(); 2].map(|()| world.cache().expect("a cache"));
    let block = world.alloc(giver, 64, 1).expect("memory");
    world.free(taker, block);
    assert_eq!(held(taker, 64), 1);
    assert_eq!(world.alloc(taker, 64, 1), Some(block));
    world.end(Vec::from([giver, taker]));
}
