//! Without the feature `drain`, blocks of the classic front's lists come home one by one.
#![allow(unsafe_code)] // Takes blocks of lists.

use crate::front::cache::ThreadCache;
use crate::geometry::ClassId;

impl ThreadCache {
    /// Tells whether the class's list, which may have `room` blocks in all, has room for `more`. It
    /// stays as it is.
    pub fn make_room_in_list(&mut self, class: ClassId, room: usize, more: usize) -> bool {
        self.lists[class.index()].len() + more <= room
    }

    /// Returns blocks that do not go to their list to the spans, one by one.
    ///
    /// # Safety
    /// Nobody uses the blocks.
    pub unsafe fn pass_list(&mut self, blocks: &[*mut u8]) {
        // SAFETY: this function's own Safety section.
        blocks
            .iter()
            .for_each(|&block| unsafe { self.heap.give(&[block]) });
    }

    /// Returns all blocks of the list to the spans.
    pub fn flush_list(&mut self, class: ClassId) {
        let arena = self.arena();
        while !self.lists[class.index()].is_empty() {
            // SAFETY: the list is not empty, and what was on it is free.
            unsafe {
                let block = self.lists[class.index()].unlink(arena, class);
                self.heap.give(&[block]);
            }
        }
    }
}
