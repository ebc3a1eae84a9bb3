//! A NUMA node's share of the pool: its slots, its pages, its partial spans and its warmer, put
//! together.
//!
//! ```text
//! partial spans (stashes, lists) -> SP-SLOT words (lock-free) -> growth (a lock)
//! ```

use super::addresses::SlotRun;
use super::pages::{Grown, Huge, Pages};
use super::reclaim::Reclaim;
use super::spans::{NodeLists, Stage};
use super::supers::{Supers, Taker};
use super::warmer::Warmer;
use crate::geometry::{NodeSuper, SLOTS, SUPER, SuperId};
use core::sync::atomic::{AtomicUsize, Ordering};
use theap_platform::Error;

/// Warm slots that are few, and as many as are used before a search for more.
const FEW: usize = SLOTS / 2;

/// A node of the pool.
pub struct Node {
    supers: &'static Supers,
    pages: &'static Pages,
    lists: &'static NodeLists,
    reclaim: &'static Reclaim,
    /// Slots that were used while few were warm.
    begun: AtomicUsize,
    warmer: Warmer,
}

impl Node {
    /// A node of these parts.
    pub fn new(lists: &'static NodeLists, reclaim: &'static Reclaim, warmer: Warmer) -> Self {
        let pages = lists.pages();
        Self {
            supers: pages.supers(),
            pages,
            lists,
            reclaim,
            begun: AtomicUsize::new(0),
            warmer,
        }
    }

    /// The pages of the node.
    pub fn pages(&self) -> &'static Pages {
        self.pages
    }

    /// The slots of the node.
    pub fn supers(&self) -> &'static Supers {
        self.supers
    }

    /// The partial spans of the node.
    pub fn lists(&self) -> &'static NodeLists {
        self.lists
    }

    /// The warmer of the node.
    pub fn warmer(&self) -> &Warmer {
        &self.warmer
    }

    /// The number in the node's part of a SuperSlab that belongs to it.
    pub fn local(&self, super_id: SuperId) -> NodeSuper {
        self.supers.local(super_id)
    }

    /// Takes up to 32 adjacent slots, the first at a multiple of `align` slots of its SuperSlab,
    /// of those that are there for the taker. `None` when there are none and the system gives no
    /// more.
    pub fn acquire_slots(
        &'static self,
        len: usize,
        align: usize,
        taker: Taker,
    ) -> Option<(SlotRun, Stage)> {
        if self.warmer.take_sweep() {
            self.lists.sweep();
        }
        let taker = self.pages.taker(taker);
        let mut found = self.pages.find(len, align, taker);
        let more = || self.lists.sweep() || self.reclaim.for_growth(SLOTS);
        if found.is_none() && (self.pages.clear_shelf() | more()) {
            found = self.pages.find(len, align, taker);
        }
        if let Some(run) = found {
            let stage = self.stage_of(&run);
            if stage == Stage::Fresh || self.supers.warm() < FEW {
                self.began(len);
            }
            return Some((run, stage));
        }
        if !self.pages.has_spare() {
            self.make_room(SUPER);
        }
        if taker == Taker::Thread {
            self.pages.unmap_nursed();
        }
        let Some(Grown { run, grew }) = self.pages.grow(len, align, taker) else {
            // What another thread keeps, or a nursery, is better than nothing.
            let find = || self.supers.find(len, align, Taker::Anyone);
            let run = find().or_else(|| self.reclaim.for_shortage(len).then(find)?)?;
            let stage = self.stage_of(&run);
            return Some((run, stage));
        };
        if grew {
            self.warmer.start();
            return Some((run, Stage::Grow));
        }
        let stage = self.stage_of(&run);
        Some((run, stage))
    }

    /// Notes that slots are used of which there are few that are warm, or none. Each time that they
    /// are half a SuperSlab, more are taken from heaps whose threads rest.
    fn began(&self, len: usize) {
        if self.begun.fetch_add(len, Ordering::Relaxed) % FEW + len >= FEW {
            self.reclaim.for_growth(8 * SLOTS);
        }
    }

    /// Gives back what is wholly free, on all nodes, if the limit of the heap leaves less than
    /// `bytes`. False if it leaves so many.
    pub fn make_room(&self, bytes: usize) -> bool {
        let is_short = self.pages.is_short_of(bytes);
        if is_short {
            self.lists.sweep_all();
            self.pages.make_room(bytes);
        }
        is_short
    }

    /// Gives back the spans that are the pool's and wholly free, and the runs on the shelf.
    pub fn sweep(&self) {
        self.lists.sweep_all();
        self.pages.clear_shelf();
    }

    fn stage_of(&self, run: &SlotRun) -> Stage {
        let i = self.local(run.slot().split().0);
        match run.is_fresh() {
            false => Stage::Empty,
            true if self.pages.is_populated(i) => Stage::Prepared,
            true => Stage::Fresh,
        }
    }

    /// Takes a run of more than one SuperSlab, or one whose first SuperSlab is at a multiple of
    /// `align` SuperSlabs in memory.
    pub fn acquire_huge(&'static self, len: usize, align: usize) -> Option<SlotRun> {
        let bytes = len.div_ceil(SLOTS) * SUPER;
        let found = self.pages.acquire_huge(len, align).or_else(|| {
            let more = self.make_room(bytes);
            more.then(|| self.pages.acquire_huge(len, align))?
        });
        match found? {
            Huge::Found(run) => Some(run),
            Huge::Grown(run) => {
                self.warmer.start();
                Some(run)
            }
        }
    }

    /// Grows until `bytes` can be taken in SuperSlabs, and touches free slots, spans and the
    /// metadata: what is taken afterwards costs no fault.
    ///
    /// # Errors
    /// The system's error; what was mapped before stays.
    pub fn warm(&'static self, bytes: usize) -> Result<(), Error> {
        self.pages.warm(bytes)?;
        self.warmer.start();
        self.pages.touch_all()
    }

    /// Unmaps all SuperSlabs that are wholly free. The bytes.
    pub fn unmap_free(&self) -> usize {
        self.pages.unmap_free(|| true)
    }

    /// Gives all free memory of the node back, as far as pages allow. The bytes given back.
    pub fn purge(&self) -> usize {
        self.supers.decay().forget();
        self.pages.drop_spare();
        self.lists.discard_all() + self.pages.purge()
    }

    /// Counts the node's figures anew. Nobody else is inside the allocator.
    pub fn recount(&self) {
        self.pages.recount();
        self.lists.recount();
    }
}
