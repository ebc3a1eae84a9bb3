//! Several NUMA nodes and changing CPUs, by a pretended topology.
#![allow(unsafe_code)] // Writes a whole block.

use super::super::follow::PATIENCE;
use super::world::topology;
use super::{OWN, SIZES, SMALL, World, op, scenario};
use crate::config::{Config, Numa};
use crate::front::handle::Handle;
use crate::geometry::{NodeIndex, SLOT, SUPER};
use crate::placement::Placement;
use proptest::prelude::*;
use std::vec::Vec;
use theap_platform::{Call, Error, PageMode};

fn world(config: Config, parts: &[(u32, u32, u8)]) -> World {
    World::new(config, |fake| fake.set_topology(topology(parts))).expect("an arena")
}

fn two_nodes(config: Config) -> World {
    world(config, &[(0, 1, 0), (2, 3, 1)])
}

impl World {
    fn node_of(&self, block: usize) -> usize {
        let addresses = self.arena.addresses();
        addresses.node_of(addresses.slot_of(block)).index()
    }

    fn cache_on(&self, cpu: u32) -> Handle {
        self.fake.set_cpu(cpu);
        self.cache().expect("a cache")
    }

    /// Takes slow paths until the cache has had the chance to follow its thread: each empties the
    /// magazine.
    fn refills(&mut self, cache: Handle, count: u32) -> Vec<usize> {
        let mut blocks = Vec::new();
        for _ in 0..count {
            let before = cache.counters().refills.get();
            while cache.counters().refills.get() == before {
                blocks.push(self.alloc(cache, 4096, 1).expect("memory"));
            }
        }
        blocks
    }
}

#[test]
fn each_node_has_its_part_and_blocks_go_home() {
    let mut world = two_nodes(SMALL.address_space(4 << 30));
    assert_eq!(world.arena.addresses().node_count(), 2);
    let near = world.cache_on(0);
    let far = world.cache_on(3);
    let mut blocks = Vec::new();
    for &size in SIZES.iter().cycle().take(300) {
        for (node, cache) in [near, far].into_iter().enumerate() {
            world.fake.set_cpu(3 * node as u32);
            let block = world.alloc(cache, size, 1).expect("memory");
            assert_eq!(world.node_of(block), node);
            assert_eq!(
                world.fake.bound(block).map(|id| usize::from(id.0)),
                Some(node)
            );
            let (super_id, _) = world.arena.addresses().slot_of(block).split();
            let (metadata, _) = world.arena.metadata().range(super_id, 1);
            assert_eq!(world.fake.bound(metadata), world.fake.bound(block));
            blocks.push((node, block));
        }
    }
    // Everyone frees the other one's: no block stays in a magazine of the wrong node.
    for (node, block) in blocks {
        world.free(if node == 0 { far } else { near }, block);
    }
    world.fake.set_cpu(0);
    for &size in SIZES.iter().filter(|&&size| size <= 1024) {
        let block = world.alloc(near, size, 1).expect("memory");
        assert_eq!(world.node_of(block), 0);
    }
    world.end([near, far].into());
}

#[test]
fn a_full_node_takes_from_the_other() {
    let mut world = two_nodes(SMALL.messages(false));
    let cache = world.cache_on(0);
    let mut nodes = [0; 2];
    while let Some(block) = world.alloc(cache, 200_000, 1) {
        nodes[world.node_of(block)] += 1;
    }
    assert!(nodes[0] > 200 && nodes[1] > 200, "{nodes:?}");
    assert!(cache.counters().stage_remote.get() > 0);
    world.end([cache].into());
}

#[test]
fn off_is_one_part_that_is_bound_to_nothing() {
    let mut world = two_nodes(SMALL.numa(Numa::Off));
    assert_eq!(world.arena.addresses().node_count(), 1);
    let cache = world.cache_on(3);
    let block = world.alloc(cache, 5 << 20, 1).expect("memory");
    assert_eq!(world.fake.bound(block), None);
    world.end([cache].into());
}

#[test]
fn interleave_binds_superslabs_in_turn() {
    let config = SMALL.numa(Numa::Interleave).address_space(1 << 30);
    let mut world = world(config, &[(0, 0, 2), (7, 7, 5), (8, 9, 30)]);
    assert_eq!(world.arena.addresses().node_count(), 1);
    let (here, there) = (world.cache_on(0), world.cache_on(8));
    let base = world.arena.addresses().part(NodeIndex(0)).0;
    let expected = |address: usize| Some([2, 5, 30][(address - base) / SUPER % 3]);
    for (i, &size) in SIZES.iter().cycle().take(600).enumerate() {
        let cache = if i % 2 == 0 { here } else { there };
        let block = world.alloc(cache, size, 1).expect("memory");
        assert_eq!(world.fake.bound(block).map(|id| id.0), expected(block));
    }
    // A huge run lies on all nodes.
    let run = world.alloc(here, 20 << 20, 1).expect("memory");
    for address in (run..run + (20 << 20)).step_by(SUPER) {
        assert_eq!(world.fake.bound(address).map(|id| id.0), expected(address));
    }
    world.free(there, run);
    let again = world.alloc(there, 20 << 20, 1).expect("memory");
    assert_eq!(again, run, "room is used again by whoever needs it");
    world.end([here, there].into());
}

#[test]
fn each_call_fails_at_each_position_on_several_nodes() {
    for numa in [Numa::Local, Numa::Interleave] {
        for lasting in [false, true] {
            for position in (0..).step_by(if lasting { 23 } else { 13 }) {
                let made = World::new(SMALL.numa(numa).messages(false), |fake| {
                    fake.set_topology(topology(&[(0, 1, 0), (2, 3, 1)]));
                    if lasting {
                        fake.fail_from(position)
                    } else {
                        fake.fail_nth(position)
                    }
                });
                let Ok(world) = made else { continue };
                let fake = world.fake;
                scenario(world);
                if fake.calls() <= position {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_failing_huge_run_gives_its_addresses_back() {
    let mut world = two_nodes(SMALL.numa(Numa::Interleave).messages(false));
    let cache = world.cache_on(0);
    world.alloc(cache, 5 << 20, 1).expect("memory");
    // More often than the range would hold it. The fourth SuperSlab fails to map, and three stay,
    // free.
    for _ in 0..8 {
        world.fake.fail_only(Call::Map);
        world.fake.fail_nth(3);
        let run = world.alloc(cache, 60 << 20, 1).expect("a run elsewhere");
        assert!(!world.arena.addresses().contains(run));
        world.free(cache, run);
    }
    world.fake.heal();
    let run = world.alloc(cache, 60 << 20, 1).expect("memory");
    assert!(world.arena.addresses().contains(run));
    world.end([cache].into());
}

#[test]
fn a_thread_that_moves_takes_memory_of_its_new_node() {
    let mut world = two_nodes(SMALL.address_space(1 << 30));
    let cache = world.cache_on(0);
    let before: Vec<_> = SIZES
        .iter()
        .map(|&size| world.alloc(cache, size, 1).expect("memory"))
        .collect();
    let mut kept = world.refills(cache, 3);
    let freed = kept.split_off(kept.len() / 2);
    freed.into_iter().for_each(|block| world.free(cache, block));
    world.fake.set_cpu(2);
    kept.extend(world.refills(cache, PATIENCE - 1));
    assert_eq!(cache.node(), NodeIndex(0), "not at once");
    assert!(kept.iter().all(|&block| world.node_of(block) == 0));
    let moved = world.refills(cache, 1);
    assert_eq!(cache.node(), NodeIndex(1));
    assert_eq!(world.node_of(moved[moved.len() - 1]), 1);
    assert_eq!(cache.counters().node_moves.get(), 1);
    world.is_valid();
    for &size in &SIZES {
        let block = world.alloc(cache, size, 1).expect("memory");
        assert_eq!(world.node_of(block), 1, "{size} bytes");
    }
    // What it has of its old node goes home, though it was the last owner of these spans: it never
    // gets it again.
    kept.into_iter()
        .chain(before)
        .for_each(|block| world.free(cache, block));
    for block in world.refills(cache, 30) {
        assert_eq!(world.node_of(block), 1);
    }
    let stayer = world.cache_on(1);
    let active = world.active();
    let block = world.refills(stayer, 1)[0];
    // The first batches come from a nursery. What was wholly free is slots again.
    assert_eq!(
        (
            world.node_of(block),
            world.active() <= active + 2 * SLOT as u64
        ),
        (0, true),
        "the old node's spans serve whoever is there"
    );
    world.end([cache, stayer].into());
}

#[test]
fn a_thread_that_bounces_stays() {
    let mut world = two_nodes(SMALL.address_space(1 << 30));
    let cache = world.cache_on(0);
    for round in 0..40 {
        world.fake.set_cpu(2 + round % 2);
        let blocks = world.refills(cache, PATIENCE / 2);
        world.fake.set_cpu(0);
        let more = world.refills(cache, 1);
        for block in blocks.into_iter().chain(more) {
            assert_eq!(world.node_of(block), 0);
            world.free(cache, block);
        }
    }
    assert_eq!(cache.counters().node_moves.get(), 0);
    world.end([cache].into());
}

#[test]
fn a_moving_thread_is_followed_for_ever() {
    let mut world = two_nodes(SMALL.magazine(4096));
    let mut cache = world.cache_on(0);
    let other = world.cache_on(3);
    for round in 0..30 {
        let cpu = if round % 2 == 0 { 3 } else { 0 };
        world.fake.set_cpu(cpu);
        for block in world.refills(cache, PATIENCE) {
            // Some by another thread, some of them only after the next move.
            match block / 4096 % 3 {
                0 => world.free(cache, block),
                1 => world.free(other, block),
                _ => {}
            }
        }
        assert_eq!(cache.node(), NodeIndex(u8::from(cpu == 3)));
        world.is_valid();
        let live = world.live().len();
        let held: Vec<_> = world.live().keys().copied().take(live * 2 / 3).collect();
        held.into_iter().for_each(|block| world.free(cache, block));
        if round % 7 == 6 {
            cache.end();
            cache = world.cache().expect("a cache");
        }
    }
    world.end([cache, other].into());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_lives_on_several_nodes_lose_nothing(
        ops in prop::collection::vec((op(), 0u32..4), 1..super::LIFE),
        interleave in any::<bool>(),
    ) {
        let numa = if interleave { Numa::Interleave } else { Numa::Local };
        let mut world = two_nodes(SMALL.numa(numa).magazine(1024).messages(false));
        let mut caches: Vec<_> = (0..3).map(|cpu| world.cache_on(cpu)).collect();
        // Each thread stays on a CPU for a while, and all move now and then.
        for (i, (op, cpu)) in ops.into_iter().enumerate() {
            world.fake.set_cpu((cpu % 2 + (i / 200) as u32) % 4);
            world.apply(op, &mut caches);
            world.is_valid();
        }
        world.end(caches);
    }
}

#[test]
fn cpus_that_come_online_later_are_learned() {
    // CPUs 4 to 11 are possible, but offline at the start; so is node 3, of which nothing is known.
    let mut world = world(SMALL, &[(0, 1, 0), (12, 12, 1)]);
    world.fake.set_place(5, 1);
    let cache = world.cache().expect("a cache");
    assert_eq!(cache.node(), NodeIndex(1));
    let block = world.alloc(cache, 64, 1).expect("memory");
    assert_eq!(world.node_of(block), 1);
    // Learned once: what a CPU belongs to does not change.
    world.fake.set_place(5, 0);
    assert_eq!(world.arena.affinity().current_node(), Some(NodeIndex(1)));
    world.fake.set_place(6, 3);
    assert_eq!(
        world.arena.affinity().current_node(),
        Some(NodeIndex(0)),
        "an unknown node's CPUs are at home on the first"
    );
    // Beyond what was possible at start: no stash of its own, no place to note its node.
    world.fake.set_place(5000, 1);
    assert_eq!(world.arena.affinity().current_node(), Some(NodeIndex(1)));
    for block in world.refills(cache, 100) {
        assert_eq!(world.node_of(block), 1);
        world.free(cache, block);
    }
    cache.with(|cache| cache.heap.retire());
    // A sealed heap does not ask, and whoever is on such a CPU stays where it is.
    world.arena.set_sealed(true);
    world.fake.set_place(7, 0);
    assert_eq!(world.arena.affinity().current_node(), None);
    world.refills(cache, PATIENCE + 1);
    assert_eq!(cache.node(), NodeIndex(1));
    world.arena.set_sealed(false);
    world.refills(cache, PATIENCE);
    assert_eq!(cache.node(), NodeIndex(0));
    world.end([cache].into());
}

#[test]
fn what_an_unplugged_cpu_has_in_its_stash_is_found_on_its_node() {
    let mut world = world(
        OWN.address_space(1 << 30),
        &[(0, 0, 4), (40, 40, 9), (4095, 4095, 9)],
    );
    let owner = world.cache_on(4095);
    // 1 KiB: 64 blocks a span; they run full and are left to nobody.
    let blocks: Vec<_> = (0..256)
        .map(|_| world.alloc(owner, 1024, 1).expect("memory"))
        .collect();
    let freer = world.cache_on(4095);
    blocks
        .iter()
        .step_by(2)
        .for_each(|&block| world.free(freer, block));
    freer.flush();
    // From here on nobody runs on CPU 4095 any more.
    let away = world.cache_on(0);
    let block = world.alloc(away, 1024, 1).expect("memory");
    assert_eq!(world.node_of(block), 0, "not for another node");
    let active = world.active();
    let taker = world.cache_on(40);
    // The last span is its owner's still.
    for _ in 0..96 {
        let block = world.alloc(taker, 1024, 1).expect("memory");
        assert_eq!(world.node_of(block), 1);
    }
    assert!(
        world.active() == active || cfg!(not(feature = "shared-pool")),
        "memory grew"
    );
    world.end([owner, freer, away, taker].into());
}

#[test]
fn placement_tells_what_is_bound_and_where_it_lies() {
    let mut world = two_nodes(SMALL.address_space(1 << 30));
    let rows = |world: &World| {
        let placement = Placement::gather(world.arena).expect("a kernel with NUMA");
        let row = |row: &crate::NodePlacement| (row.node, row.bound, row.resident, row.strayed);
        placement.nodes().iter().map(row).collect::<Vec<_>>()
    };
    assert_eq!(rows(&world), [(0, 0, 0, 0), (1, 0, 0, 0)]);
    let near = world.cache_on(0);
    let far = world.cache_on(2);
    let fill = |world: &mut World, cache: Handle, bytes: usize| {
        let block = world.alloc(cache, bytes, 1).expect("memory");
        // SAFETY: a live block of this size; the ends are the world's marks.
        unsafe { core::slice::from_raw_parts_mut((block + 1) as *mut u8, bytes - 2).fill(1) };
    };
    fill(&mut world, near, 1 << 20);
    // The kernel refuses the binding of what node 1 gets next: it lies wherever, here on node 0.
    world.fake.fail_only(Call::Bind);
    world.fake.fail_from(0);
    fill(&mut world, far, 2 << 20);
    world.fake.heal();
    let super_bytes = SUPER as u64;
    assert_eq!(
        rows(&world),
        [(0, super_bytes, 3 << 20, 0), (1, super_bytes, 0, 2 << 20)]
    );
    world.end([near, far].into());
}

#[test]
fn a_refused_binding_does_not_cost_memory() {
    for error in [Error::Other(1), Error::Other(38)] {
        let mut world = two_nodes(SMALL);
        world.fake.fail_only(Call::Bind);
        world.fake.fail_with(error);
        world.fake.fail_from(0);
        let cache = world.cache_on(2);
        for &size in SIZES.iter().cycle().take(100) {
            let block = world.alloc(cache, size, 1).expect("memory");
            assert_eq!((world.node_of(block), world.fake.bound(block)), (1, None));
        }
        assert!(world.arena.nodes()[1].pages().mapped_bytes(PageMode::Small) > 0);
        world.end([cache].into());
    }
}
