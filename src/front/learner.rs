//! The learner: which magazines are to be larger than the option `magazine` makes them.
//!
//! A class that turns between refills and drains works in bursts that its magazine cannot hold. After [`TURNS`] of
//! them its capacity grows to what the shortest of these bursts would have needed, at least to twice what it was and at
//! most to [`MOST`] blocks, as far as the option `budget` has room for the blocks that it may hold beyond its fixed
//! capacity (`pool/budget.rs`). Where that is used up, grown classes of the thread that have not turned since it was
//! used up last give half of their part back. What has not turned for the time of the option `decay` shrinks by half
//! too, at one of the thread's next misses: what a former workload needed is forgotten. Classes that only refill or only
//! drain (of a producer and a consumer) never grow: a larger magazine would save them nothing.
//!
//! It is asked where magazines are refilled and drained, nowhere else. A capacity beyond the places that the front
//! has for a class moves the magazine's pointers into a block of the thread's own heap, which is given back when the
//! capacity shrinks, the class goes to the classic front, or the thread ends.

use super::thread::{Front, own_array, places};
use crate::classes::{CLASS_COUNT, CLASSES, class_for};
use core::ptr;

/// Turns between refill and drain after which a magazine grows.
const TURNS: u8 = 4;
/// Misses, of all classes of the thread, between two looks at the clock.
const LOOK: u32 = 256;
/// Largest capacity there is.
const MOST: usize = 16384;

/// What a thread's classes did lately. Zero is valid.
pub struct Learner {
    /// Classes whose last miss was a drain.
    drained: u64,
    /// Turns of each class since it grew.
    turns: [u8; CLASS_COUNT],
    /// Misses of each class since its last turn.
    streaks: [u16; CLASS_COUNT],
    /// The shortest streak that a turn ended since the class grew.
    shortest: [u16; CLASS_COUNT],
    /// Classes that turned since the last look, or since the budget was used up.
    turned: u64,
    /// Classes above their fixed capacity.
    grown: u64,
    /// Bytes of blocks that grown magazines may hold beyond their fixed capacities: claimed of the budget.
    spent: usize,
    misses: u32,
    /// Nanoseconds of the last look that forgot something.
    since: u64,
}

/// The class's largest capacity.
fn most(class: usize) -> usize {
    // What a free block contains is compared when it is handed out, or is out of bounds: no block may hold pointers in
    // between.
    if cfg!(any(feature = "hardened", feature = "valgrind")) {
        places(class)
    } else {
        MOST
    }
}

impl Learner {
    /// Bytes claimed of the budget.
    pub fn claimed(&self) -> usize {
        self.spent
    }
}

impl Front {
    /// Notes a refill or a drain of the class's magazine; whether its capacity grew.
    #[inline]
    pub(super) fn learn(&mut self, class: usize, drain: bool) -> bool {
        let learner = &mut self.learner;
        learner.misses += 1;
        let bit = 1 << class;
        if (learner.drained & bit != 0) == drain {
            learner.streaks[class] = learner.streaks[class].saturating_add(1);
        } else {
            learner.drained ^= bit;
            learner.turned |= bit;
            let streak = core::mem::take(&mut learner.streaks[class]);
            let turns = &mut learner.turns[class];
            let shortest = &mut learner.shortest[class];
            *shortest = if *turns == 0 {
                streak
            } else {
                streak.min(*shortest)
            };
            *turns += 1;
        }
        if learner.misses < LOOK && learner.turns[class] < TURNS {
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
        if self.learner.misses >= LOOK {
            self.learner.misses = 0;
            self.look();
        }
        if self.learner.turns[class] < TURNS {
            return false;
        }
        self.learner.turns[class] = 0;
        self.grow(class)
    }

    /// Forgets what has not turned for `decay`.
    fn look(&mut self) {
        let now = self.arena().os.recently();
        if now.saturating_sub(self.learner.since) >= self.arena().decay() {
            self.learner.since = now;
            let idle = !core::mem::take(&mut self.learner.turned);
            self.forget(idle);
        }
    }

    /// Makes the class's magazine hold its bursts, as far as the budget has room, or gets some from classes that do not
    /// turn.
    fn grow(&mut self, class: usize) -> bool {
        let now = self.capacities[class] as usize;
        let missed = usize::from(self.learner.shortest[class]) * super::magazines::batch(now);
        let mut wish = (now + missed.max(now)).next_power_of_two().min(most(class));
        while wish > now && !self.claim(class, wish - now) {
            wish /= 2;
        }
        if wish <= now && now < most(class) {
            let bit = 1 << class;
            let idle = !core::mem::replace(&mut self.learner.turned, bit) & !bit;
            self.forget(idle);
            wish = (2 * now).min(most(class));
            if !self.claim(class, wish - now) {
                return false;
            }
        }
        if wish <= now {
            return false;
        }
        let grows = self.set_capacity(class, wish);
        if !grows {
            let bytes = (wish - now) * CLASSES[class].size as usize;
            self.arena().budget.give_back(bytes);
        }
        self.heap.counters.magazines_grown.add(u64::from(grows));
        grows
    }

    fn claim(&self, class: usize, blocks: usize) -> bool {
        let bytes = blocks * CLASSES[class].size as usize;
        self.arena().budget.claim(self.learner.spent, bytes)
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
            streaks: [0; CLASS_COUNT],
            shortest: [0; CLASS_COUNT],
            turned: 0,
            grown: 0,
            spent: 0,
            misses: 0,
            since: 0,
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

    /// What a larger capacity costs was claimed before.
    fn account(&mut self, class: usize, capacity: usize) {
        let (size, fixed) = (CLASSES[class].size as usize, self.fixed_capacity(class));
        let before = (self.capacities[class] as usize - fixed) * size;
        let after = (capacity - fixed) * size;
        self.arena().budget.give_back(before.saturating_sub(after));
        self.learner.spent = self.learner.spent - before + after;
        self.capacities[class] = capacity as u16;
        self.learner.grown &= !(1 << class);
        self.learner.grown |= u64::from(capacity > fixed) << class;
        self.heap.class_counters[class]
            .learned_blocks
            .set((capacity - fixed) as u64);
    }
}
