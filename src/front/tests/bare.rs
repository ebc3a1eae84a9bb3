//! The metadata of SuperSlabs without memory goes back with it, where it lies on hugepages.
#![allow(unsafe_code)] // Looks at metadata.

use super::{OWN, World};
use crate::config::Pages;
use crate::front::handle::Handle;
use crate::geometry::{SLOTS, SuperId};
use std::vec;
use std::vec::Vec;
use theap_platform::Call;

/// SuperSlabs that are filled with spans: the metadata of some is in the second 2 MiB.
const SUPERS: u32 = 70;
/// One of which the metadata is in the first 2 MiB, and one in the second.
const AMONG: [u32; 2] = [30, 65];

/// A heap of so many full SuperSlabs.
fn filled() -> (World, Handle) {
    let config = OWN.address_space(512 << 20).pages(Pages::Thp);
    let mut world = World::new(config, |_| {}).expect("an arena");
    let cache = world.cache().expect("a cache");
    fill(&mut world, cache);
    (world, cache)
}

fn fill(world: &mut World, cache: Handle) {
    for _ in 0..SUPERS * SLOTS as u32 {
        world.alloc(cache, 60_000, 1).expect("memory");
    }
}

/// Frees all blocks but those that begin at these addresses, and purges.
fn purge(world: &mut World, cache: Handle, but: &[usize]) {
    let freed: Vec<_> = (world.live().keys().copied())
        .filter(|at| !but.contains(at))
        .collect();
    freed.into_iter().for_each(|at| world.free(cache, at));
    cache.with(|cache| cache.collect());
    world.arena.purge();
}

/// Tells of each of these SuperSlabs whether its metadata has something of the spans that it had.
fn remembers(world: &World) -> [bool; 2] {
    AMONG.map(|id| {
        // SAFETY: the SuperSlab was mapped.
        let meta = unsafe { world.arena.metadata().of(SuperId(id)) };
        meta.spans.iter().any(|span| span.class.get() != 0)
    })
}

#[test]
fn metadata_goes_with_the_memory() {
    let (mut world, cache) = filled();
    assert_eq!(remembers(&world), [true, true]);
    purge(&mut world, cache, &[]);
    assert_eq!(remembers(&world), [false, false]);
    world.is_valid();
    fill(&mut world, cache);
    world.is_valid();
    world.end(vec![cache]);
}

#[test]
fn metadata_beside_a_live_block_stays() {
    let (mut world, cache) = filled();
    let addresses = world.arena.addresses();
    let stays = *(world.live().keys())
        .find(|&&at| addresses.slot_of(at).split().0 == SuperId(AMONG[0] + 1))
        .expect("a block there");
    purge(&mut world, cache, &[stays]);
    assert_eq!(remembers(&world), [true, false]);
    world.is_valid();
    world.end(vec![cache]);
}

#[test]
fn metadata_stays_where_the_system_refuses() {
    let (mut world, cache) = filled();
    world.fake.fail_only(Call::Purge);
    world.fake.fail_from(0);
    purge(&mut world, cache, &[]);
    assert_eq!(remembers(&world), [true, true]);
    world.fake.heal();
    world.is_valid();
    world.arena.purge();
    assert_eq!(remembers(&world), [false, false]);
    world.is_valid();
    world.end(vec![cache]);
}
