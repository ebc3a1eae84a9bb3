//! SuperSlabs on small pages for nurseries, in a heap that has hugepages.
//!
//! Hugepages pay for threads that have shown that they need memory. A nursery serves the others, so
//! it has SuperSlabs of its own, of which only what is touched takes memory. A thread takes no
//! slots there as long as the node can grow: its own memory is to be on hugepages, and a nursery
//! that lost its slots would have to grow for the next one. A nursed SuperSlab that is wholly free
//! is not kept, though: the node unmaps it rather than grow.
//!
//! Where the program wants its memory touched ahead (`prefault`, `warm_up`, `reserve`), small pages
//! would save nothing, and the nursery takes what is there for all.
#![allow(unsafe_code)] // Maps what was claimed.

use super::Pages;
use crate::config::{self, Prefault};
use crate::geometry::{NodeSuper, SLOTS};
use crate::pool::addresses::SlotRun;
use crate::pool::supers::Taker;
use theap_platform::PageMode;

impl Pages {
    /// Whether nurseries have SuperSlabs of their own.
    pub(super) fn has_nursed(&self) -> bool {
        let policy = self.ground.policy;
        let config = policy.config();
        matches!(config.pages, config::Pages::Thp | config::Pages::Auto)
            && config.prefault == Prefault::Off
            && !policy.is_plain()
            && !self.takes_all()
    }

    /// Whether threads take what is there, wherever it is: what was prepared for them, or what a
    /// sealed heap has.
    fn takes_all(&self) -> bool {
        let policy = self.ground.policy;
        policy.is_prepared() || policy.is_sealed()
    }

    /// As what a taker looks for slots now.
    pub fn taker(&self, taker: Taker) -> Taker {
        match taker {
            Taker::Nursery if !self.has_nursed() => Taker::Thread,
            taker => taker,
        }
    }

    /// Takes free slots that are there for the taker.
    pub fn find(&self, len: usize, align: usize, taker: Taker) -> Option<SlotRun> {
        let found = self.supers.find(len, align, taker);
        if found.is_some() || !self.takes_all() {
            return found;
        }
        self.supers.find(len, align, Taker::Anyone)
    }

    /// Whether a SuperSlab is a nursery's, and a thread takes others.
    pub(super) fn is_left_alone(&self, i: NodeSuper) -> bool {
        self.supers.nursed().is_reserved(i) && !self.takes_all()
    }

    /// Adds a SuperSlab for nurseries, and takes the first `taken` slots.
    pub(super) fn add_nursed(&self, taken: usize) -> Option<SlotRun> {
        let hole = self.claims.claim_hole();
        let i = hole.or_else(|| Some(self.claim_ahead(1)?.0))?;
        // SAFETY: claimed just now.
        unsafe { self.map_claimed_as(i, 1, taken, &[PageMode::Small]) }.ok()
    }

    /// Unmaps a nursed SuperSlab that is wholly free, if there is one, as the node would grow: the
    /// thread gets a hugepage in its place.
    pub fn unmap_nursed(&self) {
        if self.takes_all() {
            return;
        }
        let mut from = NodeSuper(0);
        while let Some(i) = self.supers.nursed().reserved(from) {
            if self.supers.slots(i).free_count() as usize == SLOTS && self.unmap_if_free(i) {
                return;
            }
            from = i.add(1);
        }
    }
}
