//! The drain of the classic front's lists: blocks come home in batches. Without the feature
//! `drain`: one by one, see `no_list_drain`.
#![allow(unsafe_code)] // Takes blocks of lists into an array on the stack.

use super::cache::ThreadCache;
use crate::geometry::ClassId;
use core::ptr;

/// Blocks of a list that are returned at once.
const BATCH: usize = 64;

impl ThreadCache {
    /// Makes room for `more` blocks on the class's list, which may have `room` blocks in all, by
    /// returning half of them to the spans, or more where the list had been allowed more before.
    /// Answers true: there is room.
    pub fn make_room_in_list(&mut self, class: ClassId, room: usize, more: usize) -> bool {
        let over = (self.lists[class.index()].len() + more).saturating_sub(room);
        if over > 0 {
            self.drain_list(class, over.max(room.div_ceil(2)));
        }
        true
    }

    /// Returns blocks that do not go to their list to the spans.
    ///
    /// # Safety
    /// Nobody uses the blocks.
    pub unsafe fn pass_list(&mut self, blocks: &[*mut u8]) {
        // SAFETY: this function's own Safety section.
        unsafe { self.heap.give(blocks) };
    }

    /// Returns all blocks of the list to the spans.
    pub fn flush_list(&mut self, class: ClassId) {
        if !self.lists[class.index()].is_empty() {
            self.drain_list(class, usize::MAX);
        }
    }

    /// Returns up to `count` blocks of the list to the spans, the latest first.
    #[inline(never)]
    fn drain_list(&mut self, class: ClassId, count: usize) {
        let mut batch = [ptr::null_mut(); BATCH];
        let mut left = count;
        while left > 0 {
            // SAFETY: the batch has BATCH places.
            let got = unsafe { self.unlist(class, batch.as_mut_ptr(), left.min(BATCH)) };
            if got == 0 {
                break;
            }
            // SAFETY: what was on the list is free.
            unsafe { self.heap.give(&batch[..got]) };
            left -= got;
        }
    }
}
