//! The drain of a magazine: a full one returns the older half of its blocks to the spans, a whole
//! batch at once. Without the feature `drain`, see `no_drain`, the block that does not fit
//! goes to its span alone.
#![allow(unsafe_code)] // Reads arrays through raw pointers.

use super::allowance::nest_capacity;
use super::cache::ThreadCache;
use super::magazines::BATCH;
use crate::geometry::ClassId;
use core::ptr;

/// Capacity above which a drain returns the newest blocks: moving the others down would cost more
/// than the drain.
const LONG: usize = 4 * BATCH;

impl ThreadCache {
    /// Returns the older half of a full magazine to the spans, unless the magazine grows instead.
    /// True: there is room. False: the magazine may hold nothing.
    ///
    /// A class that only drains may hold half as much, and returns all but what its nest would
    /// hold: batches are as large then, and less is left if the thread rests from here on. What it
    /// keeps, others may need, and each block keeps a page, and a span.
    #[inline(never)]
    pub fn drain_magazine(&mut self, class: ClassId) -> bool {
        self.magazines.allowance.note_miss(class);
        let fixed = self.fixed_capacity(class);
        let only_drains = self.magazines.learner.only_drains(class);
        let most = if only_drains {
            fixed.div_ceil(2)
        } else {
            fixed
        };
        if self.raise_to(class, most) || self.learn(class, true) {
            return true;
        }
        let (base, held) = (self.bases[class.index()], self.held(class));
        if held == 0 {
            return false;
        }
        let only_drains = only_drains && held <= fixed;
        let nest = if only_drains {
            nest_capacity(class)
        } else {
            held
        };
        let gone = (held - nest).max(held.div_ceil(2)).min(BATCH);
        // SAFETY: the magazine's pointers lie from its base to its top, outside of the struct, and
        // this thread alone uses them.
        unsafe {
            if held > LONG {
                let newest = base.add(held - gone);
                self.heap.give(core::slice::from_raw_parts(newest, gone));
            } else {
                self.heap.give(core::slice::from_raw_parts(base, gone));
                ptr::copy(base.add(gone), base, held - gone);
            }
            self.magazine(class).top = base.add(held - gone);
        }
        // There must be room for the block that did not fit.
        if only_drains && held > most && held - gone < most {
            self.lower(class, most);
        }
        self.wipe(class);
        self.note_cached(class);
        true
    }
}
