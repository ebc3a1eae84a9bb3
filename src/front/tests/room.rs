//! The defaults of `retain` and `ahead`, and the memory that can be reserved, on machines and in
//! control groups that have little.

#![allow(unsafe_code)] // Puts a run into a magazine.

use super::{SMALL, World};
use crate::classes;
use crate::config::{Config, Pages};
use crate::front::warm::reservable;
use crate::messages::Shortage;
use std::vec::Vec;
use theap_platform::{Bound, PageMode, Room};

const MIB: usize = 1 << 20;

#[test]
fn little_is_kept_where_a_group_leaves_little() {
    let kept = |config: Config, mib: usize| {
        let world = World::new(config, |fake| fake.set_memory_limit((mib * MIB) as u64));
        let mut world = world.expect("an arena");
        let policy = world.arena.policy();
        let kept = (policy.retain() / MIB, policy.ahead() / MIB);
        world.end(Vec::new());
        kept
    };
    assert_eq!(kept(SMALL, 64 << 10), (256, 64));
    assert_eq!(kept(SMALL, 512), (32, 32));
    assert_eq!(kept(SMALL.retain(100 * MIB), 512), (100, 32));
    assert_eq!(kept(SMALL.ahead(100 * MIB), 512), (32, 100));
    assert_eq!(kept(SMALL.limit(64 * MIB), 512), (4, 4));
}

/// The MiB that can be reserved where there are so many, and the reason why no more can.
fn reserved(config: Config, bytes: usize, bound: Bound) -> (usize, Shortage) {
    let room = Room {
        bytes: bytes as u64,
        bound,
    };
    let world = World::new(config, |fake| fake.set_room(room));
    let mut world = world.expect("an arena");
    let (bytes, why) = reservable(world.arena);
    world.end(Vec::new());
    (bytes / MIB, why)
}

#[test]
fn what_can_be_reserved_is_what_there_is() {
    // A sixteenth stays, and the metadata comes on top.
    for bound in [Bound::Machine, Bound::Group, Bound::Process] {
        let room = Shortage::Room(bound);
        assert_eq!(reserved(SMALL, 160 * MIB, bound), (150 - 4, room));
        assert_eq!(reserved(SMALL, 4 * MIB, bound), (0, room));
        assert_eq!(reserved(SMALL, 0, bound), (0, room));
        let limited = SMALL.limit(96 * MIB);
        assert_eq!(reserved(limited, 1 << 40, bound), (90 - 4, Shortage::Limit));
        let limited = SMALL.limit(1 << 40).soft_limit(96 * MIB);
        assert_eq!(reserved(limited, 1 << 40, bound), (90 - 4, Shortage::Limit));
        assert_eq!(reserved(limited, 64 * MIB, bound), (60 - 4, room));
    }
}

#[test]
fn the_pages_of_a_pool_come_on_top() {
    let os = theap_platform::Os::LINUX;
    let pool = os.hugetlb_free(PageMode::Hugetlb) * 2;
    let (mib, _) = reserved(SMALL.pages(Pages::Hugetlb), 160 * MIB, Bound::Machine);
    let least = 150 - 4;
    // Other processes may take pages of the pool meanwhile.
    assert!((least..=least + pool).contains(&mib), "{mib}");
}

#[test]
fn a_run_outside_that_became_a_small_block_comes_home() {
    let world = World::new(SMALL, |_| ());
    let mut world = world.expect("an arena");
    let cache = world.cache().expect("a cache");
    let outside = world.arena.runs().outside();
    let run = outside.acquire(3 * MIB, MIB).expect("a run outside");
    assert!(!world.arena.addresses().contains(run as usize));
    // Its owner made it smaller where it was, and frees it with a small size: on one node, the
    // magazine takes it without a look at its address.
    world.arena.policy().set_outsized();
    let class = classes::class_for(64, 16).expect("a class");
    cache.with(|cache| {
        cache.heed_gate();
        assert_eq!(cache.head.sized, theap_arch::TINY_MAX);
        // SAFETY: the run is the test's, and the magazine is empty.
        assert!(unsafe { theap_arch::push(cache.magazine(class), run) });
    });
    cache.flush();
    assert_eq!(outside.bytes_at(run as usize), None, "the run is unmapped");
    world.end(Vec::from([cache]));
}
