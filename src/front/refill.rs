//! Allocations that miss: the magazine or FastCache is empty.
#![allow(unsafe_code)] // Fills arrays through raw pointers.

use super::cache::ThreadCache;
use super::handle::Handle;
use super::head::Head;
use super::life::share;
use super::limits;
use super::setup::{Setup, arena};
use crate::classes::CLASSES;
use crate::contract::Act;
use crate::geometry::ClassId;
use core::ptr;

/// A block of the class when its magazine has none. Null if there is no memory.
///
/// # Safety
/// `head` is what this thread's slot holds.
#[cold]
#[inline(never)]
pub unsafe fn alloc_class(head: *mut Head, class: ClassId, setup: &Setup) -> *mut u8 {
    // SAFETY: this function's own Safety section; the step calls only the heap and the arena.
    let block = unsafe {
        match Handle::of(head, setup) {
            Some(cache) => {
                cache.note_act(Act::Allocate(CLASSES[class.index()].size as usize));
                cache.step(|cache| cache.alloc_class(class))
            }
            None => arena(setup).map_or(ptr::null_mut(), |arena| {
                share(arena, |cache| cache.alloc_class(class))
            }),
        }
    };
    limits::leave(block, 0)
}

impl ThreadCache {
    /// A block of the class. Null if there is no memory.
    pub fn alloc_class(&mut self, class: ClassId) -> *mut u8 {
        self.heed_gate();
        // SAFETY: this thread's magazine. A thread that had no cache may have got one with blocks
        // in it.
        let block = unsafe { theap_arch::pop(self.magazine(class)) };
        if !block.is_null() {
            return block;
        }
        // SAFETY: the pop found the array empty.
        unsafe { self.refill(class) }
    }

    /// Fills the class's empty array with up to `from_list` blocks of the list, or if it has none
    /// with up to `from_spans` of the spans, and pops the first. Null if there is no memory.
    ///
    /// # Safety
    /// The array is empty and has that many places.
    pub unsafe fn fill(&mut self, class: ClassId, from_list: usize, from_spans: usize) -> *mut u8 {
        let base = self.bases[class.index()];
        // SAFETY: the array is empty and has as many places (this function's own Safety section),
        // and `take` writes below the address that it is given; the blocks end up at the array's
        // bottom.
        unsafe {
            let mut got = self.unlist(class, base, from_list);
            if got == 0 {
                self.follow();
                got = self.heap.take(class, base.add(from_spans), from_spans);
                if got == 0 {
                    return ptr::null_mut();
                }
                if got < from_spans {
                    ptr::copy(base.add(from_spans - got), base, got);
                }
                return self.filled(class, got);
            }
            self.magazine(class).top = base.add(got);
            self.wipe(class);
            let block = theap_arch::pop(self.magazine(class));
            self.note_cached(class);
            block
        }
    }

    /// Pops the first of the `got` blocks that spans have given to the class's empty array.
    ///
    /// # Safety
    /// The array's first places hold so many blocks.
    pub unsafe fn filled(&mut self, class: ClassId, got: usize) -> *mut u8 {
        let base = self.bases[class.index()];
        // SAFETY: the blocks lie at the array's bottom (this function's own Safety section).
        unsafe {
            self.shuffle(base, got);
            self.magazine(class).top = base.add(got);
            self.wipe(class);
            let block = theap_arch::pop(self.magazine(class));
            self.note_cached(class);
            block
        }
    }
}
