//! Without the feature `drain`, blocks of the classic front's lists come home one by one.
#![allow(unsafe_code)] // Takes blocks of lists.

use crate::front::cache::ThreadCache;
use crate::geometry::ClassId;

impl ThreadCache {
    /// Returns the blocks that wait for room on the list to their spans instead; the list stays as
    /// it is.
    pub fn make_room_in_list(&mut self, _class: ClassId, _room: usize, old: &[*mut u8]) {
        // SAFETY: what waits for room on the list is free.
        old.iter()
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
