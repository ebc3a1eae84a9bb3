//! The twin of `shared` without the feature `shared-pool`: a SuperSlab serves one class of one
//! heap. It is taken as a whole, and the heap gets the rest of it by [`Supers::take_in`].
#![allow(unsafe_code)] // Asks for the metadata of mapped SuperSlabs.

use super::avail::WHOLE;
use super::node_supers::Supers;
use super::nursed::Taker;
use super::slot_word::SlotWord;
use crate::geometry::{NodeSuper, SLOTS};
use crate::pool::addresses::SlotRun;
use crate::pool::metadata::Metadata;
use core::sync::atomic::{AtomicU32, Ordering};

/// The tags of SuperSlabs, in the metadata of their first slots.
pub struct Tags(Metadata);

impl Tags {
    /// The tags in this metadata.
    pub fn new(metadata: Metadata) -> Self {
        Self(metadata)
    }
}

impl Supers {
    /// Takes the first `len` slots of a SuperSlab of which all slots are free and that is offered
    /// to the taker; `len` is at most 32.
    pub fn find(&self, len: usize, _align: usize, taker: Taker) -> Option<SlotRun> {
        let all = |word: &SlotWord| word.take_exact(0, SLOTS);
        let (i, taken) = self.search((WHOLE, taker), usize::MAX, all)?;
        let run = self.taken(i, len, taken);
        self.clear_tag(i);
        self.put_back_rest(i, len, run.is_fresh());
        Some(run)
    }

    /// Notes that a SuperSlab serves no class of a heap (any more), before its slots are offered.
    pub(super) fn clear_tag(&self, i: NodeSuper) {
        self.set_tag(i, 0);
    }

    /// Notes which class of which heap a SuperSlab serves.
    pub fn set_tag(&self, i: NodeSuper, tag: u32) {
        self.tag_of(i).store(tag, Ordering::Relaxed);
    }

    /// The tag of a SuperSlab.
    pub fn tag(&self, i: NodeSuper) -> u32 {
        self.tag_of(i).load(Ordering::Relaxed)
    }

    fn tag_of(&self, i: NodeSuper) -> &'static AtomicU32 {
        // SAFETY: a SuperSlab has a tag from the moment on at which its first slot is published.
        &unsafe { self.tags.0.of(self.id(i)) }.spans[0].tag
    }

    fn put_back_rest(&self, i: NodeSuper, len: usize, fresh: bool) {
        if len < SLOTS {
            if !fresh {
                self.count_warm(SLOTS - len);
            }
            self.word(i).put_back(len, SLOTS - len, fresh);
        }
    }

    /// Takes `len` adjacent free slots of one SuperSlab.
    pub fn take_in(&self, i: NodeSuper, len: usize) -> Option<SlotRun> {
        self.word(i)
            .take_run(len, 1)
            .map(|taken| self.taken(i, len, taken))
    }
}
