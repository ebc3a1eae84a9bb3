//! The shared pool (the feature `shared-pool`): one SuperSlab serves spans of all classes and
//! heaps, and runs.

use super::avail::{self, EMPTY};
use super::node_supers::Supers;
use super::nursed::Taker;
use super::slot_word::{SlotWord, Slots, Warmth};
use crate::geometry::{NodeSuper, SLOTS};
use crate::pool::addresses::SlotRun;
use crate::pool::metadata::Metadata;

/// SuperSlabs that a search for a run of an odd length looks at, whose room may be too small,
/// before it takes a larger one.
const SEARCH: usize = 64;

/// A SuperSlab that all classes share has no tag.
#[derive(Clone, Copy)]
pub struct Tags;

impl Tags {
    /// Needs no metadata.
    pub fn new(_: Metadata) -> Self {
        Self
    }
}

impl Supers {
    /// A SuperSlab that all classes share has no tag.
    #[inline(always)]
    pub(super) fn clear_tag(&self, _i: NodeSuper) {
        let Tags = self.tags;
    }

    /// Takes up to 32 adjacent free slots, the first at a multiple of `align` slots of its
    /// SuperSlab, which is offered to the taker: the fullest one of some that have such slots.
    pub fn find(&self, len: usize, align: usize, taker: Taker) -> Option<SlotRun> {
        if len == 1 && align == 1 {
            let has = |slots: Slots| slots.has_empty().then_some(Warmth::Warm);
            let at = (EMPTY, taker);
            let warm = self.take_of_fullest(at, usize::MAX, has, SlotWord::take_empty);
            if let Some((i, taken)) = warm {
                return Some(self.taken(i, 1, taken));
            }
        }
        let has = |slots: Slots| slots.run_at(len, align);
        let take = |word: &SlotWord| word.take_run(len, align);
        // A room of the next power of two always serves; a smaller one may, and is in a fuller
        // SuperSlab.
        let sure = avail::level_for((len + align - 1).min(SLOTS));
        let close = avail::level_for(len / 2 + 1).min(sure);
        let found = (self.take_of_fullest((close, taker), SEARCH, has, take))
            .or_else(|| self.take_of_fullest((sure, taker), usize::MAX, has, take));
        found.map(|(i, taken)| self.taken(i, len, taken))
    }
}
