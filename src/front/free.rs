//! Frees that miss: the magazine is full, or the block is not one for a magazine.
//! And how a cache gives back all that it holds.
#![allow(unsafe_code)] // Reads arrays through raw pointers.

use super::cache::ThreadCache;
use super::foreign::free_foreign;
use super::handle::Handle;
use super::head::{retired, slot};
use super::life::{if_shared, retire_left, share};
use super::nursery::each_nursery;
use super::runs::{count_freed, free_run};
use super::setup::Setup;
use crate::contract::Act;
use crate::geometry::ClassId;
use crate::messages::{Misuse, misuse};
use crate::pool::Location;
use crate::pool::global::existing_arena;

/// Frees what the hit path could not.
///
/// # Safety
/// The conditions of [`super::hit::free`].
#[cold]
#[inline(never)]
pub unsafe fn free_slow(block: *mut u8, setup: &Setup) {
    if block.is_null() {
        return;
    }
    let cache = Handle::mine(setup);
    let Some(arena) = cache.map(Handle::arena).or_else(existing_arena) else {
        // SAFETY: a block as this function's Safety section has it, which may be the other
        // allocator's.
        return unsafe { free_foreign(block, setup) };
    };
    if let Some(cache) = cache {
        cache.note_act(Act::Free(block as usize));
    }
    match arena.addresses().locate(block as usize) {
        // SAFETY: as above.
        Location::Foreign => unsafe {
            if arena.runs().outside().release(block as usize) {
                count_freed(cache);
            } else {
                free_foreign(block, setup);
            }
        },
        Location::Free => misuse(arena.os(), Misuse::NotABlock, block as usize),
        // SAFETY: the table's answer for this address, and a block as this function's Safety
        // section has it.
        Location::Run(run) => unsafe { free_run(arena, run, block, cache) },
        Location::Block(part) => match cache {
            // SAFETY: the class byte names the class, and the block is as this function's Safety
            // section has it. The step calls only the heap and the arena.
            Some(cache) => unsafe { cache.step(|cache| cache.free_class(part.class, block)) },
            // SAFETY: as before.
            None => unsafe { share(arena, |cache| cache.free_class(part.class, block)) },
        },
    }
}

/// Returns the blocks that this thread keeps, and those of the shared cache, to their spans, and
/// wholly free spans to the pool.
pub fn collect() {
    if let Some(arena) = existing_arena() {
        // SAFETY: the step calls only the heap and the arena.
        unsafe { if_shared(arena, ThreadCache::collect) };
    }
    retire_left();
    // Last, as blocks of this thread's spans may have come home by then.
    if let Some(cache) = Handle::existing() {
        // SAFETY: the step calls only the heap and the arena.
        unsafe { cache.step(ThreadCache::collect) };
    }
    // Nurseries keep no blocks, and get those of all others.
    if let Some(arena) = existing_arena() {
        // SAFETY: as before.
        unsafe { each_nursery(arena, ThreadCache::collect) };
        arena.sweep();
    }
}

/// At the process's end: gives the blocks home that this thread, threads that have ended and the
/// shared cache keep, where the drain checks each of them: a wrong free of the last blocks is told
/// too. It makes no system call. What the thread still frees is checked at once.
///
/// Where a signal's handler ends the process within a step of its thread, nothing is done.
pub fn end() {
    let Some(arena) = existing_arena() else {
        return;
    };
    if let Some(cache) = Handle::existing() {
        if cache.is_in_step() {
            return;
        }
        slot::set(retired());
        // SAFETY: the thread's own cache, which its slot held until now, and no step of it.
        unsafe { cache.retire() };
    }
    retire_left();
    // SAFETY: the steps call only the heap and the arena.
    unsafe {
        if_shared(arena, ThreadCache::collect);
        each_nursery(arena, ThreadCache::collect);
    }
    arena.sweep();
}

/// Does what [`collect`] does, and gives the free pages of the spans of this thread's heap, the
/// nurseries' and the shared one back to the system. Their bytes.
pub fn discard() -> usize {
    let Some(arena) = existing_arena() else {
        return 0;
    };
    arena.reclaim().before_purge();
    collect();
    arena.demote_sparse();
    let stays = arena.policy().refuses();
    let mut bytes = 0;
    let mut discard = |cache: &mut ThreadCache| {
        // Blocks of these spans may have come home from a cache that was collected later.
        cache.collect();
        bytes += if stays { 0 } else { cache.heap.discard() };
    };
    // SAFETY: the step calls only the heap and the arena.
    unsafe {
        if let Some(cache) = Handle::existing() {
            cache.step(&mut discard);
        }
        if_shared(arena, &mut discard);
        each_nursery(arena, &mut discard);
    }
    bytes
}

impl ThreadCache {
    /// Takes a block whose magazine is full or that is no magazine's.
    ///
    /// # Safety
    /// The slot of `block` has the class byte of `class`, and nobody uses the block any more.
    pub unsafe fn free_class(&mut self, class: ClassId, block: *mut u8) {
        self.heed_gate();
        let (home_part, bytes) = self.arena().addresses().open_part(self.node());
        // The part may have been opened further since the head was written.
        self.head.home_bytes = bytes;
        if (block as usize).wrapping_sub(home_part) < bytes && self.make_room(class) {
            // SAFETY: this thread's magazine, which has room for a block of its class.
            unsafe { theap_arch::push(self.magazine(class), block) };
        } else {
            // SAFETY: nobody uses the block, as this function's Safety section has it.
            unsafe { self.heap.give(&[block]) };
        }
    }

    /// Sees to it that the class's array takes another block; false if the block must go to its
    /// span.
    fn make_room(&mut self, class: ClassId) -> bool {
        // SAFETY: the array is full.
        self.has_room(class) || unsafe { self.empty_in_part(class) }
    }

    /// Tells whether the class's array takes another block as it is.
    pub fn has_room(&mut self, class: ClassId) -> bool {
        let magazine = self.magazine(class);
        magazine.top != magazine.limit
    }

    /// Returns all blocks and wholly free spans that the thread keeps.
    pub fn collect(&mut self) {
        self.heed_gate();
        self.flush();
        self.unlearn_all();
        self.heap.collect();
    }

    /// Returns all blocks of all magazines, FastCaches and lists.
    pub fn flush(&mut self) {
        self.quarantine.release(&mut self.heap);
        self.kept.release(&mut self.heap);
        ClassId::all().for_each(|class| self.flush_array(class));
        for class in ClassId::of(core::mem::take(&mut self.listed)) {
            self.flush_list(class);
        }
        // The hit path has emptied other arrays.
        self.note_noted();
    }

    /// Returns all blocks of the class's magazine or FastCache.
    pub fn flush_array(&mut self, class: ClassId) {
        let (base, held) = (self.bases[class.index()], self.held(class));
        if held > 0 {
            // SAFETY: the array's pointers lie from its base to its top, outside of the struct, and
            // this thread alone uses them. What is in a magazine is free.
            unsafe {
                self.heap.give(core::slice::from_raw_parts(base, held));
            }
            self.magazine(class).top = base;
            self.wipe(class);
            self.note_cached(class);
        }
    }
}
