//! The SuperSlabs of nurseries: on small pages in a heap that has hugepages, left alone by threads
//! as long as the node can grow, and never kept where others need the memory.

use super::{SMALL, World};
use crate::config::{Config, Pages, Prefault};
use crate::front::handle::Handle;
use crate::front::life::SHARED;
use crate::geometry::{NodeSuper, SUPER};
use std::vec::Vec;
use theap_platform::{Call, PageMode};

const THP: Config = SMALL.pages(Pages::Thp).retain(64 << 20).messages(false);

fn new(config: Config) -> (World, Handle) {
    let world = World::new(config, |_| {}).expect("an arena");
    let cache = world.cache().expect("a cache");
    assert_ne!(cache.index(), SHARED);
    (world, cache)
}

fn blocks(world: &mut World, cache: Handle, size: usize, count: usize) -> Vec<usize> {
    let next = || world.alloc(cache, size, 1).expect("memory");
    core::iter::repeat_with(next).take(count).collect()
}

fn super_of(world: &World, block: usize) -> NodeSuper {
    let (super_id, _) = world.arena.addresses().slot_of(block).split();
    world.arena.nodes()[0].local(super_id)
}

/// The page mode of the block's SuperSlab, and whether that is there for nurseries alone.
fn place(world: &World, block: usize) -> (PageMode, bool) {
    let (node, i) = (&world.arena.nodes()[0], super_of(world, block));
    let mode = node.pages().mode(i).expect("mapped");
    (mode, node.supers().nursed().is_reserved(i))
}

fn mapped(world: &World, mode: PageMode) -> usize {
    world.arena.nodes()[0].pages().mapped_bytes(mode) as usize / SUPER
}

/// A few blocks of each size, and then more of a size.
#[test]
fn first_blocks_are_on_small_pages_and_others_on_hugepages() {
    let (mut world, cache) = new(THP);
    for size in [16, 100, 1024, 9000, 40_000, 200_000] {
        for block in blocks(&mut world, cache, size, 4) {
            assert_eq!(place(&world, block), (PageMode::Small, true), "{size}");
        }
    }
    let more = blocks(&mut world, cache, 1024, 2000);
    let (first, last) = (place(&world, more[0]), place(&world, more[1999]));
    assert_eq!(
        (first, last),
        ((PageMode::Small, true), (PageMode::Thp, false))
    );
    let runs = blocks(&mut world, cache, 300_000, 1);
    assert_eq!(place(&world, runs[0]), (PageMode::Thp, false));
    // A huge run does not take what is free there.
    let huge = blocks(&mut world, cache, 5 << 20, 1);
    assert_eq!(place(&world, huge[0]), (PageMode::Thp, false));
    world.is_valid();
    world.end([cache].into());
}

#[test]
fn the_first_superslabs_of_auto_serve_all() {
    let (mut world, cache) = new(THP.pages(Pages::Auto));
    let few = blocks(&mut world, cache, 1024, 4);
    let more = blocks(&mut world, cache, 1024, 1000);
    assert_eq!(place(&world, few[0]), (PageMode::Small, false));
    assert_eq!(super_of(&world, more[999]), super_of(&world, few[0]));
    // Beyond them nurseries and threads go apart.
    let filled = blocks(&mut world, cache, 1024, 12_000);
    let (mode, reserved) = place(&world, filled[11_999]);
    assert!(mode != PageMode::Small && !reserved, "{mode:?}");
    let late = blocks(&mut world, cache, 200_000, 4);
    assert_eq!(place(&world, late[3]), (PageMode::Small, true));
    world.end([cache].into());
}

#[test]
fn what_is_prefaulted_or_on_pages_of_a_kind_is_for_all() {
    for config in [
        THP.prefault(Prefault::Grow),
        SMALL,
        THP.pages(Pages::Hugetlb),
        THP.nursery(false),
    ] {
        let (mut world, cache) = new(config);
        let few = blocks(&mut world, cache, 1024, 4);
        assert!(!place(&world, few[0]).1);
        world.end([cache].into());
    }
    // After the program has prepared memory, nobody leaves any of it alone.
    let (mut world, cache) = new(THP);
    let few = blocks(&mut world, cache, 1024, 4);
    world.arena.policy().set_prepared();
    let more = blocks(&mut world, cache, 1024, 1000);
    assert_eq!(super_of(&world, more[999]), super_of(&world, few[0]));
    assert_eq!(mapped(&world, PageMode::Thp), 0);
    world.end([cache].into());
}

#[test]
fn a_thread_gets_a_hugepage_for_what_nurseries_have_left() {
    let (mut world, cache) = new(THP);
    // Two SuperSlabs of single blocks of 200 kB, and more.
    let others: Vec<_> = (0..8).map(|_| world.cache().expect("a cache")).collect();
    let few: Vec<_> = others
        .iter()
        .flat_map(|&other| blocks(&mut world, other, 200_000, 4))
        .collect();
    let before = mapped(&world, PageMode::Small);
    assert!(before > 2, "{before} on small pages");
    few.into_iter().for_each(|block| world.free(cache, block));
    cache.flush();
    others.iter().for_each(|other| other.flush());
    world.collect_nurseries();
    world.is_valid();
    drop(blocks(&mut world, cache, 1 << 20, 6));
    let (small, huge) = (
        mapped(&world, PageMode::Small),
        mapped(&world, PageMode::Thp),
    );
    assert!(small < before, "{before} and {small} on small pages");
    assert!(huge >= 3, "{huge} on hugepages");
    world.is_valid();
    let mut caches = others;
    caches.push(cache);
    world.end(caches);
}

/// At a limit, and where the system gives no more, each serves the other.
#[test]
fn all_that_is_there_serves_when_memory_ends() {
    for limit in [false, true] {
        let config = if limit { THP.limit(24 << 20) } else { THP };
        let (mut world, cache) = new(config);
        blocks(&mut world, cache, 1024, 4);
        blocks(&mut world, cache, 300_000, 1);
        if !limit {
            world.fake.fail_only(Call::Map);
            world.fake.fail_from(0);
        }
        let mut last = Vec::new();
        while let Some(block) = world.alloc(cache, 1024, 1) {
            last.push(block);
        }
        let nodes = &world.arena.nodes()[0];
        let free = nodes.pages().free_bytes();
        assert_eq!(free, 0, "limit: {limit}");
        let nursed = last.iter().filter(|&&block| place(&world, block).1).count();
        assert!(nursed > 1000, "{nursed} blocks where nurseries were");
        world.fake.heal();
        world.is_valid();
        world.end([cache].into());
    }
}
