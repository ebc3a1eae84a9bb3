//! What is taken from heaps whose threads rest: by those that are busy, by a node that would grow
//! or cannot, and by a purge; with system calls that fail.

use super::{OWN, World};
use crate::config::Config;
use crate::front::handle::Handle;
use std::vec::Vec;
use theap_platform::Call;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SECOND: u64 = 1_000_000_000;

const CONFIG: Config = OWN.decay(1000).retain(256 * MIB).budget(1 << 30);

/// Allocates so many bytes in blocks of a size and frees all but every `nth` of them. What stays.
fn burst(world: &mut World, cache: Handle, size: usize, bytes: usize, nth: usize) -> Vec<usize> {
    let next = || world.alloc(cache, size, 1).expect("memory");
    let mut blocks: Vec<_> = core::iter::repeat_with(next).take(bytes / size).collect();
    let mut stay = Vec::new();
    for (at, block) in blocks.drain(..).enumerate() {
        if at % nth == 0 {
            stay.push(block);
        } else {
            world.free(cache, block);
        }
    }
    stay
}

/// Bursts of so many bytes, so often that the heap keeps their spans. One block stays each time.
fn learn(world: &mut World, cache: Handle, bytes: usize) {
    (0..4).for_each(|_| drop(burst(world, cache, 1024, bytes, usize::MAX)));
}

/// Batches of another size, so that the thread passes by.
fn work(world: &mut World, cache: Handle, times: usize) {
    for _ in 0..times {
        let block = world.alloc(cache, 64, 1).expect("memory");
        world.free(cache, block);
        cache.flush();
    }
}

fn two(config: Config) -> (World, Handle, Handle) {
    let world = World::new(config, |fake| fake.set_now(SECOND)).expect("an arena");
    let (rests, busy) = (world.cache().expect("a cache"), world.cache().expect("one"));
    (world, rests, busy)
}

fn taken(cache: Handle) -> u64 {
    cache.counters().spans_reclaimed.get()
}

#[test]
fn a_busy_thread_takes_what_is_idle_after_the_decay() {
    let (mut world, rests, busy) = two(CONFIG);
    learn(&mut world, rests, 24 * MIB);
    let stay = burst(&mut world, rests, 20 * KIB, 8 * MIB, 2);
    rests.flush();
    // Blocks that come home while their owner rests count, too.
    for block in &stay[1..] {
        world.free(busy, *block);
    }
    work(&mut world, busy, 500);
    let before = world.active();
    world.fake.advance(SECOND / 2);
    work(&mut world, busy, 500);
    assert_eq!(
        (taken(rests), world.active()),
        (0, before),
        "not before its time"
    );
    for _ in 0..10 {
        world.fake.advance(SECOND / 4);
        work(&mut world, busy, 500);
        world.is_valid();
    }
    assert!(taken(rests) > 0);
    let after = world.active();
    assert!(after * 4 < before, "{after} of {before} bytes in use");
    // The thread goes on with what it has and with what the pool has for it.
    let again = burst(&mut world, rests, 20 * KIB, 8 * MIB, 2);
    assert!(!again.is_empty());
    world.is_valid();
    world.end([rests, busy].into());
}

#[test]
fn growth_takes_from_who_rests_first() {
    let (mut world, rests, busy) = two(CONFIG);
    learn(&mut world, rests, 48 * MIB);
    let mapped = || world.arena.nodes()[0].pages().mapped_count();
    let (before, kept) = (mapped(), rests.counters().spans_kept.get());
    assert!(kept > 50, "it has learned to keep {kept} spans");
    world.fake.advance(SECOND / 10);
    drop(burst(&mut world, busy, 2048, 16 * MIB, usize::MAX));
    world.fake.advance(SECOND / 10);
    drop(burst(&mut world, busy, 2048, 48 * MIB, usize::MAX));
    let after = world.arena.nodes()[0].pages().mapped_count();
    assert!(taken(rests) > 50, "{} spans", taken(rests));
    assert!(
        after <= before + 16,
        "it grew from {before} to {after} SuperSlabs"
    );
    world.is_valid();
    world.end([rests, busy].into());
}

#[test]
fn what_others_keep_serves_when_memory_ends() {
    for sealed in [false, true] {
        let (mut world, rests, busy) = two(CONFIG);
        learn(&mut world, rests, 24 * MIB);
        world.fake.fail_from(0);
        world.arena.policy().set_sealed(sealed);
        let next = || world.alloc(busy, 2048, 1);
        let blocks = core::iter::from_fn(next).count();
        world.arena.policy().set_sealed(false);
        world.fake.heal();
        // A sealed heap is left alone.
        let spans = taken(rests);
        let as_told = if sealed { spans == 0 } else { spans > 100 };
        assert!(as_told, "{spans} spans, {blocks} blocks, sealed: {sealed}");
        world.is_valid();
        world.end([busy, rests].into());
    }
}

#[test]
fn a_purge_takes_from_who_rests() {
    let (mut world, rests, busy) = two(CONFIG);
    learn(&mut world, rests, 24 * MIB);
    let before = world.active();
    world.arena.reclaim().before_purge();
    world.arena.purge();
    let (taken_now, gone) = (taken(rests), before - world.active());
    assert!(
        taken_now > 100 && gone > 100 * 64 * KIB as u64,
        "{taken_now}, {gone}"
    );
    world.is_valid();
    // Who makes a step meanwhile keeps what it has.
    learn(&mut world, rests, 24 * MIB);
    let taken_before = taken(rests);
    world.arena.reclaim().before_purge();
    rests.flush();
    world.arena.purge();
    assert_eq!(taken(rests), taken_before);
    world.end([rests, busy].into());
}

#[test]
fn a_sealed_or_prepared_heap_is_left_alone() {
    for sealed in [false, true] {
        let (mut world, rests, busy) = two(CONFIG);
        drop(burst(&mut world, rests, 20 * KIB, 8 * MIB, usize::MAX));
        rests.flush();
        if sealed {
            world.arena.set_sealed(true);
        } else {
            world.arena.policy().set_prepared();
        }
        for _ in 0..10 {
            world.fake.advance(SECOND);
            work(&mut world, busy, 500);
        }
        assert_eq!(taken(rests), 0, "sealed: {sealed}");
        world.arena.set_sealed(false);
        world.end([rests, busy].into());
    }
}

/// Each call of the system fails once while heaps are reclaimed; nothing is lost.
#[test]
fn refusals_lose_nothing() {
    for call in [Call::Purge, Call::Unmap, Call::Commit, Call::Map] {
        for position in 0..12 {
            let (mut world, rests, busy) = two(CONFIG.retain(0));
            let stay = burst(&mut world, rests, 20 * KIB, 4 * MIB, 8);
            rests.flush();
            world.fake.fail_only(call);
            world.fake.fail_nth(position);
            for _ in 0..8 {
                world.fake.advance(SECOND / 2);
                work(&mut world, busy, 100);
            }
            drop(burst(&mut world, busy, 2048, 2 * MIB, usize::MAX));
            world.fake.heal();
            world.is_valid();
            assert!(!stay.is_empty());
            world.end([rests, busy].into());
        }
    }
}
