//! The spans that heaps keep for their classes: their memory serves others when memory ends, is
//! forgotten when it is not needed, and is not what was prepared.
#![allow(unsafe_code)] // Gives a block back.

use super::{OWN, World};
use crate::classes::class_for;
use crate::front::handle::Handle;
use std::vec::Vec;

const MIB: usize = 1 << 20;
const SECOND: u64 = 1_000_000_000;

/// So many bytes of blocks come and go, so often that the heap learns to keep their spans.
fn bursts(world: &mut World, cache: Handle, size: usize, bytes: usize) {
    for _ in 0..4 {
        let blocks = fill(world, cache, size, bytes / size);
        assert_eq!(blocks.len(), bytes / size);
        free(world, cache, blocks);
    }
}

/// Up to so many blocks.
fn fill(world: &mut World, cache: Handle, size: usize, most: usize) -> Vec<usize> {
    let next = || world.alloc(cache, size, 1);
    core::iter::from_fn(next).take(most).collect()
}

fn free(world: &mut World, cache: Handle, blocks: Vec<usize>) {
    for block in blocks {
        world.free(cache, block);
    }
}

/// Bytes that are warm and free: slots of the node, and spans that the heaps of these caches keep.
fn warm(world: &World, caches: &[Handle]) -> usize {
    let in_heaps = caches
        .iter()
        .map(|cache| cache.with(|cache| cache.heap.free_slots));
    (world.arena.nodes()[0].supers().warm() + in_heaps.sum::<usize>()) << 16
}

/// Slots and spans together are never more than `retain`, by more than the span that was given back
/// just now; also where no SuperSlab is wholly free.
#[test]
fn what_is_set_to_be_retained_bounds_all_that_is_warm() {
    for retain in [0, 3 * MIB, 20 * MIB] {
        let config = OWN.budget(1 << 30).retain(retain);
        let mut world = World::new(config, |_| {}).expect("an arena");
        let caches = [(); 3].map(|()| world.cache().expect("a cache"));
        let (mut stay, mut most) = (Vec::new(), 0);
        for round in 0..4 {
            for (at, size) in [300, 1024, 20_000, 100_000, 700_000]
                .into_iter()
                .enumerate()
            {
                let cache = caches[(at + round) % 3];
                let mut blocks = fill(&mut world, cache, size, 12 * MIB / size);
                stay.extend(blocks.iter().copied().skip(7).step_by(97));
                blocks.retain(|block| !stay.contains(block));
                free(&mut world, cache, blocks);
                most = most.max(warm(&world, &caches));
            }
        }
        caches.iter().for_each(|cache| cache.flush());
        let (now, slack) = (warm(&world, &caches), if retain > 0 { MIB } else { 0 });
        assert!(most <= retain + slack, "{most} with {retain}");
        assert!(now <= retain && now >= retain / 4, "{now} with {retain}");
        world.is_valid();
        free(&mut world, caches[0], stay);
        world.end(caches.into());
    }
}

/// By default a node keeps more if it learns to need that.
#[test]
fn what_is_retained_by_default_may_grow_by_learning() {
    // The default is a sixteenth of the soft limit, which nobody heeds here.
    let config = OWN.budget(1 << 30).soft_limit(64 * MIB).thread_cache(0);
    let mut world = World::new(config, |_| {}).expect("an arena");
    let cache = world.cache().expect("a cache");
    let retain = world.arena.policy().retain();
    let bytes = 4 * retain;
    assert_eq!(retain, 4 * MIB);
    for _ in 0..4 {
        let blocks = fill(&mut world, cache, 700_000, bytes / 700_000);
        free(&mut world, cache, blocks);
    }
    let now = warm(&world, &[cache]);
    assert!(now > 2 * retain, "{now} with {retain}");
    world.end([cache].into());
}

/// More than `decay`, with refills and drains of a small class.
fn time_passes(world: &mut World, cache: Handle) {
    for _ in 0..5000 {
        let other = world.alloc(cache, 64, 1).expect("memory");
        world.free(cache, other);
        cache.flush();
        world.fake.advance(SECOND);
    }
}

#[test]
fn what_is_kept_for_a_class_serves_another_when_memory_ends() {
    let config = OWN.budget(1 << 30).retain(1 << 30);
    let mut world = World::new(config, |_| {}).expect("an arena");
    let cache = world.cache().expect("a cache");
    bursts(&mut world, cache, 1024, 80 * MIB);
    assert!(cache.counters().spans_kept.get() > 1000, "it learned");
    let blocks = fill(&mut world, cache, 2048, usize::MAX);
    assert!(blocks.len() > 100 * MIB / 2048, "{} blocks", blocks.len());
    assert_eq!(cache.counters().spans_kept.get(), 0);
    free(&mut world, cache, blocks);
    world.end([cache].into());
}

/// Beside its current span, a class keeps no more than the bytes that it may keep unlearned.
#[cfg(feature = "stats")]
#[test]
fn what_is_kept_without_learning_is_bounded_in_bytes() {
    let config = OWN.learn(false).retain(1 << 30);
    let mut world = World::new(config, |_| {}).expect("an arena");
    let cache = world.cache().expect("a cache");
    for class in &crate::classes::CLASSES {
        let blocks = fill(
            &mut world,
            cache,
            class.size as usize,
            3 * class.blocks as usize,
        );
        free(&mut world, cache, blocks);
    }
    cache.flush();
    let kept = cache.with(|cache| cache.heap.board.kept.get()) as usize;
    let slots = crate::classes::CLASSES
        .iter()
        .map(|class| class.slots as usize);
    let current = slots.sum::<usize>() << 16;
    let most = current + crate::heap::LEAST_BYTES;
    assert!(kept > 0 && kept <= most, "{kept} of at most {most} bytes");
    world.end([cache].into());
}

#[test]
fn what_was_learned_is_forgotten_also_where_no_span_is_taken() {
    let mut world = World::new(OWN, |_| {}).expect("an arena");
    world.fake.set_now(1);
    let cache = world.cache().expect("a cache");
    bursts(&mut world, cache, 1024, 4 * MIB);
    let kept = cache.counters().spans_kept.get();
    assert!(kept > 20, "{kept}");
    let block = world.alloc(cache, 64, 1).expect("memory");
    time_passes(&mut world, cache);
    assert_eq!(cache.counters().spans_kept.get(), 0);
    world.free(cache, block);
    world.end([cache].into());
}

#[test]
fn what_was_prepared_stays_when_others_are_forgotten() {
    let mut world = World::new(OWN, |_| {}).expect("an arena");
    world.fake.set_now(1);
    let cache = world.cache().expect("a cache");
    bursts(&mut world, cache, 1024, 4 * MIB);
    let class = class_for(512, 1).expect("a class");
    cache
        .with(|cache| cache.heap.prepare(class, 8000))
        .expect("memory");
    world.arena.policy().set_prepared();
    time_passes(&mut world, cache);
    assert_eq!(cache.counters().spans_kept.get(), 0, "the others");
    // Somebody else takes all that is in the pool.
    world.arena.set_sealed(true);
    let other = world.cache();
    assert!(other.is_none(), "sealed");
    world.arena.set_sealed(false);
    let other = world.cache().expect("a cache");
    world.arena.set_sealed(true);
    let theirs = fill(&mut world, other, 512, usize::MAX);
    let mine = fill(&mut world, cache, 512, 8000);
    assert_eq!(mine.len(), 8000);
    world.arena.set_sealed(false);
    free(&mut world, cache, mine);
    free(&mut world, other, theirs);
    world.end([cache, other].into());
}

/// A heap whose memory was given back would fault, and may need a system call.
#[test]
fn a_sealed_heap_has_no_blank_fronts() {
    let mut world = World::new(OWN, |_| {}).expect("an arena");
    let cache = world.cache().expect("a cache");
    cache.end();
    world.arena.heaps().purge();
    world.arena.set_sealed(true);
    assert!(world.cache().is_none());
    world.arena.set_sealed(false);
    let cache = world.cache().expect("a cache");
    world.end([cache].into());
}

#[test]
fn fresh_blocks_are_counted() {
    let mut world = World::new(OWN, |_| {}).expect("an arena");
    let cache = world.cache().expect("a cache");
    let class = class_for(100_000, 1).expect("a class");
    let before = cache.counters().refilled_blocks.get();
    // The first span is only there after a refill.
    let block = world.alloc_beside(cache, 100_000, 1).expect("memory");
    world.free_beside(cache, block);
    let refilled = cache.counters().refilled_blocks.get();
    assert!(refilled > before);
    let fresh = cache
        .with(|cache| cache.heap.take_fresh(class))
        .expect("a fresh block");
    assert_eq!(cache.counters().refilled_blocks.get(), refilled + 1);
    // SAFETY: taken just now.
    cache.with(|cache| unsafe { cache.heap.give(&[fresh]) });
    world.end([cache].into());
}
