//! The classic front: a FastCache, which is a small array, before a singly linked list through the
//! free blocks.
//!
//! The FastCache has a magazine's header and the same place in [`super::head::Head`], so the hit
//! paths pop and push in the same way whichever front serves a class; the fronts differ in the size
//! of the array and in what is behind it. An empty FastCache takes half its places from the list,
//! or all of them from the spans if the list is empty. A full FastCache moves its older half to the
//! list. A list that has no room returns half of its blocks to the spans.
//!
//! A link lies in the free block's first word: the address of the next block XOR the arena's secret
//! XOR the block's own address. A program that writes to a freed block, or frees one twice, breaks
//! it: a decoded link must be null at the list's end and nowhere else, and must be the address of a
//! slot of the same class and a multiple of 16. Every block is checked to be one before its link is
//! written.
//!
//! FastCache and list together hold as many blocks as the class's magazine would.
#![allow(unsafe_code)] // Reads and writes links in free blocks, and arrays through raw pointers.

use super::cache::ThreadCache;
use super::quarantine::poison_link;
use crate::geometry::{ClassId, Kind};
use crate::heap::check_blocks;
use crate::messages::{Misuse, misuse};
use crate::pool::Arena;
use core::ptr;
use theap_arch::valgrind;

/// Most places of a FastCache.
pub const FAST: usize = 16;

/// Free blocks of one class. Zero is valid: none.
pub struct List {
    /// The latest block; its link leads to the others.
    head: *mut u8,
    len: u32,
}

impl List {
    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the links lead through `len` blocks of which `is_ours` holds.
    ///
    /// # Safety
    /// No thread is inside the allocator. `is_ours` holds of nothing but blocks that a span has
    /// given out.
    #[cfg(any(test, debug_assertions))]
    pub unsafe fn is_valid(&self, arena: &Arena, is_ours: impl Fn(usize) -> bool) -> bool {
        let mut at = self.head as usize;
        for _ in 0..self.len {
            if !is_ours(at) {
                return false;
            }
            // SAFETY: `is_ours` says that a block begins here (this function's own Safety section),
            // so its first word is mapped, and nobody writes to it now.
            at ^= valgrind::quietly(|| unsafe { (at as *const usize).read() })
                ^ arena.policy().secret();
        }
        at == 0
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Puts a block on top.
    ///
    /// # Safety
    /// `block` is a free block of the list's class, at least 16 bytes large, that nobody else uses.
    #[inline]
    unsafe fn link(&mut self, arena: &Arena, block: *mut u8) {
        let link = self.head as usize ^ arena.policy().secret() ^ block as usize;
        // SAFETY: the block is free and large enough, and its first word is the list's (this
        // function's own Safety section).
        valgrind::quietly(|| unsafe { block.cast::<usize>().write(link) });
        self.head = block;
        self.len += 1;
    }

    /// Takes the latest block, and checks what its link leads to.
    ///
    /// # Safety
    /// The list is not empty.
    #[inline]
    pub unsafe fn unlink(&mut self, arena: &Arena, class: ClassId) -> *mut u8 {
        let block = self.head;
        // SAFETY: a free block of the list, which is not empty (this function's own Safety
        // section): the block was checked when it was linked, and again through the link that led
        // to it.
        let link = valgrind::quietly(|| unsafe { block.cast::<usize>().read() });
        let next = link ^ arena.policy().secret() ^ block as usize;
        self.len -= 1;
        let fits = if self.len == 0 {
            next == 0
        } else {
            // Not `locate`: the class byte alone is asked for, block by block.
            next.is_multiple_of(16)
                && arena.addresses().contains(next)
                && arena.addresses().kind(arena.addresses().slot_of(next)) == Kind::Class(class)
        };
        if !fits {
            misuse(arena.os(), Misuse::BrokenLink, block as usize);
        }
        // SAFETY: the block is this thread's now.
        unsafe { poison_link(block) };
        self.head = next as *mut u8;
        block
    }
}

/// Whether all blocks lie in slots of the class.
#[cold]
fn all_of(arena: &Arena, class: ClassId, blocks: &[*mut u8]) -> bool {
    let addresses = arena.addresses();
    blocks.iter().all(|&block| {
        addresses.contains(block as usize)
            && addresses.kind(addresses.slot_of(block as usize)) == Kind::Class(class)
    })
}

impl ThreadCache {
    /// Places of the class's FastCache: half of what the class may hold goes to the list at least,
    /// but for a class whose blocks are spans, of which the FastCache holds one.
    pub fn fast_places(&self, class: ClassId) -> usize {
        (usize::from(self.capacities[class.index()]) / 2).clamp(1, FAST)
    }

    /// A block for an empty FastCache. Null if there is no memory.
    ///
    /// # Safety
    /// The class's array is an empty FastCache.
    #[inline(never)]
    pub unsafe fn refill_fast_cache(&mut self, class: ClassId) -> *mut u8 {
        let places = self.places_in_use(class);
        // SAFETY: the array is empty (this function's own Safety section) and a FastCache has
        // `places` places.
        unsafe { self.fill(class, places.div_ceil(2), places) }
    }

    /// Takes up to `want` blocks of the list and writes them from `to` on, the latest on top. Their
    /// number.
    ///
    /// # Safety
    /// The `want` places from `to` on are the caller's.
    pub unsafe fn unlist(&mut self, class: ClassId, to: *mut *mut u8, want: usize) -> usize {
        let arena = self.heap.arena();
        let list = &mut self.lists[class.index()];
        let count = want.min(list.len());
        for i in (0..count).rev() {
            // SAFETY: the place is one of `want` that are the caller's, and the list has a block
            // for each turn.
            unsafe { to.add(i).write(list.unlink(arena, class)) };
        }
        count
    }

    /// Moves the older half of a full FastCache to the list, or to the spans if the list has no
    /// room.
    ///
    /// # Safety
    /// The class's array is a full FastCache, whose blocks nobody uses.
    #[inline(never)]
    pub unsafe fn spill(&mut self, class: ClassId) {
        let base = self.bases[class.index()];
        let places = self.places_in_use(class);
        let half = places.div_ceil(2);
        let room = usize::from(self.capacities[class.index()]).saturating_sub(places);
        let arena = self.heap.arena();
        // SAFETY: the FastCache is full (this function's own Safety section), its pointers lie from
        // its base on, outside of the struct, and this thread alone uses them.
        unsafe {
            let old = core::slice::from_raw_parts(base, half);
            // The list takes blocks of its class alone.
            let mixed = arena.policy().has_outsized() && !all_of(arena, class, old);
            if !mixed && half <= room && self.make_room_in_list(class, room, half) {
                check_blocks(arena, class, old);
                let list = &mut self.lists[class.index()];
                for &block in old {
                    list.link(arena, block);
                }
                self.listed |= class.bit();
            } else {
                self.pass_list(old);
            }
            ptr::copy(base.add(half), base, places - half);
            self.magazine(class).top = base.add(places - half);
            self.wipe(class);
        }
        self.note_cached(class);
        self.heap.counters.spills.add(1);
    }
}
