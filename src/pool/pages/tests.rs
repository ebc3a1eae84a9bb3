//! Growth behind a fake system: a step is mapped at once, and its SuperSlabs are used one by one.
#![allow(unsafe_code)] // Gives arenas and runs back.

use crate::config::{Config, Pages, Prefault};
use crate::geometry::{NodeIndex, NodeSuper, SUPER, SlotId};
use crate::pool::{Arena, Node, faked};
use std::vec::Vec;
use theap_platform::{Call, Fake};

const CONFIG: Config = Config::new()
    .address_space(256 << 20)
    .pages(Pages::Small)
    .messages(false)
    .growth(16 * SUPER)
    .retain(64 << 20);

fn world(config: Config) -> (&'static Fake, &'static Arena, &'static Node) {
    let (fake, arena) = faked::arena(config, |_| ());
    (fake, arena, &arena.nodes()[0])
}

/// Allocates so many SuperSlabs. The first slot.
fn take(arena: &Arena, supers: usize) -> Option<SlotId> {
    let (address, _) = (arena.runs()).acquire(NodeIndex(0), supers * SUPER, 1)?;
    Some(arena.addresses().slot_of(address as usize))
}

/// Frees runs and gives the arena back. A pointer: a reference would be an argument of this running
/// function.
fn end(arena: *const Arena, runs: Vec<SlotId>) {
    // SAFETY: nobody uses the arena any more, no heap ever did, and each run is live.
    unsafe {
        (runs.into_iter()).for_each(|run| assert!((*arena).runs().release(run)));
        (*arena).is_valid(0).expect("a valid arena");
        Arena::destroy(arena);
    }
}

#[test]
fn a_step_is_mapped_at_once_and_used_one_by_one() {
    let (fake, arena, node) = world(CONFIG);
    let (pages, charged) = (node.pages(), || arena.policy().limit().mapped());
    let mut runs = Vec::new();
    let mut steps = Vec::new();
    for used in 1..=20 {
        let (before, frontier) = (charged(), pages.frontier().index());
        let calls = fake.calls();
        runs.push(take(arena, 1).expect("memory"));
        assert_eq!((pages.mapped_count(), pages.free_bytes()), (used, 0));
        assert_eq!(pages.frontier().index(), used + pages.spare.count());
        let step = pages.frontier().index() - frontier;
        if step > 0 {
            steps.push(step);
        } else {
            assert_eq!(charged(), before, "what is spare counts");
            assert_eq!(fake.calls(), calls, "a spare SuperSlab takes no call");
        }
    }
    assert_eq!(steps, [1, 1, 2, 4, 8, 16]);
    end(arena, runs);
}

#[test]
fn with_prefaulting_one_is_populated_at_a_time() {
    let (fake, arena, node) = world(CONFIG.prefault(Prefault::Grow));
    let mut runs = Vec::new();
    for used in 1..=12 {
        let calls = fake.calls();
        runs.push(take(arena, 1).expect("memory"));
        assert!(node.pages().is_populated(NodeSuper(used - 1)));
        if !used.is_power_of_two() && used != 3 && !(used - 1).is_power_of_two() {
            assert_eq!(
                fake.calls() - calls,
                1,
                "one is populated, as no step begins"
            );
        }
    }
    // What cannot be populated serves all the same, but is not noted as such.
    fake.fail_only(Call::Populate);
    fake.fail_from(0);
    runs.push(take(arena, 1).expect("memory"));
    assert_eq!(fake.failed(), 1);
    assert!(!node.pages().is_populated(NodeSuper(12)));
    end(arena, runs);
}

#[test]
fn what_is_spare_goes_with_a_purge() {
    let (fake, arena, node) = world(CONFIG);
    let pages = node.pages();
    let mut runs: Vec<_> = (0..5).map(|_| take(arena, 1).expect("memory")).collect();
    assert_eq!(pages.spare.count(), 3);
    // Where the system refuses, it stays.
    fake.fail_only(Call::Unmap);
    fake.fail_from(0);
    arena.purge();
    assert_eq!((pages.spare.count(), fake.failed()), (3, 1));
    fake.heal();
    arena.set_sealed(true);
    arena.purge();
    assert_eq!(pages.spare.count(), 3, "a sealed heap makes no call");
    assert_eq!(take(arena, 1), None, "nor does it grow");
    arena.set_sealed(false);
    arena.purge();
    assert_eq!((pages.spare.count(), pages.frontier()), (0, NodeSuper(5)));
    runs.extend((0..12).map(|_| take(arena, 1).expect("memory")));
    end(arena, runs);
}

/// A run of several SuperSlabs is mapped behind what is spare, which then leaves holes.
#[test]
fn a_huge_run_leaves_what_is_spare_alone() {
    let (_, arena, node) = world(CONFIG);
    let mut runs: Vec<_> = (0..5).map(|_| take(arena, 1).expect("memory")).collect();
    runs.push(take(arena, 3).expect("memory"));
    let pages = node.pages();
    assert_eq!((pages.spare.count(), pages.frontier()), (3, NodeSuper(11)));
    node.unmap_free();
    assert_eq!((pages.spare.count(), pages.frontier()), (0, NodeSuper(11)));
    // SAFETY: nobody is inside the allocator.
    unsafe { arena.is_valid(0).expect("holes are counted") };
    runs.push(take(arena, 3).expect("memory"));
    assert_eq!(pages.frontier(), NodeSuper(11), "the holes serve");
    end(arena, runs);
}

/// What is spare counts against the limit of the heap, and makes way for what needs its room.
#[test]
fn what_is_spare_makes_way_at_the_limit() {
    let limit = 12 * SUPER;
    let (_, arena, node) = world(CONFIG.limit(limit));
    let mut runs = Vec::new();
    while let Some(run) = take(arena, 1) {
        runs.push(run);
        assert!(arena.policy().limit().mapped() <= limit);
    }
    let charged = arena.policy().limit().mapped();
    assert!(limit - charged < SUPER, "{charged} of {limit} are used");
    assert_eq!(node.pages().mapped_count(), runs.len());
    end(arena, runs);

    let (_, arena, node) = world(CONFIG.limit(limit));
    let mut runs: Vec<_> = (0..5).map(|_| take(arena, 1).expect("memory")).collect();
    assert_eq!(node.pages().spare.count(), 3);
    runs.push(take(arena, 5).expect("the room of what is spare"));
    assert_eq!(node.pages().spare.count(), 0);
    assert!(arena.policy().limit().mapped() <= limit);
    end(arena, runs);
}
