//! Bridging: what a thread gets that must grow the node while the warmer prepares hugepages.
//!
//! A hugepage takes its time: it is cleared, and where the machine is itself a guest, its host may
//! have to find the memory first. A thread that outruns the warmer would wait for one page of 2
//! MiB after the other. So it gets SuperSlabs on small pages instead, each of which it faults in
//! when it gets there, under the kernel's lock on that mapping alone. The warmer maps two steps of
//! such SuperSlabs ahead, so taking one makes no call. It puts those that stay filled up on
//! hugepages when growth rests ([`super::collapse`]), and those that become wholly free are
//! unmapped rather than kept, so that hugepages take their place.
#![allow(unsafe_code)] // Maps what was claimed.

use super::Pages;
use super::grow::SMALL;
use super::spare::{Mapped, Spare};
use crate::config::{Pages as Choice, Prefault};
use crate::geometry::{NodeSuper, SUPER};
use crate::pool::addresses::SlotRun;
use core::slice;
use core::sync::atomic::Ordering;
use theap_platform::PageMode;

/// Steps of growth that are mapped at once: small pages that nobody touches cost addresses alone.
const STEPS: usize = 2;

impl Pages {
    /// Tells whether a thread that grows the node leaves hugepages to the warmer. Pages of a
    /// hugetlb pool are populated by whoever maps them.
    fn bridges(&self) -> bool {
        self.has_warmer() && !self.from_pool.load(Ordering::Relaxed)
    }

    /// Tells whether a SuperSlab bridges if it is on small pages: all that the options put on them
    /// for good does not.
    pub(super) fn may_bridge(&self, i: NodeSuper) -> bool {
        let policy = self.ground.policy;
        let config = policy.config();
        let front = match config.pages {
            Choice::Thp => 0,
            Choice::Auto => SMALL,
            Choice::Small | Choice::Hugetlb | Choice::Hugetlb1g => return false,
        };
        config.prefault == Prefault::Ahead && !policy.is_plain() && i.index() >= front
    }

    /// Tells whether a SuperSlab is one that bridges, and was not collapsed yet.
    pub(super) fn is_bridge(&self, i: NodeSuper) -> bool {
        self.mode(i) == Some(PageMode::Small) && self.may_bridge(i)
    }

    /// The SuperSlabs on small pages that are mapped ahead: of a heap on small pages, all.
    fn small_spare(&self) -> &[Spare] {
        match self.ground.policy.config().pages {
            Choice::Small => slice::from_ref(&self.spare),
            _ => &self.bridge,
        }
    }

    /// Adds a SuperSlab on small pages, without touching it, and takes its first `taken` slots.
    /// `None` where the caller should grow the node in another way.
    pub(super) fn add_bridge(&self, taken: usize) -> Option<SlotRun> {
        if !self.bridges() {
            return None;
        }
        let spare = self.small_spare().iter().find_map(Spare::take);
        let i = spare.or_else(|| self.map_small(1))?.first;
        if self.may_bridge(i) {
            self.bridged.fetch_add(SUPER as u64, Ordering::Relaxed);
        }
        // SAFETY: claimed and mapped on small pages, which nobody has touched; and this thread's.
        Some(unsafe { self.publish(i, (1, taken), PageMode::Small, false) })
    }

    /// Maps a step on small pages, or a hole. The first `taken` SuperSlabs are the caller's, the
    /// others are there for threads that grow later.
    fn map_small(&self, taken: usize) -> Option<Mapped> {
        let growth = self.ground.policy.config().growth;
        let hole = (taken > 0).then(|| self.claims.claim_hole()).flatten();
        let (first, count) = match hole {
            Some(i) => (i, 1),
            None => self.claim_ahead(self.step_up_to(STEPS * growth / SUPER))?,
        };
        let modes = &[PageMode::Small];
        // SAFETY: claimed just now.
        unsafe { self.map_or_give_up(first, (count, 0), modes) }.ok()?;
        let step = |first, count| Mapped {
            first,
            count,
            mode: PageMode::Small as u8,
        };
        let spare = self.small_spare();
        let place = spare.iter().find(|spare| spare.count() == 0);
        self.keep_spare(
            place.unwrap_or(&spare[0]),
            step(first.add(taken), count - taken),
        );
        Some(step(first, count))
    }

    /// Tells whether SuperSlabs should be mapped that will bridge: as with what is spare, none
    /// where the heap has a limit.
    fn wants_bridge(&self) -> bool {
        self.bridge.iter().any(|spare| spare.count() == 0)
            && self.bridges()
            && self.may_bridge(self.frontier())
            && !self.ground.policy.limit().is_set()
    }

    /// Tells whether the warmer should map SuperSlabs ahead: some that will bridge, or a step.
    pub fn wants_ahead(&self, step: bool) -> bool {
        self.wants_bridge() || step && self.spare.count() == 0
    }

    /// For the warmer: maps SuperSlabs that will bridge, if there are few, and touches their
    /// metadata.
    pub fn map_bridge(&self) {
        let mapped = self.wants_bridge().then(|| self.map_small(0)).flatten();
        if let Some(Mapped { first, count, .. }) = mapped {
            // A failure costs only page faults later.
            let _ = self.touch_tables(first, count);
            let _ = self.populate_metadata(first, count);
        }
    }

    /// For the warmer, which has the lock of `unmapping`: unmaps a SuperSlab that bridged, if all
    /// of it is free, so that a hugepage can take its place.
    pub(super) fn unmap_bridge(&self, i: NodeSuper) {
        if let Some(purging) = self.supers.begin_purge(i, true) {
            self.unmap_super(i, purging, PageMode::Small);
        }
    }
}
