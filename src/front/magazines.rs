//! THEAP: what is behind a magazine. A refill takes half a magazine of blocks, a drain returns the
//! older half to the spans: whole batches, and never a look into a free block. A large magazine
//! moves no more than [`BATCH`] blocks at once, as the thread that misses waits for all of them;
//! and the first refills of a thread are small, as the thread may be short-lived.
//!
//! The magazine of a class whose blocks share cache lines is *shut* until the class's first refill:
//! it takes no block. What a thread frees before it has allocated is another thread's, and its line
//! may have blocks of further threads. If it went into the magazine, the thread would get it at its
//! next allocation, and two threads would write to one line again and again. So such blocks go home
//! to their spans, up to [`HOME`] of a class, and the thread begins with a batch of its own.
//!
//! Which classes have magazines the arena's gate says; a cache compares it with what it serves
//! whenever it misses.
#![allow(unsafe_code)] // Moves the ends of arrays.

use super::allowance::{Allowance, nest_capacity};
use super::cache::ThreadCache;
use super::learner::Learner;
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::geometry::ClassId;
use core::ptr;
use core::sync::atomic::Ordering;

/// Most blocks of a batch.
pub const BATCH: usize = 1024;
/// Blocks of a class's first refills, whose number is [`FIRST`], and of those of a class of at most
/// [`TINY`] bytes; after them each refill doubles the next.
const FEW: usize = 4;
const FEW_TINY: usize = 8;
/// Up to this size a few blocks more in a magazine are next to nothing.
const TINY: u32 = 128;
/// The refills that come out of a magazine in its nest. If they doubled too, a thread would have
/// half of its blocks in magazines, in pages that it has touched.
const FIRST: u8 = 4;
/// Blocks of a class that a thread sends home one by one before its first refill. Then the magazine
/// opens all the same: a thread that only frees others' blocks is to move them in batches.
const HOME: u8 = 8;
/// The classes whose blocks share cache lines: the first ones.
const IN_LINES: usize = {
    let mut class = 0;
    while CLASSES[class].size < LINE {
        class += 1;
    }
    class
};
/// Bytes of a cache line.
const LINE: u32 = 64;
/// Most places of a class's array in the nest.
pub const NEST: usize = FEW_TINY;
/// Most bytes of blocks that a thread leaves to the next one.
const LEFT: usize = 32 << 10;
/// Features that keep freed blocks outside of magazines: a cache is emptied when its thread ends.
const HOLDS_BLOCKS_BACK: bool = cfg!(any(feature = "hardened", feature = "valgrind"));
/// Refills after which each one is a whole batch.
const SMALL: u8 = FIRST + (BATCH / FEW).trailing_zeros() as u8;

/// The magazines of a cache. Zero is valid: the classic front serves all classes.
pub struct MagazineState {
    /// The classes that magazines serve, by their bits.
    served: u64,
    /// Batches that each class has had, up to [`SMALL`].
    batches: [u8; CLASS_COUNT],
    /// Blocks of each class that went home before its first refill.
    home: [u8; IN_LINES],
    /// The classes whose arrays are still in the nest, by their bits.
    nested: u64,
    /// What the magazines may hold together.
    pub allowance: Allowance,
    /// The capacities that the workload has taught.
    pub learner: Learner,
}

impl MagazineState {
    /// Bytes of the budget that learned capacities have claimed.
    pub fn claimed(&self) -> usize {
        self.learner.claimed()
    }

    /// Blocks of the class that are arrays of magazines.
    #[inline]
    pub fn arrays(&self, class: ClassId) -> usize {
        self.learner.arrays(class)
    }

    /// Batches that the class has had, as long as they are small.
    pub fn batches(&self, class: ClassId) -> u8 {
        self.batches[class.index()]
    }

    /// Notes that the class gets a batch.
    pub fn count_batch(&mut self, class: ClassId) {
        let batches = &mut self.batches[class.index()];
        *batches = (*batches + 1).min(SMALL);
    }
}

/// Places of a class's array in the cache's own memory.
pub const fn places(class: ClassId) -> usize {
    CLASSES[class.index()].magazine as usize
}

/// Places of a class's array in the nest: those of its first refills at least.
pub const fn nest_places(class: ClassId) -> usize {
    let (nest, most) = (nest_capacity(class), places(class));
    if nest >= FEW {
        nest
    } else if most < FEW {
        most
    } else {
        FEW
    }
}

/// Blocks that a miss of a magazine of this capacity moves.
pub fn batch(capacity: usize) -> usize {
    (capacity / 2).clamp(1, BATCH)
}

impl ThreadCache {
    /// Whether the class's array is a magazine; else it is a FastCache.
    pub fn has_magazine(&self, class: ClassId) -> bool {
        self.magazines.served & class.bit() != 0
    }

    /// The classes that have magazines, by their bits.
    #[cfg(any(test, debug_assertions))]
    pub fn served(&self) -> u64 {
        self.magazines.served
    }

    /// The array that the class begins with: the one in the nest.
    pub fn first_array(&mut self, class: ClassId) -> *mut *mut u8 {
        self.magazines.nested |= class.bit();
        self.nest(class)
    }

    /// Places of the class's array that may be used now.
    pub fn places_in_use(&self, class: ClassId) -> usize {
        if self.has_magazine(class) {
            usize::from(self.capacities[class.index()])
        } else if self.magazines.nested & class.bit() != 0 {
            self.fast_places(class).min(nest_places(class))
        } else {
            self.fast_places(class)
        }
    }

    /// The class's array in the cache's own memory, where it may have so many places. `None` if
    /// there is no memory for that.
    pub fn own_array_for(&mut self, class: ClassId, capacity: usize) -> Option<*mut *mut u8> {
        let fits = capacity <= nest_places(class) && self.magazines.nested & class.bit() != 0;
        if fits {
            return Some(self.nest(class));
        }
        self.leave_nest(class).then(|| self.own_array(class))
    }

    /// Places of the class's array, in use or not.
    #[cfg(feature = "valgrind")]
    pub fn array_places(&self, class: ClassId) -> usize {
        if self.magazines.nested & class.bit() != 0 {
            nest_places(class)
        } else {
            places(class)
        }
    }

    /// Moves the class's FastCache out of the nest if it may then have more places. False if it
    /// stays where it is.
    fn outgrow_nest(&mut self, class: ClassId) -> bool {
        self.magazines.nested & class.bit() != 0
            && self.fast_places(class) > nest_places(class)
            && self.leave_nest(class)
    }

    /// Moves the class's array to its own place, if it is in the nest. False if there is no memory
    /// for that: the array stays.
    #[cold]
    pub fn leave_nest(&mut self, class: ClassId) -> bool {
        if self.magazines.nested & class.bit() == 0 {
            return true;
        }
        if self.arena().heaps().open_whole(self.index).is_err() {
            return false;
        }
        self.magazines.nested &= !class.bit();
        let held = self.held(class);
        let base = self.own_array(class);
        // SAFETY: both arrays have places for what the class's array holds, and lie apart, outside
        // of the struct.
        unsafe {
            ptr::copy_nonoverlapping(self.bases[class.index()], base, held);
            let limit = base.add(self.places_in_use(class));
            let magazine = self.magazine(class);
            (magazine.top, magazine.limit) = (base.add(held), limit);
        }
        self.bases[class.index()] = base;
        self.wipe(class);
        true
    }

    /// Moves all arrays out of the nest, as the program wants all at hand.
    pub fn leave_nests(&mut self) {
        // One that stays has fewer places.
        ClassId::all().all(|class| self.leave_nest(class));
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
            return !self.stays_shut(class) && (self.has_room(class) || self.drain_magazine(class));
        }
        if !self.outgrow_nest(class) {
            // SAFETY: the array is full (this function's own Safety section).
            unsafe { self.spill(class) };
        }
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
        self.magazines.allowance.note_miss(class);
        let before = self.magazines.batches(class);
        self.magazines.count_batch(class);
        if before == 0 {
            self.open(class);
        } else if before >= FIRST {
            self.raise(class);
        }
        self.learn(class, false);
        let is_tiny = CLASSES[class.index()].size <= TINY;
        let few = if is_tiny { FEW_TINY } else { FEW };
        let capacity = usize::from(self.capacities[class.index()]);
        let want = if before < FIRST {
            capacity.clamp(1, few)
        } else {
            batch(capacity).min(few << (before - FIRST + 1))
        };
        // SAFETY: the magazine is empty (this function's own Safety section; what changes its
        // capacity moves nothing into it), its array has a place at least, and as many as its
        // capacity.
        unsafe {
            if self.lists[class.index()].is_empty() {
                let base = self.bases[class.index()];
                let got = self.take_nursed(class, before, base, want);
                if got > 0 {
                    return self.filled(class, got);
                }
            }
            self.fill(class, want, want)
        }
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
            if self.has_magazine(class) {
                self.begin_magazine(class);
            } else {
                self.end_magazine(class);
            }
            let places = self.places_in_use(class);
            let base = self.bases[class.index()];
            // SAFETY: the class has as many places, and the array holds no more blocks.
            self.magazine(class).limit = unsafe { base.add(places) };
            self.shut(class);
            self.heap.counters.classes_switched.add(1);
        }
    }

    /// Answers true if the class's blocks share lines and its magazine has had no batch.
    pub fn may_be_shut(&self, class: ClassId) -> bool {
        class.index() < IN_LINES && self.has_magazine(class) && self.magazines.batches(class) == 0
    }

    /// Shuts the class's magazine if it may be.
    fn shut(&mut self, class: ClassId) {
        if self.may_be_shut(class) {
            let magazine = self.magazine(class);
            magazine.limit = magazine.top;
        }
    }

    /// Lets the class's magazine hold as much as it may.
    fn open(&mut self, class: ClassId) {
        let (base, places) = (self.bases[class.index()], self.places_in_use(class));
        self.magazine(class).limit = base.wrapping_add(places);
    }

    /// Answers true if a block that a magazine does not take has to go home alone, as the magazine
    /// is shut. Opens it if enough blocks have gone.
    fn stays_shut(&mut self, class: ClassId) -> bool {
        if !self.may_be_shut(class) {
            return false;
        }
        let home = &mut self.magazines.home[class.index()];
        if *home < HOME {
            *home += 1;
            return true;
        }
        self.open(class);
        false
    }

    /// Makes the class's FastCache a magazine, which may hold what a nest holds.
    fn begin_magazine(&mut self, class: ClassId) {
        let (base, capacity) = (self.bases[class.index()], nest_capacity(class));
        if self.held(class) > capacity {
            // SAFETY: the class's array stays where it is, and has places for that.
            unsafe { self.move_array(class, base, capacity) };
        }
        self.capacities[class.index()] = capacity as u16;
        self.note_capacity(class, capacity);
    }

    /// Makes the class's magazine a FastCache: empties it, and gives its capacity back. FastCache
    /// and list may hold what the option `magazine` says.
    fn end_magazine(&mut self, class: ClassId) {
        self.flush_array(class);
        self.unlearn(class);
        // The cache's own memory has places for that: this cannot fail.
        self.set_capacity(class, nest_capacity(class));
        self.capacities[class.index()] = self.fixed_capacity(class) as u16;
    }

    /// Gets the cache ready for its next thread as it is, with the blocks that it holds. False if
    /// it holds too much for that, has learned something, or holds a block twice: the drain then
    /// tells which.
    pub fn rest(&mut self) -> bool {
        if HOLDS_BLOCKS_BACK
            || self.listed != 0
            || !self.magazines.allowance.is_least()
            || !self.heap.has_no_span()
        {
            return false;
        }
        let mut bytes = 0;
        for class in ClassId::all() {
            let held = self.held(class);
            if held > 0 {
                bytes += held * CLASSES[class.index()].size as usize;
                self.note_cached(class);
                if self.is_doubtful(class) {
                    return false;
                }
            }
        }
        if bytes > LEFT {
            return false;
        }
        // The hit path has emptied others.
        self.note_noted();
        self.reset_magazines();
        self.heap.rest();
        self.heap.board.thread.store(0, Ordering::Relaxed);
        true
    }

    /// Tells whether one of the class's few blocks is there twice or begins nowhere.
    fn is_doubtful(&self, class: ClassId) -> bool {
        let (base, held) = (self.bases[class.index()], self.held(class));
        // SAFETY: the array's pointers lie from its base to its top, outside of the struct, and
        // this thread alone uses them.
        let blocks = unsafe { core::slice::from_raw_parts(base, held) };
        let addresses = self.arena().addresses();
        let begins = |address| {
            let part = addresses.span_of(address);
            part.and_then(|part| part.index_of(address)).is_some()
        };
        (0..held).any(|i| !begins(blocks[i] as usize) || blocks[..i].contains(&blocks[i]))
    }

    /// Forgets what the cache's thread has taught, and gives all capacities back: the next thread
    /// begins anew.
    pub fn reset_magazines(&mut self) {
        self.magazines.batches = [0; CLASS_COUNT];
        self.magazines.home = [0; IN_LINES];
        self.unlearn_all();
        self.lower_all();
        (0..IN_LINES).for_each(|class| self.shut(ClassId::new(class)));
    }
}
