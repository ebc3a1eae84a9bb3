//! Runs that were freed and shelved, behind a fake system.
#![allow(unsafe_code)] // Frees runs, writes to them and gives arenas back.

use crate::config::{Config, Pages};
use crate::geometry::{NodeIndex, SLOTS, SUPER, SlotId};
use crate::pool::describe::Part;
use crate::pool::supers::Taker;
use crate::pool::{Arena, Node, faked};
use theap_platform::Fake;

const MIB: usize = 1 << 20;
const MS: u64 = 1_000_000;
const CONFIG: Config = Config::new()
    .address_space(256 * MIB)
    .pages(Pages::Small)
    .retain(64 * MIB)
    .decay(1000);

struct World {
    fake: &'static Fake,
    arena: &'static Arena,
    node: &'static Node,
}

impl World {
    /// Asserts that words, hints and holes agree with each other.
    fn agrees(&self) {
        let pages = self.node.pages();
        let mut supers = pages.mapped_supers();
        assert!(supers.all(|i| self.node.supers().keeps_promise(i)));
        assert!(pages.counts_holes());
    }

    fn new(config: Config) -> Self {
        let (fake, arena) = faked::arena(config, |fake| fake.set_now(MS));
        let node = &arena.nodes()[0];
        Self { fake, arena, node }
    }

    fn get(&self, bytes: usize) -> (*mut u8, bool) {
        let run = self.arena.runs().acquire(NodeIndex(0), bytes, 1);
        run.expect("a run")
    }

    fn slot(&self, run: *mut u8) -> SlotId {
        self.arena.addresses().slot_of(run as usize)
    }

    /// Frees a run. Whether it was one.
    fn free(&self, run: *mut u8) -> bool {
        // SAFETY: a run of these tests, which use it no more.
        unsafe { self.arena.runs().release(self.slot(run)) }
    }

    fn check(&self, shelved: usize) {
        assert_eq!(self.node.pages().shelved(), shelved / (SUPER / SLOTS));
        // SAFETY: no other thread is there.
        unsafe { self.arena.is_valid(0) }.expect("a valid arena");
    }

    fn mapped(&self) -> usize {
        self.node.pages().mapped_count()
    }

    fn end(self) {
        self.check(self.node.pages().shelved() * (SUPER / SLOTS));
        let arena: *const Arena = self.arena;
        // SAFETY: nobody uses the arena any more, and no heap ever did.
        unsafe { Arena::destroy(arena) };
    }
}

#[test]
fn a_freed_run_serves_again_and_is_not_zero() {
    let world = World::new(CONFIG);
    let (free, _) = world.get(4 * MIB);
    let (run, zero) = world.get(3 * MIB);
    assert!(zero && world.free(free));
    world.arena.sweep();
    // SAFETY: the run's first byte.
    unsafe { run.write(1) };
    assert_eq!(world.arena.runs().bytes_at(run as usize), Some(3 * MIB));
    assert!(world.free(run));
    world.check(3 * MIB);
    assert_eq!(world.arena.runs().bytes_at(run as usize), None);
    let at = world.arena.describe(run as usize).expect("the heap's");
    assert!(matches!(at.part, Part::Nothing));
    assert!(!world.free(run), "a second free is found");
    let stats = world.node.lists().counted_slots();
    assert_eq!(stats, 0, "nobody holds it");
    // What needs as many SuperSlabs is served.
    assert_eq!(world.get(3 * MIB - 300_000), (run, false));
    let bytes = world.arena.runs().bytes_at(run as usize);
    assert_eq!(bytes, Some(44 * (SUPER / SLOTS)), "the rest is cut off");
    world.check(0);
    assert!(world.free(run));
    world.check(44 * (SUPER / SLOTS));
    // For another length the lowest room serves, and what is shelved joins its neighbours.
    assert_eq!(world.get(4 * MIB), (free, false));
    world.check(0);
    assert!(world.free(free));
    // At a multiple of 4 MiB lies one of two neighbours.
    let aligned = world.arena.runs().acquire(NodeIndex(0), 3 * MIB, 4 * MIB);
    let (aligned, _) = aligned.expect("a run");
    assert!((aligned as usize).is_multiple_of(4 * MIB));
    assert!(world.free(aligned));
    world.end();
}

#[test]
fn shelved_runs_serve_before_the_node_grows() {
    let world = World::new(CONFIG.limit(64 * MIB));
    let runs = [(); 6].map(|()| world.get(4 * MIB).0);
    let mapped = world.mapped();
    runs.into_iter().for_each(|run| assert!(world.free(run)));
    world.check(24 * MIB);
    let (large, _) = world.get(24 * MIB);
    world.check(0);
    assert!(world.free(large));
    world.check(24 * MIB);
    for _ in 0..12 {
        let found = world.node.acquire_slots(SLOTS, 1, Taker::Thread);
        // The test keeps them.
        assert_eq!(found.expect("slots").0.len(), SLOTS);
    }
    assert_eq!(world.mapped(), mapped, "nothing grew");
    assert_eq!(world.node.pages().shelved(), 0);
}

#[test]
fn a_node_grows_by_what_is_missing_at_its_end() {
    let world = World::new(CONFIG);
    let (stays, _) = world.get(4 * MIB);
    let (end, _) = world.get(8 * MIB);
    assert!(world.free(end));
    let mapped = world.mapped();
    assert_eq!(world.get(20 * MIB), (end, false));
    assert_eq!(world.mapped(), mapped + 6, "12 MiB");
    // Aligned: the end of the heap from the next multiple on.
    assert!(world.free(end));
    let (runs, bytes, align) = (world.arena.runs(), 40 * MIB, 16 * MIB);
    let (run, _) = runs.acquire(NodeIndex(0), bytes, align).expect("a run");
    assert!((run as usize).is_multiple_of(align));
    assert!(run as usize >= end as usize && run as usize <= end as usize + 16 * MIB);
    assert!(world.free(run) && world.free(stays));
    world.arena.sweep();
    world.agrees();
    world.end();
}

#[test]
fn runs_of_many_words_are_found_again() {
    let world = World::new(CONFIG.address_space(8192 * MIB).retain(1 << 40));
    // Across bounds of words, with ends in the middle of a SuperSlab.
    let sizes = [MIB * 61 / 2, 127 * MIB, 129 * MIB, 300 * MIB + 5, 3 * MIB];
    let mut random = 1_u64;
    let mut held: Vec<(*mut u8, usize)> = Vec::new();
    for _ in 0..400 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let draw = (random >> 33) as usize;
        if held.len() > 6 || (draw.is_multiple_of(3) && !held.is_empty()) {
            assert!(world.free(held.swap_remove(draw / 3 % held.len()).0));
        } else {
            let bytes = sizes[draw / 3 % sizes.len()];
            let (run, _) = world.get(bytes);
            let (start, end) = (run as usize, run as usize + bytes);
            let apart =
                |&(at, len): &(*mut u8, usize)| end <= at as usize || at as usize + len <= start;
            assert!(held.iter().all(apart), "two runs in one place");
            held.push((run, bytes));
        }
        world.agrees();
    }
    held.into_iter()
        .for_each(|(run, _)| assert!(world.free(run)));
    world.end();
}

#[test]
fn a_run_grows_into_a_shelved_neighbour() {
    let world = World::new(CONFIG);
    let [one, next] = [(); 2].map(|()| world.get(4 * MIB).0);
    assert_eq!(next as usize, one as usize + 4 * MIB);
    assert!(world.free(next));
    // SAFETY: the run is the test's.
    assert!(unsafe { world.arena.runs().resize(world.slot(one), 7 * MIB) });
    world.check(0);
    assert!(world.free(one));
    world.check(7 * MIB);
    world.end();
}

#[test]
fn the_shelf_is_bounded_and_decays() {
    let world = World::new(CONFIG);
    let runs = [(); 5].map(|()| world.get(20 * MIB).0);
    runs.into_iter().for_each(|run| assert!(world.free(run)));
    world.check(60 * MIB);
    let warm = world.node.supers().warm();
    assert!(warm <= 32 * SLOTS, "the node retains 64 MiB: {warm}");
    // What is idle goes back as other free memory does, down to the floor.
    for nth in 0..80 {
        world.fake.set_now(MS + nth * 31 * MS);
        world.node.pages().end_period(MS + nth * 31 * MS);
    }
    world.check(0);
    let (run, _) = world.get(8 * MIB);
    assert!(world.free(run));
    world.check(8 * MIB);
    assert!(world.node.purge() > 0);
    world.check(0);
    let (run, zero) = world.get(8 * MIB);
    assert!(zero && world.free(run));
    world.arena.sweep();
    world.check(0);
    world.end();
}

#[test]
fn a_node_that_retains_nothing_shelves_nothing() {
    let world = World::new(CONFIG.retain(0));
    let (run, _) = world.get(8 * MIB);
    assert!(world.free(run));
    world.check(0);
    let (again, zero) = world.get(8 * MIB);
    assert!(zero && world.free(again));
    world.end();
}
