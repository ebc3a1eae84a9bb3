//! A pointer to a thread's cache, and the one way to borrow it.
//!
//! A slot points to the cache, the hit paths read and write its magazines through that pointer, and
//! every slow path needs the whole struct. References that lived across calls would overlap: a run
//! that grows frees a block, a free refills a magazine. So slow paths hold a [`Handle`], and borrow
//! the cache for one [`Handle::step`] at a time, which takes the lock of its heap: between steps a
//! reclaimer may take spans out of it. Inside of a step nothing is called that could take
//! another one: the step works on the cache, its heap and the arena, which call nobody above them.
#![allow(unsafe_code)] // Makes the reference that a step works on.

use super::cache::ThreadCache;
use super::head::{Head, cache_behind, own, slot};
use super::setup::Setup;
use crate::pool::Arena;
use crate::pool::heap_lock::HeapLock;
use core::ptr::NonNull;

/// Nanoseconds after which a thread that waits for a reclaimer looks at the lock again.
const LONGEST_WAIT: u64 = 1_000_000;

/// A thread's cache, for the code of that thread. A handle stays valid until the cache is retired.
#[derive(Clone, Copy)]
pub struct Handle(NonNull<ThreadCache>);

impl Handle {
    /// # Safety
    /// `cache` is a cache whose fields are all written, and it is the calling thread's alone until
    /// it is retired; the pointer may be used for all [`super::cache::CACHE_BYTES`] bytes of its
    /// memory.
    pub unsafe fn new(cache: NonNull<ThreadCache>) -> Self {
        Self(cache)
    }

    /// The cache behind a head, or a new one for this thread. `None` if there is no memory for one.
    ///
    /// # Safety
    /// `head` is what this thread's slot holds.
    #[inline]
    pub unsafe fn of(head: *mut Head, setup: &Setup) -> Option<Self> {
        // SAFETY: this function's own Safety section.
        match NonNull::new(unsafe { cache_behind(head) }) {
            None => super::life::adopt(setup),
            Some(head) => Some(Self(head.cast())),
        }
    }

    /// This thread's cache, or a new one. `None` if there is no memory for one.
    #[inline]
    pub fn mine(setup: &Setup) -> Option<Self> {
        // SAFETY: the slot's own value.
        unsafe { Self::of(slot::get(), setup) }
    }

    /// This thread's cache if it has one.
    #[inline]
    pub fn existing() -> Option<Self> {
        NonNull::new(own().cast()).map(Self)
    }

    /// Borrows the cache for one step.
    ///
    /// # Safety
    /// The step takes no other step of the same cache: it calls no entry point of the front, makes
    /// no arena and arms no hook for the thread's end. The cache was not retired.
    #[inline]
    pub unsafe fn step<R>(self, step: impl FnOnce(&mut ThreadCache) -> R) -> R {
        let (lock, entered) = self.enter();
        // SAFETY: the cache is this thread's alone (`new`) but for its heap, which is so while the
        // lock is held. No other reference to it lives: those that steps make end with their steps,
        // and steps do not nest (this function's own Safety section).
        let done = step(unsafe { &mut *self.0.as_ptr() });
        if entered {
            lock.leave();
        }
        done
    }

    /// Borrows the cache for its last step: from then on nobody takes anything out of its heap.
    ///
    /// # Safety
    /// The conditions of `step`.
    pub unsafe fn last_step<R>(self, step: impl FnOnce(&mut ThreadCache) -> R) -> R {
        let (lock, _) = self.enter();
        // SAFETY: as in `step`.
        let done = step(unsafe { &mut *self.0.as_ptr() });
        lock.leave_closed();
        done
    }

    /// Takes the lock of the cache's heap. False beside it if the thread has it already: a handler
    /// of a signal has interrupted a step, and allocates.
    #[inline]
    fn enter(self) -> (&'static HeapLock, bool) {
        let os = self.arena().os();
        // SAFETY: the field is written once, before there is a handle.
        let lock = unsafe { (&raw const (*self.0.as_ptr()).lock).read() };
        let entered = lock.enter(|word, value| os.sleep(word, value, LONGEST_WAIT));
        debug_assert!(entered, "two steps of one thread cache at once");
        (lock, entered)
    }

    /// Tells whether the thread is in a step, which a signal's handler has interrupted.
    pub fn is_in_step(self) -> bool {
        // SAFETY: the field is written once, before there is a handle.
        unsafe { (&raw const (*self.0.as_ptr()).lock).read() }.is_owned()
    }

    /// The arena's number of the cache.
    pub fn index(self) -> usize {
        // SAFETY: the field is written once, before there is a handle.
        unsafe { (&raw const (*self.0.as_ptr()).index).read() }
    }

    /// The arena that the cache's memory and blocks come from.
    #[inline]
    pub fn arena(self) -> &'static Arena {
        // SAFETY: the field is written once, before there is a handle.
        unsafe { (&raw const (*self.0.as_ptr()).arena).read() }
    }

    /// The cache's memory.
    pub fn memory(self) -> *mut ThreadCache {
        self.0.as_ptr()
    }
}
