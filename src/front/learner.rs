//! The learner: which magazines are to be larger than the option `magazine` makes them.
//!
//! A class that turns between refills and drains works in bursts that its magazine cannot hold. After [`TURNS`] of
//! them its capacity doubles, up to [`MOST`] blocks, as long as the blocks that all grown magazines of the thread may
//! hold beyond their fixed capacities stay below the option `budget`; where it is used up, grown classes that have
//! not turned since the last look give their part back first. Every [`PERIOD`] misses all classes are looked at, and
//! the grown ones that have not turned shrink by half: what a former workload needed is forgotten, and a workload that
//! still needs it pays some refills and drains a period. Classes that only refill or only drain (of a producer and a
//! consumer) never grow: a larger magazine would save them nothing.
//!
//! It is asked where magazines are refilled and drained, nowhere else. A capacity beyond the places that the front
//! has for a class moves the magazine's pointers into a block of the thread's own heap, which is given back when the
//! capacity shrinks, the class goes to the classic front, or the thread ends.

use super::thread::{Front, own_array, places};
use crate::classes::{CLASS_COUNT, CLASSES, class_for};
use core::ptr;

/// Turns between refill and drain after which a magazine grows.
const TURNS: u8 = 4;
/// Misses, of all classes of the thread, between two looks.
const PERIOD: u32 = 1024;
/// Largest capacity.
const MOST: usize = 8192;

/// What a thread's classes did lately. Zero is valid.
pub struct Learner {
    /// Classes whose last miss was a drain.
    drained: u64,
    /// Turns of each class since the last look, or since it grew.
    turns: [u8; CLASS_COUNT],
    /// Classes that turned since the last look.
    turned: u64,
    /// Classes above their fixed capacity.
    grown: u64,
    /// Bytes of blocks that grown magazines may hold beyond their fixed capacities.
    spent: usize,
    misses: u32,
}

impl Front {
    /// Notes a refill or a drain of the class's magazine; whether its capacity grew.
    #[inline]
    pub(super) fn learn(&mut self, class: usize, drain: bool) -> bool {
        let learner = &mut self.learner;
        let bit = 1 << class;
        let turned = (learner.drained & bit != 0) != drain;
        learner.drained ^= if turned { bit } else { 0 };
        learner.misses += 1;
        learner.turns[class] += u8::from(turned);
        if learner.misses < PERIOD && learner.turns[class] < TURNS {
            return false;
        }
        self.decide(class)
    }

    #[cold]
    fn decide(&mut self, class: usize) -> bool {
        if !self.arena().learns() {
            self.learner.misses = 0;
            self.learner.turns[class] = 0;
            return false;
        }
        if self.learner.misses >= PERIOD {
            self.learner.misses = 0;
            self.forget(!self.learner.turned);
            self.learner.turned = 0;
        }
        if self.learner.turns[class] < TURNS {
            return false;
        }
        self.learner.turns[class] = 0;
        self.learner.turned |= 1 << class;
        self.grow(class)
    }

    /// Doubles the class's capacity if the budget has room, or gets some from classes that do not turn.
    fn grow(&mut self, class: usize) -> bool {
        let (now, budget) = (self.capacities[class] as usize, self.arena().config.budget);
        let cost = now * CLASSES[class].size as usize;
        if now * 2 > MOST || cost > budget {
            return false;
        }
        if self.learner.spent + cost > budget {
            self.forget(!self.learner.turned);
        }
        let grows = self.learner.spent + cost <= budget && self.set_capacity(class, now * 2);
        self.heap.counters.magazines_grown.add(u64::from(grows));
        grows
    }

    /// Halves the capacities of those of these classes that have grown.
    fn forget(&mut self, classes: u64) {
        let mut left = classes & self.learner.grown;
        while left != 0 {
            let class = left.trailing_zeros() as usize;
            left &= left - 1;
            let half = self.capacities[class] as usize / 2;
            let shrunk = self.set_capacity(class, half.max(self.fixed_capacity(class)));
            self.heap.counters.magazines_shrunk.add(u64::from(shrunk));
        }
    }

    /// Takes back all that the class has learned.
    pub(super) fn unlearn(&mut self, class: usize) {
        if self.learner.grown & 1 << class != 0 {
            self.learner.turns[class] = 0;
            // The fixed capacity has its places in the front: this cannot fail.
            self.set_capacity(class, self.fixed_capacity(class));
        }
    }

    /// Forgets everything: the front's next thread begins anew.
    pub(super) fn unlearn_all(&mut self) {
        (0..CLASS_COUNT).for_each(|class| self.unlearn(class));
        self.learner = Learner {
            drained: 0,
            turns: [0; CLASS_COUNT],
            turned: 0,
            grown: 0,
            spent: 0,
            misses: 0,
        };
    }

    /// Changes a magazine's capacity; what it holds beyond that goes to the spans. False if there is no memory for its
    /// pointers: nothing has changed then.
    fn set_capacity(&mut self, class: usize, capacity: usize) -> bool {
        let old = self.bases[class];
        let own = own_array(self, class);
        let base = if capacity <= places(class) {
            own
        } else {
            match self.new_array(capacity) {
                Some(base) => base,
                None => return false,
            }
        };
        // SAFETY: the magazine's pointers lie from its base to its top; the new array has `capacity` places and is
        // the old one or does not overlap it.
        unsafe {
            let held = self.magazine(class).top.offset_from(old) as usize;
            let gone = held.saturating_sub(capacity);
            if gone > 0 {
                self.heap.give(core::slice::from_raw_parts(old, gone));
            }
            ptr::copy(old.add(gone), base, held - gone);
            let magazine = self.magazine(class);
            magazine.top = base.add(held - gone);
            magazine.limit = base.add(capacity);
        }
        self.bases[class] = base;
        self.wipe(class);
        if old != own {
            // The block begins with the sentinel.
            self.heap.give(&[old.wrapping_sub(1).cast()]);
        }
        self.account(class, capacity);
        true
    }

    /// Places for so many pointers above a sentinel, in a block of the heap.
    fn new_array(&mut self, capacity: usize) -> Option<*mut *mut u8> {
        if cfg!(any(feature = "hardened", feature = "valgrind")) {
            // What a free block contains is compared when it is handed out, or is out of bounds: no block may hold
            // pointers in between.
            return None;
        }
        let class = class_for((capacity + 1) * size_of::<*mut u8>(), 16)?;
        let mut block: *mut u8 = ptr::null_mut();
        // SAFETY: one place below the end; then the block's first word.
        unsafe {
            if self.heap.take(class, (&raw mut block).add(1), 1) == 0 {
                return None;
            }
            let sentinel = block.cast::<*mut u8>();
            sentinel.write(ptr::null_mut());
            Some(sentinel.add(1))
        }
    }

    fn account(&mut self, class: usize, capacity: usize) {
        let (size, fixed) = (CLASSES[class].size as usize, self.fixed_capacity(class));
        let before = (self.capacities[class] as usize - fixed) * size;
        self.learner.spent = self.learner.spent - before + (capacity - fixed) * size;
        self.capacities[class] = capacity as u16;
        self.learner.grown &= !(1 << class);
        self.learner.grown |= u64::from(capacity > fixed) << class;
        self.heap.class_counters[class]
            .learned_blocks
            .set((capacity - fixed) as u64);
    }
}
