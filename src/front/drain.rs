//! The drain of a magazine: a full one returns the older half of its blocks to the spans, a whole
//! batch at once. Without the feature `drain`, see `no_drain`, the block that does not fit
//! goes to its span alone.
#![allow(unsafe_code)] // Reads arrays through raw pointers.

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
    #[inline(never)]
    pub fn drain_magazine(&mut self, class: ClassId) -> bool {
        self.magazines.allowance.note_miss(class);
        if self.raise(class) || self.learn(class, true) {
            return true;
        }
        let (base, held) = (self.bases[class.index()], self.held(class));
        if held == 0 {
            return false;
        }
        let gone = held.div_ceil(2).min(BATCH);
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
        self.wipe(class);
        self.note_cached(class);
        true
    }
}
