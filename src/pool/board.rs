//! The arena's board: where in the metadata the numbers lie, and how it is published.

use super::Arena;
use crate::config::Config;
use crate::fatal;
use crate::stats::board::{Board, Header, HeapBoard, NodeBoard, Places};
use crate::sync::Ordering;
use theap_platform::{Error, Os, PAGE, Shared};

/// Heaps whose places on the board are committed together: whole pages.
pub(super) const BOARDS_AT_ONCE: usize = 16;
const _: () = assert!((BOARDS_AT_ONCE * size_of::<HeapBoard>()).is_multiple_of(PAGE));

/// Makes the board a file that others can read, if the options say so. Going without is said, and no error.
///
/// # Errors
/// The addresses were lost.
///
/// # Safety
/// The range is the board's place in a reservation, not committed yet.
pub(super) unsafe fn publish(
    os: Os,
    config: &Config,
    board: usize,
    len: usize,
) -> Result<Shared, Error> {
    if !config.publish {
        return Ok(Shared::none());
    }
    // SAFETY: the caller's promise.
    match unsafe { os.share(board, len) } {
        Err(Error::Lost) => Err(Error::Lost),
        Err(why) => {
            if config.messages {
                fatal::not_published(os, why);
            }
            Ok(Shared::none())
        }
        shared => shared,
    }
}

impl Arena {
    /// The numbers of the whole heap.
    pub fn header(&self) -> &'static Header {
        // SAFETY: the board begins in the dense part of the metadata; zero is valid.
        unsafe { &*self.board }
    }

    /// A node's numbers.
    pub(super) fn node_board(&self, node: usize) -> &'static NodeBoard {
        debug_assert!(node < self.node_count);
        // SAFETY: the nodes' numbers follow the header, in the dense part; zero is valid.
        unsafe { &*self.board.add(1).cast::<NodeBoard>().add(node) }
    }

    /// A heap's numbers.
    ///
    /// # Safety
    /// The heap was made.
    pub unsafe fn heap_board(&self, index: usize) -> &'static HeapBoard {
        // SAFETY: a heap is made after its place on the board is committed; zero is valid.
        unsafe { &*self.heap_boards.add(index) }
    }

    /// Makes the place of heap `index` on the board accessible; several at a time, as each is a system call.
    pub(super) fn commit_heap_board(&self, index: usize) -> Result<(), Error> {
        if !index.is_multiple_of(BOARDS_AT_ONCE) || index == 0 {
            return Ok(());
        }
        let count = BOARDS_AT_ONCE.min(self.max_heaps - index);
        let at = self.heap_boards as usize + index * size_of::<HeapBoard>();
        let bytes = count * size_of::<HeapBoard>();
        // SAFETY: a part of the metadata reservation.
        unsafe { self.os.commit(at, bytes) }?;
        self.lock_memory(at, bytes);
        Ok(())
    }

    /// The part of the board that is in use: address and bytes, whole pages.
    pub fn board_in_use(&self) -> (usize, usize) {
        let places = Places::new(self.node_count, self.heaps_made());
        (self.board as usize, places.len)
    }

    /// All numbers.
    pub fn board(&self) -> Option<Board<'static>> {
        // SAFETY: the board is the arena's and lives as long; what is read of it is committed.
        unsafe { Board::at(self.board.cast(), self.board_len) }.ok()
    }

    /// Touches the numbers of the whole heap and of all heaps made.
    ///
    /// # Errors
    /// What the system answered.
    pub fn touch_board(&self) -> Result<(), Error> {
        let (start, len) = self.board_in_use();
        // SAFETY: committed; populating keeps contents.
        unsafe { self.os.populate(start, len) }
    }

    /// In a forked child: gives the child a published board of its own. The numbers go on from the parent's.
    pub fn publish_again(&self) {
        if self.published.is_some() {
            // The lock on heap ids is held across the fork.
            let heaps = self.header().heaps.load(Ordering::Relaxed) as usize;
            let used = Places::new(self.node_count, heaps).len;
            let board = self.board as usize;
            // SAFETY: the range that `publish` shared; the places of all heaps made are committed.
            unsafe {
                self.os
                    .share_anew(&self.published, board, self.board_len, used);
            }
        }
    }
}
