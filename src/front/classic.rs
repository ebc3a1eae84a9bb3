//! The classic front: a FastCache, which is a small array, before a singly linked list through the free blocks.
//!
//! The FastCache has a magazine's header and the same place in [`super::Head`], so its pop and push are the fast
//! path's, whichever front serves a class: what differs is its size and what is behind it. An empty FastCache takes
//! half its places from the list, else all from the spans; a full one moves its older half to the list. A list that
//! is over-full returns half to the spans.
//!
//! A link lies in the free block's first word, as address of the next block XOR the arena's secret XOR the block's
//! own address. Who writes to a freed block, or frees one twice, breaks it: a decoded link must be null at the list's
//! end and nowhere else, and be an address of a slot of the same class, a multiple of 16. What goes onto a list is
//! checked to be a block before anything is written to it.
//!
//! FastCache and list together hold as many blocks as the class's magazine would.

use super::thread::Front;
use crate::fatal::{Misuse, misuse};
use crate::heap::check_blocks;
use crate::pool::{Arena, kind};
use core::ptr;
use core::sync::atomic::Ordering;
use theap_arch::valgrind;

/// Most places of a FastCache.
pub const FAST: usize = 16;
/// Blocks of a list that are returned at once.
#[cfg(feature = "drain")]
const BATCH: usize = 64;

/// Free blocks of one class. Zero is valid: none.
pub struct List {
    /// The latest block; its link leads to the others.
    head: *mut u8,
    len: u32,
}

impl List {
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the links lead through `len` blocks of which `is_ours` holds.
    #[cfg(any(test, debug_assertions))]
    pub fn is_valid(&self, arena: &Arena, is_ours: impl Fn(usize) -> bool) -> bool {
        let mut at = self.head as usize;
        for _ in 0..self.len {
            if !is_ours(at) {
                return false;
            }
            // SAFETY: a block that the span has given out, and the list has.
            at ^= valgrind::quietly(|| unsafe { (at as *const usize).read() }) ^ arena.secret;
        }
        at == 0
    }

    /// # Safety
    /// `block` is a free block of the list's class, at least 16 bytes large, that nobody else uses.
    #[inline]
    unsafe fn link(&mut self, arena: &Arena, block: *mut u8) {
        let link = self.head as usize ^ arena.secret ^ block as usize;
        // SAFETY: the block is free, and its first word the list's.
        valgrind::quietly(|| unsafe { block.cast::<usize>().write(link) });
        self.head = block;
        self.len += 1;
    }

    /// Takes the latest block of a list that is not empty, and checks what its link leads to.
    #[inline]
    fn unlink(&mut self, arena: &Arena, class: usize) -> *mut u8 {
        let block = self.head;
        // SAFETY: a free block of the list: checked when it was linked, and again through the link that led here.
        let link = valgrind::quietly(|| unsafe { block.cast::<usize>().read() });
        let next = link ^ arena.secret ^ block as usize;
        self.len -= 1;
        let fits = if self.len == 0 {
            next == 0
        } else {
            next.is_multiple_of(16)
                && arena.contains(next)
                && arena.kind(arena.slot_of(next)).load(Ordering::Relaxed)
                    == kind::FIRST + class as u8
        };
        if !fits {
            misuse(arena.os, Misuse::BrokenLink, block as usize);
        }
        #[cfg(feature = "hardened")]
        // SAFETY: the block is this thread's. Where the link was is poison again.
        valgrind::quietly(|| unsafe {
            block.cast::<u64>().write(super::hardened::POISON);
        });
        self.head = next as *mut u8;
        block
    }
}

impl Front {
    /// Places of the class's FastCache: half of what the class may hold goes to the list at least.
    pub(super) fn fast_places(&self, class: usize) -> usize {
        FAST.min(self.capacities[class] as usize / 2)
    }

    /// A block for an empty FastCache. Null if there is no memory.
    #[inline(never)]
    pub(super) fn refill_fast_cache(&mut self, class: usize) -> *mut u8 {
        let places = self.fast_places(class);
        self.fill(class, places.div_ceil(2), places)
    }

    /// Takes up to `want` blocks of the list and writes them from `to` on, the latest on top. Their number.
    ///
    /// # Safety
    /// The `want` places from `to` on are the caller's.
    pub(super) unsafe fn unlist(&mut self, class: usize, to: *mut *mut u8, want: usize) -> usize {
        let arena = self.heap.arena();
        let list = &mut self.lists[class];
        let count = want.min(list.len as usize);
        for i in (0..count).rev() {
            // SAFETY: below `want`.
            unsafe { to.add(i).write(list.unlink(arena, class)) };
        }
        count
    }

    /// Moves the older half of a full FastCache to the list, or to the spans if the list has no room.
    #[inline(never)]
    pub(super) fn spill(&mut self, class: usize) {
        let base = self.bases[class];
        let places = self.fast_places(class);
        let half = places.div_ceil(2);
        let room = self.capacities[class] as usize - places;
        let arena = self.heap.arena();
        // SAFETY: the FastCache is full, its pointers lie from its base on, and this thread alone uses them.
        unsafe {
            let old = core::slice::from_raw_parts(base, half);
            if self.lists[class].len as usize + half > room {
                #[cfg(feature = "drain")]
                self.drain_list(class, room.div_ceil(2));
                #[cfg(not(feature = "drain"))]
                old.iter().for_each(|&block| self.heap.give(&[block]));
            }
            if self.lists[class].len as usize + half <= room {
                check_blocks(arena, class, old);
                for &block in old {
                    self.lists[class].link(arena, block);
                }
            }
            ptr::copy(base.add(half), base, places - half);
            self.magazine(class).top = base.add(places - half);
            self.wipe(class);
        }
        self.heap.counters.spills.add(1);
    }

    /// Returns up to `count` blocks of the list to the spans, the latest first.
    #[cfg(feature = "drain")]
    #[inline(never)]
    pub(super) fn drain_list(&mut self, class: usize, count: usize) {
        let mut batch = [ptr::null_mut(); BATCH];
        let mut left = count;
        while left > 0 {
            // SAFETY: the batch has BATCH places.
            let got = unsafe { self.unlist(class, batch.as_mut_ptr(), left.min(BATCH)) };
            if got == 0 {
                break;
            }
            self.heap.give(&batch[..got]);
            left -= got;
        }
    }

    /// Returns all blocks of the list to the spans.
    pub(super) fn flush_list(&mut self, class: usize) {
        #[cfg(feature = "drain")]
        if !self.lists[class].is_empty() {
            self.drain_list(class, usize::MAX);
        }
        #[cfg(not(feature = "drain"))]
        while !self.lists[class].is_empty() {
            let block = self.lists[class].unlink(self.heap.arena(), class);
            self.heap.give(&[block]);
        }
    }
}
