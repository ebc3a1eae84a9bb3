//! THEAP: what is behind a magazine. A refill takes half a magazine of blocks, a drain returns the older half to the
//! spans: whole batches, and never a look into a free block. A large magazine moves no more than [`BATCH`] blocks at
//! once, as whoever misses waits for all of them; and the first refills of a thread are small, as it may be short-lived.

use super::thread::Front;
#[cfg(feature = "drain")]
use core::ptr;

/// Most blocks of a batch.
const BATCH: usize = 1024;
/// Blocks of a class's first refill; each doubles the next.
const FIRST: usize = 8;
/// Capacity above which a drain returns the newest blocks: moving the others down would cost more than the drain.
#[cfg(feature = "drain")]
const LONG: usize = 4 * BATCH;

/// Blocks that a miss of a magazine of this capacity moves.
pub(super) fn batch(capacity: usize) -> usize {
    (capacity / 2).clamp(1, BATCH)
}

impl Front {
    /// Fills half of an empty magazine and pops the first block: of the class's list, while something is left there
    /// from the classic front, else of the spans. Null if there is no memory.
    #[inline(never)]
    pub(super) fn refill_magazine(&mut self, class: usize) -> *mut u8 {
        #[cfg(feature = "drain")]
        self.learn(class, false);
        let half = batch(self.capacities[class] as usize);
        let refilled = &mut self.refilled[class];
        let want = half.min(FIRST << *refilled);
        *refilled += u8::from(want < half);
        self.fill(class, want, want)
    }

    /// Returns the older half of a full magazine to the spans, unless it grows instead.
    #[cfg(feature = "drain")]
    #[inline(never)]
    pub(super) fn drain_magazine(&mut self, class: usize) {
        if self.learn(class, true) {
            return;
        }
        let base = self.bases[class];
        // SAFETY: the magazine's pointers lie from its base to its top, and this thread alone uses them.
        unsafe {
            let held = self.magazine(class).top.offset_from(base) as usize;
            let gone = held.div_ceil(2).min(BATCH);
            if held > LONG {
                let newest = base.add(held - gone);
                self.heap.give(core::slice::from_raw_parts(newest, gone));
            } else {
                self.heap.give(core::slice::from_raw_parts(base, gone));
                ptr::copy(base.add(gone), base, held - gone);
            }
            self.magazine(class).top = base.add(held - gone);
            self.wipe(class);
        }
    }

    /// Switches classes between the fronts as the gate says. A class keeps its array and its list, so blocks only move
    /// where a magazine holds more than a FastCache may: then it is emptied into the spans.
    #[cold]
    pub(super) fn switch(&mut self, served: u64) {
        let mut changed = served ^ core::mem::replace(&mut self.served, served);
        while changed != 0 {
            let class = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            let places = if served & 1 << class != 0 {
                self.capacities[class] as usize
            } else {
                self.flush_array(class);
                #[cfg(feature = "drain")]
                self.unlearn(class);
                self.fast_places(class)
            };
            // SAFETY: the class has as many places, and the array holds no more blocks.
            self.magazine(class).limit = unsafe { self.bases[class].add(places) };
            self.heap.counters.classes_switched.add(1);
        }
    }
}
