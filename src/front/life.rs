//! A thread cache's life: a thread gets it at its first miss and leaves it to a later thread when
//! it ends.
#![allow(unsafe_code)] // Writes the fields of new caches, and arms the hook for the thread's end.

use super::cache::{ARRAYS_AT, ThreadCache};
use super::handle::Handle;
use super::head::{Behind, is_retired, own, retired, slot};
use super::promise::Scope;
use super::setup::{Setup, arena};
use crate::geometry::{ClassId, Kind, NodeIndex};
use crate::heap::Heap;
use crate::pool::Arena;
use crate::pool::global::existing_arena;
use core::ffi::c_void;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use theap_platform::thread_exit;

/// The index of the heap that threads without one share.
pub const SHARED: usize = 0;

/// Gives this thread a cache and lets it be retired when the thread ends. `None` if there is no
/// memory or no number for one, or if the thread is at its end: it then shares one.
#[cold]
pub fn adopt(setup: &Setup) -> Option<Handle> {
    let arena = arena(setup)?;
    // A call from within the set-up may have given this thread a cache.
    if let Some(cache) = Handle::existing() {
        return Some(cache);
    }
    if is_retired() {
        return None;
    }
    let cache = left_or_new(arena)?;
    slot::set(cache.memory().cast());
    // SAFETY: the hook takes what this thread's slot holds.
    if unsafe { thread_exit::arm(at_thread_exit, cache.memory().cast()) }.is_err() {
        // Nothing would retire the cache at the thread's end.
        slot::set(retired());
        // SAFETY: no slot holds it any more.
        unsafe { cache.retire() };
        return None;
    }
    note_thread();
    Some(cache)
}

/// Notes on the board that this thread has its heap, if it has one.
pub fn note_thread() {
    if let Some(cache) = Handle::existing() {
        let thread = u64::from(cache.arena().os().thread_id());
        // SAFETY: the step writes a figure.
        unsafe { cache.step(|cache| cache.heap.board.thread.store(thread, Ordering::Relaxed)) };
    }
}

/// Takes a step of the cache that all threads without one share, under its lock.
///
/// # Safety
/// The conditions of [`Handle::step`].
#[cold]
pub unsafe fn share<R>(arena: &'static Arena, step: impl FnOnce(&mut ThreadCache) -> R) -> R {
    let mut is_laid_out = arena.heaps().share();
    // SAFETY: the memory of heap 0 is accessible and a cache's; who has the lock has it alone.
    unsafe {
        if !*is_laid_out {
            let cache = NonNull::new_unchecked(arena.heaps().at(SHARED).cast());
            write_new(arena, cache, SHARED, NodeIndex(0));
            *is_laid_out = true;
        }
        cache_of(arena, SHARED).step(step)
    }
}

/// Takes a step of the shared cache, under its lock, if it was ever used.
///
/// # Safety
/// The conditions of [`Handle::step`].
pub unsafe fn if_shared(arena: &'static Arena, step: impl FnOnce(&mut ThreadCache)) {
    let is_laid_out = arena.heaps().share();
    if *is_laid_out {
        // SAFETY: as in `share`.
        unsafe { cache_of(arena, SHARED).step(step) };
    }
}

/// The cache of a heap.
///
/// # Safety
/// The heap's memory holds a cache, and it is the calling thread's for as long as it uses the
/// handle.
pub unsafe fn cache_of(arena: &'static Arena, index: usize) -> Handle {
    // SAFETY: no heap's memory is at address 0; the rest is this function's own Safety section.
    unsafe { Handle::new(NonNull::new_unchecked(arena.heaps().at(index).cast())) }
}

/// Retires the thread's cache. What the thread allocates from then on it takes from the shared one:
/// the C library calls destructors in rounds, and after the last one nothing would retire another.
unsafe extern "C" fn at_thread_exit(cache: *mut c_void) {
    if cache.is_null() || !core::ptr::eq(own().cast(), cache) {
        return;
    }
    slot::set(retired());
    let Some(cache) = NonNull::new(cache.cast()) else {
        return;
    };
    // SAFETY: the thread's own cache, which its slot held until now.
    unsafe { Handle::new(cache).leave_to_next() };
}

/// A cache for the calling thread: what another thread has left on this CPU, or else one that holds
/// nothing. Where there can be no other, those that were left on other CPUs serve.
fn left_or_new(arena: &'static Arena) -> Option<Handle> {
    let heaps = arena.heaps();
    let take_over = |index| {
        let node = arena.affinity().current_node().unwrap_or(NodeIndex(0));
        // SAFETY: who takes a heap that was left has its cache, which is laid out, alone. The step
        // calls only the heap and the arena.
        unsafe {
            let cache = cache_of(arena, index);
            cache.step(|cache| cache.take_over(node));
            cache
        }
    };
    (heaps.take_left().map(take_over))
        .or_else(|| new_in(arena))
        .or_else(|| heaps.take_left_anywhere().map(take_over))
}

/// Gives back all that the caches hold which threads have left.
pub fn retire_left() {
    let Some(arena) = existing_arena() else {
        return;
    };
    while let Some(index) = arena.heaps().take_left_anywhere() {
        // SAFETY: as in `left_or_new`; no slot holds the cache.
        unsafe { cache_of(arena, index).retire() };
    }
}

/// A cache for the calling thread, which takes memory of the thread's node. It is the caller's
/// until it is retired.
pub fn new_in(arena: &'static Arena) -> Option<Handle> {
    let place = arena.heaps().acquire()?;
    let node = arena.affinity().current_node().unwrap_or(NodeIndex(0));
    let cache = NonNull::new(place.memory.cast::<ThreadCache>())?;
    // SAFETY: the memory is the arena's for a cache with this index, zero if blank and a retired
    // cache if not, and nobody else's now.
    unsafe {
        if place.blank {
            write_new(arena, cache, place.index, node);
            return Some(Handle::new(cache));
        }
        let cache = Handle::new(cache);
        cache.step(|cache| cache.settle_on(node));
        Some(cache)
    }
}

/// Writes an empty cache that takes memory of the node.
///
/// # Safety
/// The memory is the arena's for a cache with this index, zero, and nobody else's now.
unsafe fn write_new(
    arena: &'static Arena,
    cache: NonNull<ThreadCache>,
    index: usize,
    node: NodeIndex,
) {
    let new = cache.as_ptr();
    // SAFETY: zero is valid for every field but those that are written here.
    // The arrays lie in the same memory.
    unsafe {
        (&raw mut (*new).arena).write(arena);
        (&raw mut (*new).lock).write(arena.heaps().lock_of(index));
        (&raw mut (*new).heap).write(Heap::new(arena, index, node));
        (&raw mut (*new).index).write(index);
        (&raw mut (*new).scope).write(Scope::default());
        let arrays = new.cast::<u8>().add(ARRAYS_AT);
        (&raw mut (*new).arrays).write(arrays.cast());
        (*new).head.places = theap_arch::TINY_PLACES;
        (*new).head.behind = Behind::Cache;
        (*new).lay_out_magazines();
        (*new).settle_on(node);
        if arena.policy().is_prepared() {
            (*new).leave_nests();
        }
    }
}

impl ThreadCache {
    /// Gives each class its array, empty, as a FastCache: the first look at the gate turns it to
    /// what the gate says.
    fn lay_out_magazines(&mut self) {
        for class in ClassId::all() {
            let base = self.first_array(class);
            self.bases[class.index()] = base;
            self.capacities[class.index()] = self.fixed_capacity(class) as u16;
            let limit = base.wrapping_add(self.places_in_use(class));
            let magazine = self.magazine(class);
            (magazine.top, magazine.limit) = (base, limit);
        }
        // The zeroed sentinel of class 0 serves the magazines that never hold anything.
        let nothing = self.bases[ClassId::FIRST.index()];
        for kind in [Kind::Free, Kind::Large, Kind::Huge] {
            let magazine = &mut self.head.magazines[kind.magazine()];
            (magazine.top, magazine.limit) = (nothing, nothing);
        }
    }

    /// Takes memory of this node from now on. The cache has no blocks and no spans.
    pub fn settle_on(&mut self, node: NodeIndex) {
        let arena = self.arena();
        (self.head.home_part, self.head.home_bytes) = arena.addresses().open_part(node);
        self.head.kinds = arena.addresses().kinds_of_node(node);
        self.head.sized = if arena.nodes().len() == 1 {
            theap_arch::TINY_MAX
        } else {
            0
        };
        self.heap.move_to(node);
        self.away = 0;
    }

    /// Gets a cache that another thread has left ready for a thread on this node.
    fn take_over(&mut self, node: NodeIndex) {
        if node != self.node() {
            self.leave();
        }
        self.settle_on(node);
    }

    /// Gives all blocks and spans back.
    fn leave(&mut self) {
        self.flush();
        self.reset_magazines();
        self.heap.retire();
        self.heap.board.thread.store(0, Ordering::Relaxed);
    }
}

impl Handle {
    /// Leaves the cache to a later thread, which may have it at once: as it is if it holds little,
    /// else empty. No handle of it is used any more.
    ///
    /// # Safety
    /// The conditions of [`Handle::step`], and no slot holds the cache.
    unsafe fn leave_to_next(self) {
        self.forget_scope();
        // SAFETY: this function's own Safety section; the step calls only the heap and the arena.
        unsafe {
            let rests = self.last_step(ThreadCache::rest);
            if !(rests && self.arena().heaps().leave(self.index())) {
                self.retire();
            }
        }
    }

    /// Gives all blocks and spans back and leaves the cache to a later thread, which may have it at
    /// once: no handle of it is used any more.
    ///
    /// # Safety
    /// The conditions of [`Handle::step`], and no slot holds the cache.
    pub unsafe fn retire(self) {
        self.forget_scope();
        // SAFETY: this function's own Safety section; leaving calls only the heap and the arena.
        let (arena, index) = unsafe {
            self.last_step(|cache| {
                cache.leave();
                (cache.arena(), cache.index)
            })
        };
        arena.heaps().release(index);
    }
}

/// Notes on the board what this thread's cache has, and the cache of the threads that have none.
pub fn note_cached() {
    if let Some(arena) = existing_arena() {
        // SAFETY: the step reads the cache and writes figures.
        unsafe { if_shared(arena, ThreadCache::note_all_cached) };
    }
    if let Some(cache) = Handle::existing() {
        // SAFETY: as above.
        unsafe { cache.step(ThreadCache::note_all_cached) };
    }
}

/// Bytes of the budget that this thread's cache has claimed.
pub fn claimed() -> usize {
    // SAFETY: the step reads counts.
    Handle::existing().map_or(0, |cache| unsafe { cache.step(|cache| cache.claimed()) })
}
