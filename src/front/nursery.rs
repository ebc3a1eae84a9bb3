//! Nurseries: a heap for each CPU, from which the threads there take their first blocks of a class.
//!
//! A thread's first batches are small, and a span of its own would be almost empty. So the first
//! batches of each class ([`BATCHES`]) come from the spans of the CPU's nursery, under its lock.
//! To the nursery's spans the thread is any thread that does not own them: what it frees of them
//! goes home by remote bits. A thread that allocates little never owns a span and has none to
//! give back; one that takes more has spans of its own from then on.
//!
//! A thread that finds the nursery's lock taken does not wait: it goes to another nursery, and if
//! some of these are taken too it gets a span of its own.
#![allow(unsafe_code)] // Makes a handle of the nursery's cache, and fills an array.

use super::cache::ThreadCache;
use super::life::{SHARED, cache_of, new_in};
use crate::classes::CLASSES;
use crate::geometry::ClassId;
use crate::heap::Heap;
use crate::pool::Arena;

/// Batches of a class that a thread takes from a nursery, of a class of large blocks and of others:
/// about a hundred small blocks.
const BATCHES: [u8; 2] = [4, 8];
/// The size from which on blocks are large.
const LARGE: usize = 16 << 10;
/// Nurseries that a thread tries.
const TRIED: usize = 8;
/// Most bytes of such a batch, but for a single block.
const BYTES: usize = 32 << 10;

/// Takes a step of each nursery's cache, under its lock.
///
/// # Safety
/// The step calls only the heap and the arena.
pub unsafe fn each_nursery(arena: &'static Arena, mut step: impl FnMut(&mut ThreadCache)) {
    arena.heaps().each_nursery(|index| {
        // SAFETY: the lock is held, and with it the cache is this thread's; the step is as this
        // function's Safety section asks.
        unsafe { cache_of(arena, index).step(&mut step) }
    });
}

impl ThreadCache {
    /// Takes up to `want` blocks of the class from the nursery, which are the `batch`-th batch of
    /// the class, and writes them from `base` on. Returns their number; 0 if the thread has had its
    /// share, or the nursery has none.
    ///
    /// # Safety
    /// The `want` places from `base` on are the caller's.
    pub unsafe fn take_nursed(
        &mut self,
        class: ClassId,
        batch: u8,
        base: *mut *mut u8,
        want: usize,
    ) -> usize {
        if !self.is_nursed(class, batch) {
            return 0;
        }
        let want = want.min((BYTES / CLASSES[class.index()].size as usize).max(1));
        // SAFETY: the step calls only the heap, and writes below the end of the caller's places.
        unsafe {
            let end = base.add(want);
            let got = self.nurse(|heap| heap.take(class, end, want)).unwrap_or(0);
            core::ptr::copy(end.sub(got), base, got);
            if got > 0 {
                // Its nursery is on its node. A thread that is elsewhere has its own spans, and is
                // followed there.
                self.away = 0;
            }
            got
        }
    }

    /// A block of the class that reads zero, of the nursery or of the cache's own spans.
    #[cfg_attr(
        any(feature = "hardened", feature = "valgrind"),
        allow(dead_code, reason = "every block is cleared there")
    )]
    pub fn take_fresh(&mut self, class: ClassId) -> Option<*mut u8> {
        let batch = self.magazines.batches(class);
        self.follow();
        if self.is_nursed(class, batch) {
            // SAFETY: the step calls only the heap.
            let taken = unsafe { self.nurse(|heap| heap.take_fresh(class)) };
            if let Some(block) = taken {
                if block.is_some() {
                    self.magazines.count_batch(class);
                }
                return block;
            }
        }
        self.heap.take_fresh(class)
    }

    /// Tells whether the `batch`-th batch of a class comes from the nursery. A block that is a span
    /// does not: there is nothing to share. Never with the feature `valgrind`: helgrind knows
    /// nothing of the nursery's lock.
    fn is_nursed(&self, class: ClassId, batch: u8) -> bool {
        let info = &CLASSES[class.index()];
        let is_small = (info.size as usize) < LARGE;
        let policy = self.arena().policy();
        batch < BATCHES[usize::from(is_small)]
            && !info.is_whole()
            && self.index != SHARED
            && policy.config().nursery
            && !policy.is_prepared()
            && !cfg!(feature = "valgrind")
    }

    /// Takes a step of a nursery's heap. `None` if others have all that were tried, if there is no
    /// memory for one, or if none is of this cache's node.
    ///
    /// # Safety
    /// The step calls only the heap and the arena.
    unsafe fn nurse<R>(&self, mut step: impl FnMut(&mut Heap) -> R) -> Option<R> {
        let (arena, node) = (self.arena(), self.node());
        let cpu = arena.affinity().current_cpu();
        if arena.affinity().node_of_cpu(cpu) != Some(node) {
            return None;
        }
        for mut index in (0..TRIED).filter_map(|away| arena.heaps().nursery(cpu, away)) {
            // SAFETY: the lock is held, and with it the cache is this thread's; the steps do what
            // this function's Safety section asks.
            unsafe {
                if *index == 0 {
                    let cache = new_in(arena)?;
                    cache.step(|cache| cache.heap.become_nursery());
                    *index = cache.index() as u32;
                }
                let done = cache_of(arena, *index as usize)
                    .step(|cache| (cache.node() == node).then(|| step(&mut cache.heap)));
                if done.is_some() {
                    return done;
                }
            }
        }
        None
    }
}
