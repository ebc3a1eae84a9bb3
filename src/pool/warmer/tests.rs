//! The warmer behind a fake system, step by step and with its own clock; and its arithmetic.
#![allow(unsafe_code)] // Gives arenas back, and acts as a fork does.

use super::pace::{Limits, Pace, Sight};
use crate::config::Prefault;
use crate::config::{Config, Pages};
use crate::geometry::SUPER;
use crate::geometry::{NodeIndex, NodeSuper, SLOT, SLOTS, SlotId};
use crate::pool::spans::Stage;
use crate::pool::supers::Taker;
use crate::pool::{Arena, Node, faked};
use core::sync::atomic::Ordering;
use std::vec::Vec;
use theap_platform::{Call, Error, Fake, PageMode};

const MIB: usize = 1 << 20;
const MS: u64 = 1_000_000;
const CONFIG: Config = Config::new()
    .address_space(256 * MIB)
    .pages(Pages::Small)
    .prefault(Prefault::Ahead)
    .ahead(16 * MIB)
    .retain(0)
    .decay(1000);

fn world(config: Config) -> (&'static Fake, &'static Arena, &'static Node) {
    let (fake, arena) = faked::arena(config, |fake| fake.set_now(MS));
    (fake, arena, &arena.nodes()[0])
}

/// Allocates a SuperSlab. Its first slot.
fn take(arena: &Arena) -> Option<SlotId> {
    let (address, _) = arena.runs().acquire(NodeIndex(0), SUPER, 1)?;
    Some(arena.addresses().slot_of(address as usize))
}

/// Steps until the warmer wants to sleep. The nanoseconds for which it does.
fn settle(node: &'static Node) -> u64 {
    (0..1000)
        .map(|_| node.warmer().step())
        .find(|&ns| ns > 0)
        .expect("the warmer comes to rest")
}

fn stock(node: &Node) -> usize {
    node.warmer().board.stock.load(Ordering::Relaxed) as usize / MIB
}

/// Gives the arena back. A pointer: a reference would be an argument of this running function.
fn end(arena: *const Arena) {
    // SAFETY: nobody uses the arena any more, and no heap ever did.
    unsafe {
        (*arena).is_valid(0).expect("a valid arena");
        Arena::destroy(arena);
    }
}

/// Frees a run that `take` took.
fn give_back(arena: &Arena, slot: SlotId) {
    // SAFETY: the tests write into no run, and free each once.
    assert!(unsafe { arena.runs().release(slot) });
}

#[test]
fn the_stock_comes_to_be_and_is_taken_from() {
    let (_, arena, node) = world(CONFIG.retain(64 * MIB));
    let first = take(arena).unwrap();
    let sleep = settle(node);
    assert_eq!(stock(node), 16);
    assert!((MS..=16 * MS).contains(&sleep), "half of 16 MiB at 1 GiB/s");
    let mapped = node.pages().frontier();
    let (run, stage) = node.acquire_slots(SLOTS, 1, Taker::Thread).unwrap();
    assert_eq!(stage, Stage::Prepared);
    node.pages().release_slots(run);
    (0..8).for_each(|_| assert!(take(arena).is_some()));
    assert_eq!(node.pages().frontier(), mapped, "nothing grew");
    settle(node);
    assert!(stock(node) >= 16);
    give_back(arena, first);
    end(arena);
}

#[test]
fn growth_beyond_the_first_superslab_starts_it_and_seal_ends_it() {
    let (_, arena, node) = world(CONFIG);
    let starts = || node.warmer().board.warmer_starts.load(Ordering::Relaxed);
    take(arena).unwrap();
    assert!(!node.pages().has_warmer() && !node.pages().is_populated(NodeSuper(0)));
    take(arena).unwrap();
    assert!(node.pages().has_warmer() && node.pages().is_populated(NodeSuper(1)));
    arena.set_sealed(true);
    assert!(!node.pages().has_warmer());
    assert!(take(arena).is_none());
    assert_eq!(starts(), 1);
    arena.set_sealed(false);
    assert!(node.pages().has_warmer());
    // The steps of a fork, on the child's side.
    arena.before_fork();
    // SAFETY: locked above.
    unsafe {
        arena.become_child(0);
        arena.after_fork();
    }
    assert!(!node.pages().has_warmer());
    take(arena).unwrap();
    assert!(node.pages().has_warmer());
    assert_eq!(starts(), 3);
    end(arena);
}

#[test]
fn without_a_thread_growth_prefaults() {
    let (fake, arena, node) = world(CONFIG);
    fake.fail_only(Call::StartWorker);
    fake.fail_from(0);
    for _ in 0..4 {
        take(arena).unwrap();
    }
    assert!(!node.pages().has_warmer() && node.pages().is_populated(NodeSuper(3)));
    let mut text = [0; 512];
    let said = core::str::from_utf8(fake.read_stderr(&mut text)).unwrap();
    assert_eq!(said.matches("theap: no thread for the warmer").count(), 1);
    end(arena);
}

#[test]
fn what_was_free_for_the_decay_goes_back() {
    for pages in [Pages::Small, Pages::Thp] {
        let (fake, arena, node) = world(CONFIG.pages(pages));
        node.warm(100 * MIB).unwrap();
        fake.advance(1100 * MS);
        settle(node);
        assert!(stock(node) >= 100, "the program has asked for it");
        node.supers().decay().forget();
        settle(node);
        fake.advance(900 * MS);
        settle(node);
        assert!(stock(node) >= 100, "not before its time");
        fake.advance(200 * MS);
        while node.warmer().board.given_back.load(Ordering::Relaxed) < (84 * MIB) as u64 {
            assert!(node.warmer().step() > 0);
        }
        fake.advance(1100 * MS);
        (0..50).for_each(|_| assert!(node.warmer().step() > 0));
        assert_eq!(stock(node), 16);
        end(arena);
    }
}

/// Where memory is short the stock goes, and what threads have freed; later the stock comes back.
#[test]
fn where_memory_is_short_nothing_is_kept() {
    let config = CONFIG.retain(64 * MIB).soft_limit(200 * MIB);
    let (fake, arena, node) = world(config);
    let blocks: Vec<_> = (0..20).map(|_| take(arena).expect("memory")).collect();
    settle(node);
    blocks.into_iter().for_each(|slot| give_back(arena, slot));
    settle(node);
    let noted = || arena.policy().limit().take_due();
    let has_memory = || {
        node.supers()
            .whole()
            .filter(|&i| node.pages().has_memory(i))
            .count()
    };
    assert!(stock(node) >= 16 && has_memory() >= 20 && !noted());
    fake.press();
    (0..20).for_each(|_| {
        node.warmer().step();
        fake.advance(MS);
    });
    assert_eq!((stock(node), has_memory()), (0, 0));
    assert!(noted() && !noted(), "a thread of the program acts too");
    fake.advance(5000 * MS);
    settle(node);
    assert_eq!(stock(node), 0, "nothing is prepared for a while");
    fake.advance(6000 * MS);
    settle(node);
    assert_eq!(stock(node), 16);
    // Without a soft limit nobody looks.
    end(arena);
    let (fake, arena, node) = world(CONFIG.retain(64 * MIB));
    take(arena).expect("memory");
    settle(node);
    fake.press();
    settle(node);
    assert!(stock(node) >= 16 && !arena.policy().limit().is_due());
    end(arena);
}

/// Memory that threads touched in SuperSlabs after a purge goes back as well.
#[test]
fn what_threads_touched_goes_back_too() {
    let (fake, arena, node) = world(CONFIG);
    settle(node);
    let burst = || {
        let blocks: Vec<_> = (0..60).map(|_| take(arena).expect("memory")).collect();
        blocks.into_iter().for_each(|slot| give_back(arena, slot));
    };
    burst();
    node.purge();
    burst();
    let kept = || node.supers().warm() * SLOT / MIB;
    assert!(kept() >= 100, "{}", kept());
    for _ in 0..20 {
        fake.advance(1000 * MS);
        settle(node);
    }
    assert!(kept() <= 32, "{}", kept());
    end(arena);
}

/// With `background` alone the thread prepares nothing, and gives back below `retain` what nobody
/// needed for the decay: whole SuperSlabs, and free slots of others.
#[test]
fn the_background_alone_gives_back() {
    let config = CONFIG
        .prefault(Prefault::Off)
        .background(true)
        .retain(128 * MIB);
    let (fake, arena, node) = world(config);
    let blocks: Vec<_> = (0..60).map(|_| take(arena).expect("memory")).collect();
    assert_eq!(node.warmer().board.warmer_starts.load(Ordering::Relaxed), 1);
    assert!(
        !node.pages().has_warmer(),
        "growth need not leave it memory"
    );
    settle(node);
    assert_eq!(stock(node), 0, "nothing is prepared");
    // Every sixteenth one stays in use.
    let mut stay = Vec::new();
    for (k, slot) in blocks.into_iter().enumerate() {
        if k % 16 == 0 {
            stay.push(slot);
        } else {
            give_back(arena, slot);
        }
    }
    let kept = || node.supers().warm() * SLOT / MIB;
    let before = kept();
    assert!(before > 8, "{before}");
    settle(node);
    assert_eq!(kept(), before, "not before its time");
    for _ in 0..3 {
        fake.advance(1100 * MS);
        (0..50).for_each(|_| assert!(node.warmer().step() > 0));
    }
    assert!(kept() <= 4, "{} of {before}", kept());
    stay.into_iter().for_each(|slot| give_back(arena, slot));
    end(arena);
}

/// A heap on the first SuperSlabs of `auto`, of which all but the last are used up.
fn on_small_pages() -> (&'static Fake, &'static Arena, &'static Node, Vec<SlotId>) {
    let config = CONFIG.pages(Pages::Auto).retain(64 * MIB);
    let (fake, arena, node) = world(config.prefault(Prefault::Off).background(true));
    let blocks: Vec<_> = (0..3).map(|_| take(arena).expect("memory")).collect();
    let addresses = arena.addresses();
    let address = |slot: &SlotId| addresses.address_of(*slot) as *mut u8;
    // SAFETY: each is a whole SuperSlab of this test's.
    (blocks.iter().map(address)).for_each(|block| unsafe { block.write_bytes(1, SUPER) });
    let few = node
        .acquire_slots(SLOTS - 5, 1, Taker::Thread)
        .expect("slots")
        .0;
    node.pages().release_slots(few);
    (fake, arena, node, blocks)
}

/// The number of SuperSlabs that are on small pages.
fn on_small(node: &Node) -> usize {
    node.pages().mapped_bytes(PageMode::Small) as usize / SUPER
}

/// Lets so many parts of a decay pass, in each of which the warmer takes steps.
fn parts(fake: &Fake, node: &'static Node, count: usize) {
    for _ in 0..count {
        fake.advance(125 * MS);
        (0..4).for_each(|_| assert!(node.warmer().step() > 0));
    }
}

/// A heap of hugepages whose threads have used up the stock, and `count` SuperSlabs that bridge.
fn outrun(count: usize) -> (&'static Fake, &'static Arena, &'static Node, Vec<SlotId>) {
    let config = CONFIG.pages(Pages::Thp).retain(64 * MIB);
    let (fake, arena, node) = world(config.address_space(1 << 30));
    let mut blocks: Vec<_> = (0..3).map(|_| take(arena).expect("memory")).collect();
    assert_eq!(on_small(node), 1, "the warmer has not come to it yet");
    settle(node);
    assert_eq!((stock(node), on_small(node)), (16, 1));
    blocks.extend((0..8).map(|_| take(arena).expect("memory")));
    assert_eq!(on_small(node), 1, "the stock serves first");
    let (calls, frontier) = (fake.calls(), node.pages().frontier());
    blocks.extend((1..count).map(|_| take(arena).expect("memory")));
    let after = (fake.calls(), node.pages().frontier(), on_small(node));
    assert_eq!(after, (calls, frontier, count), "mapped ahead, and no call");
    let bridged = node.warmer().board.bridged.load(Ordering::Relaxed) as usize;
    assert_eq!(bridged, count * SUPER);
    (fake, arena, node, blocks)
}

#[test]
fn small_pages_bridge_where_threads_outrun_it() {
    let (fake, arena, node, blocks) = outrun(5);
    // What is wholly free becomes a hole, and hugepages take its place.
    for &slot in &blocks[11..14] {
        give_back(arena, slot);
    }
    assert_eq!(on_small(node), 5, "a free makes no call");
    settle(node);
    assert!(stock(node) >= 16);
    assert_eq!(on_small(node), 3, "one for each step that it took");
    arena.purge();
    assert_eq!((on_small(node), node.pages().spare_bytes()), (2, 0));
    // What stays filled up is collapsed, when growth rests.
    for slot in [blocks[2], blocks[14]] {
        let block = arena.addresses().address_of(slot) as *mut u8;
        // SAFETY: a live block of a whole SuperSlab.
        unsafe { block.write_bytes(1, SUPER) };
    }
    for _ in 0..80 {
        fake.advance(125 * MS);
        settle(node);
    }
    assert_eq!(on_small(node), 0);
    for slot in blocks[..11].iter().chain(&blocks[14..]) {
        give_back(arena, *slot);
    }
    end(arena);
}

#[test]
fn what_bridged_goes_as_a_whole() {
    let (_, arena, node, blocks) = outrun(5);
    for slot in blocks {
        give_back(arena, slot);
    }
    arena.purge();
    assert_eq!((on_small(node), node.pages().spare_bytes()), (0, 0));
    // Without the warmer, nothing bridges.
    arena.set_sealed(true);
    arena.set_sealed(false);
    node.warmer().park();
    let blocks: Vec<_> = (0..30).map(|_| take(arena).expect("memory")).collect();
    assert_eq!(on_small(node), 0);
    node.warmer().unpark();
    for slot in blocks {
        give_back(arena, slot);
    }
    end(arena);
}

#[test]
fn where_nothing_is_mapped_ahead_a_thread_maps_small_pages_itself() {
    let config = CONFIG.pages(Pages::Thp).limit(100 * MIB);
    let (fake, arena, node) = world(config);
    let first: Vec<_> = (0..2).map(|_| take(arena).expect("memory")).collect();
    let mut blocks: Vec<_> = (0..9).map(|_| take(arena).expect("memory")).collect();
    assert_eq!(on_small(node), 9);
    // At the limit, or where no more is mapped, nothing is lost, and null is the answer.
    blocks.extend(core::iter::from_fn(|| take(arena)));
    assert!(arena.policy().limit().mapped() <= 100 * MIB);
    assert_eq!(node.pages().free_bytes(), 0);
    blocks.drain(..).for_each(|slot| give_back(arena, slot));
    fake.fail_only(Call::Map);
    fake.fail_from(0);
    blocks.extend(core::iter::from_fn(|| take(arena)));
    assert!(blocks.len() > 30, "what is mapped serves");
    fake.heal();
    first
        .into_iter()
        .chain(blocks)
        .for_each(|slot| give_back(arena, slot));
    end(arena);
}

#[test]
fn what_was_filled_up_for_the_decay_is_collapsed() {
    let (fake, arena, node, blocks) = on_small_pages();
    let collapsed = || node.warmer().board.collapsed.load(Ordering::Relaxed) as usize;
    parts(fake, node, 8);
    assert_eq!((on_small(node), collapsed()), (4, 0), "filled up just now");
    parts(fake, node, 6);
    // One that is not filled up for a moment begins anew.
    give_back(arena, blocks[0]);
    parts(fake, node, 1);
    let again = take(arena).expect("memory");
    assert_eq!(
        again, blocks[0],
        "the fullest one, and the first, serves next"
    );
    parts(fake, node, 2);
    assert_eq!((on_small(node), collapsed()), (2, 4 * MIB));
    parts(fake, node, 16);
    assert_eq!((on_small(node), collapsed()), (1, 6 * MIB));
    for slot in blocks {
        let block = arena.addresses().address_of(slot) as *const u8;
        // SAFETY: a live block, all of whose bytes were written.
        let bytes = unsafe { core::slice::from_raw_parts(block, SUPER) };
        assert!(bytes.iter().all(|&byte| byte == 1));
        give_back(arena, slot);
    }
    end(arena);
}

#[test]
fn refused_hugepages_are_asked_for_again_much_later() {
    let (fake, arena, node, blocks) = on_small_pages();
    for error in [Error::NoMemory, Error::Unsupported, Error::Other(11)] {
        fake.fail_only(Call::Collapse);
        fake.fail_with(error);
        fake.fail_from(0);
        parts(fake, node, 100 * 8);
        let asked = fake.failed();
        assert!((1..=10).contains(&asked), "{asked} calls in 100 s");
        assert_eq!(on_small(node), 4);
        fake.heal();
    }
    parts(fake, node, 700 * 8);
    assert_eq!(on_small(node), 1);
    blocks.into_iter().for_each(|slot| give_back(arena, slot));
    end(arena);
}

/// A hugepage beyond what the control groups leave is not asked for.
#[test]
fn groups_without_room_keep_small_pages() {
    let (fake, arena, node, blocks) = on_small_pages();
    node.warmer().room.store(9 * MIB as u64, Ordering::Relaxed);
    parts(fake, node, 100);
    assert_eq!(on_small(node), 4);
    node.warmer().room.store(10 * MIB as u64, Ordering::Relaxed);
    parts(fake, node, 700 * 8);
    assert_eq!(on_small(node), 1);
    blocks.into_iter().for_each(|slot| give_back(arena, slot));
    end(arena);
}

/// Without any thread of the heap's, those that free give idle memory back in passing.
#[test]
fn threads_give_idle_memory_back_in_passing() {
    let config = CONFIG.prefault(Prefault::Off).retain(128 * MIB);
    let (fake, arena, node) = world(config);
    let burst = |count: usize| {
        let blocks: Vec<_> = (0..count).map(|_| take(arena).expect("memory")).collect();
        blocks.into_iter().for_each(|slot| give_back(arena, slot));
    };
    burst(60);
    let kept = || node.supers().warm() * SLOT / MIB;
    let before = kept();
    burst(60);
    assert_eq!(kept(), before, "not before its time");
    for _ in 0..60 {
        fake.advance(600 * MS);
        burst(1);
    }
    assert!(kept() <= 6, "{} of {before}", kept());
    end(arena);
}

#[test]
fn a_refusal_loses_nothing_and_is_waited_for() {
    for call in [Call::Commit, Call::Map, Call::Populate, Call::Purge] {
        for from in 0..12 {
            let (fake, arena, node) = world(CONFIG);
            let first = take(arena).unwrap();
            fake.fail_only(call);
            fake.fail_nth(from);
            settle(node);
            fake.advance(20_000 * MS);
            settle(node);
            assert_eq!(stock(node), 16, "{call:?} failed once");
            fake.heal();
            fake.fail_only(call);
            fake.fail_from(from);
            node.warm(64 * MIB).ok();
            for _ in 0..20 {
                settle(node);
                fake.advance(1500 * MS);
            }
            let calls = fake.calls();
            settle(node);
            assert!(fake.calls() - calls < 40, "no storm of calls that fail");
            fake.heal();
            fake.advance(20_000 * MS);
            (0..100).for_each(|_| {
                node.warmer().step();
            });
            assert!(stock(node) >= 16, "{call:?} healed");
            give_back(arena, first);
            end(arena);
        }
    }
}

const LIMITS: Limits = Limits {
    ahead: 32,
    most: 1000,
    floor: 0,
    decay: 1000 * MS,
};

#[test]
fn the_target_follows_the_rate() {
    let mut pace = Pace::default();
    let mut sight = Sight {
        whole: 32,
        ready: 32,
        held: 32,
        mapped: 100,
    };
    let mut now = MS;
    // 1 GiB/s: a SuperSlab every 2 ms is begun, and the warmer makes up for it.
    for round in 0..500 {
        pace.observe(now, sight, LIMITS);
        pace.end(sight, LIMITS);
        now += MS;
        sight.mapped += round % 2;
    }
    let target = pace.target(LIMITS);
    assert!(
        (100..160).contains(&target),
        "250 ms of 512 a second: {target}"
    );
    // Nothing happens for ten seconds.
    for _ in 0..100 {
        pace.observe(now, sight, LIMITS);
        pace.end(sight, LIMITS);
        now += 100 * MS;
    }
    assert_eq!(pace.target(LIMITS), 32);
    // A SuperSlab that growth adds and nobody uses is no demand.
    sight.mapped += 500;
    sight.whole += 500;
    pace.observe(now, sight, LIMITS);
    assert_eq!(pace.target(LIMITS), 32);
}

#[test]
fn refusals_are_waited_for_longer_and_longer() {
    let mut pace = Pace::default();
    let mut now = MS;
    let mut waits = 0;
    for _ in 0..100_000 {
        pace.observe(now, Sight::default(), LIMITS);
        if pace.missing(LIMITS, 0) > 0 {
            pace.refused();
            waits += 1;
        }
        now += MS;
    }
    assert!((15..30).contains(&waits), "{waits} tries in 100 s");
}
