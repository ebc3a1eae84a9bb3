//! THEAP: what is behind a magazine. A refill takes half a magazine of blocks, a drain returns the
//! older half to the spans: whole batches, and never a look into a free block. A large magazine
//! moves no more than [`BATCH`] blocks at once, as the thread that misses waits for all of them;
//! and the first refills of a thread are small, as the thread may be short-lived.
//!
//! Which classes have magazines the arena's gate says; a cache compares it with what it serves
//! whenever it misses.
#![allow(unsafe_code)] // Moves the ends of arrays.

use super::cache::ThreadCache;
use super::learner::Learner;
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::geometry::ClassId;

/// Most blocks of a batch.
pub const BATCH: usize = 1024;
/// Blocks of a class's first refill; each refill doubles the next.
const FIRST: usize = 8;

/// The magazines of a cache. Zero is valid: the classic front serves all classes.
pub struct MagazineState {
    /// The classes that magazines serve, by their bits.
    served: u64,
    /// Refills of each class's magazine so far, as long as they are small.
    refilled: [u8; CLASS_COUNT],
    /// The capacities that the workload has taught.
    pub learner: Learner,
}

impl MagazineState {
    /// Bytes of the budget that learned capacities have claimed.
    pub fn claimed(&self) -> usize {
        self.learner.claimed()
    }
}

/// Places of a class's array in the cache's own memory.
pub const fn places(class: ClassId) -> usize {
    CLASSES[class.index()].magazine as usize
}

/// Blocks that a miss of a magazine of this capacity moves.
pub fn batch(capacity: usize) -> usize {
    (capacity / 2).clamp(1, BATCH)
}

impl ThreadCache {
    /// Whether the class's array is a magazine; else it is a FastCache.
    fn has_magazine(&self, class: ClassId) -> bool {
        self.magazines.served & class.bit() != 0
    }

    /// Places of the class's array that may be used now.
    pub fn places_in_use(&self, class: ClassId) -> usize {
        if self.has_magazine(class) {
            usize::from(self.capacities[class.index()])
        } else {
            self.fast_places(class)
        }
    }

    /// A block for an empty array, which takes more. Null if there is no memory.
    ///
    /// # Safety
    /// The class's array is empty.
    #[inline]
    pub unsafe fn refill(&mut self, class: ClassId) -> *mut u8 {
        // SAFETY: the array is empty (this function's own Safety section).
        unsafe {
            if self.has_magazine(class) {
                self.refill_magazine(class)
            } else {
                self.refill_fast_cache(class)
            }
        }
    }

    /// Makes room in a full array; false if there is none, and the block must go to its span.
    ///
    /// # Safety
    /// The class's array is full.
    #[inline]
    pub unsafe fn empty_in_part(&mut self, class: ClassId) -> bool {
        if self.has_magazine(class) {
            return self.drain_magazine(class);
        }
        // SAFETY: the array is full (this function's own Safety section).
        unsafe { self.spill(class) };
        true
    }

    /// Switches classes to the other front if the gate says so.
    #[inline]
    pub fn heed_gate(&mut self) {
        let served = self.arena().policy().gate().served();
        if served != self.magazines.served {
            self.switch(served);
        }
    }

    /// Fills half of an empty magazine and pops the first block: of the class's list, while
    /// something is left there from the classic front, else of the spans. Null if there is no
    /// memory.
    ///
    /// # Safety
    /// The class's array is an empty magazine.
    #[inline(never)]
    unsafe fn refill_magazine(&mut self, class: ClassId) -> *mut u8 {
        self.learn(class, false);
        let half = batch(usize::from(self.capacities[class.index()]));
        let refilled = &mut self.magazines.refilled[class.index()];
        let want = half.min(FIRST << *refilled);
        *refilled += u8::from(want < half);
        // SAFETY: the magazine is empty (this function's own Safety section; learning moves nothing
        // into it), and half of its capacity is no more than its places.
        unsafe { self.fill(class, want, want) }
    }

    /// Switches classes between the fronts as the gate says. A class keeps its array and its list,
    /// so blocks only move where a magazine holds more than a FastCache may: then it is emptied
    /// into the spans.
    #[cold]
    fn switch(&mut self, served: u64) {
        let mut changed = served ^ core::mem::replace(&mut self.magazines.served, served);
        while changed != 0 {
            let class = ClassId::new(changed.trailing_zeros() as usize);
            changed &= changed - 1;
            if !self.has_magazine(class) {
                self.flush_array(class);
                self.unlearn(class);
            }
            let places = self.places_in_use(class);
            let base = self.bases[class.index()];
            // SAFETY: the class has as many places, and the array holds no more blocks.
            self.magazine(class).limit = unsafe { base.add(places) };
            self.heap.counters.classes_switched.add(1);
        }
    }

    /// Forgets what the cache's thread has taught: the next thread begins anew.
    pub fn reset_magazines(&mut self) {
        self.magazines.refilled = [0; CLASS_COUNT];
        self.unlearn_all();
    }
}
