//! The learner decides which magazines are to be larger than the option `magazine` makes them.
//!
//! A class that turns between refills and drains works in bursts that its magazine cannot hold.
//! After [`TURNS`] turns the capacity grows to what the shortest of these bursts would have needed,
//! at least to twice what it was and at most to [`MOST`] blocks. The blocks that the magazine may
//! hold beyond its fixed capacity are claimed of the option `budget` (`pool/budget.rs`). Where the
//! budget is used up, those classes of the thread that have grown, and have not turned since the
//! budget was used up last, give half of their part back. A class that has not turned for the time
//! of the option `decay` shrinks by half too, at one of the thread's next misses: what a former
//! workload needed is forgotten. A class that only refills or only drains (in a producer or a
//! consumer) never grows: a larger magazine would save it nothing. Nor does one whose blocks are
//! spans (above 256 KiB) unless it turns within 10 ms.
//!
//! Refills and drains of magazines ask the learner; nothing else does. A capacity beyond the places
//! that the cache's own memory has for a class moves the magazine's pointers into a block of the
//! thread's own heap. That block is given back when the capacity shrinks, the class goes to the
//! classic front, or the thread ends.
#![allow(unsafe_code)] // Moves arrays to other memory.

use super::cache::ThreadCache;
use super::magazines::{batch, places};
use crate::classes::{CLASS_COUNT, CLASSES, WHOLE_CLASSES, class_for, whole_class};
use crate::geometry::ClassId;
use core::ptr;

/// Turns between refill and drain after which a magazine grows.
const TURNS: u8 = 4;
/// Misses, of all classes of the thread, between two readings of the clock.
const CLOCK_TURN: u32 = 256;
/// Nanoseconds in which a class whose blocks are spans has to turn so often to be worth a magazine:
/// whoever takes a large buffer now and then would keep it, and save next to nothing.
const LIVELY: u64 = 10_000_000;
/// Largest capacity there is.
const MOST: usize = 16384;

/// The latest misses of a thread's classes. Zero is valid: none.
pub struct Learner {
    /// Classes whose last miss was a drain.
    drained: u64,
    /// Turns of each class since it grew.
    turns: [u8; CLASS_COUNT],
    /// Misses of each class since its last turn.
    streaks: [u16; CLASS_COUNT],
    /// The shortest streak that a turn ended since the class grew.
    shortest: [u16; CLASS_COUNT],
    /// Classes that turned since the learner last forgot something, or since the budget was used
    /// up.
    turned: u64,
    /// Classes above their fixed capacity.
    grown: u64,
    /// Bytes of blocks that grown magazines may hold beyond their fixed capacities: claimed of the
    /// budget.
    spent: usize,
    /// Blocks of each class that are arrays of the cache's magazines.
    arrays: [u8; CLASS_COUNT],
    /// The time, in nanoseconds, of the first of the turns of each class whose blocks are spans.
    begun: [u64; WHOLE_CLASSES],
    /// Misses of all classes since the last reading of the clock.
    misses: u32,
    /// The time, in nanoseconds, when the learner last forgot something.
    since: u64,
}

/// Whether a block of the heap may hold a magazine's pointers. With these features it may not: what
/// a free block contains is compared when it is handed out, or is out of bounds.
const MAY_USE_BLOCKS: bool = !cfg!(any(feature = "hardened", feature = "valgrind"));

/// The class's largest capacity.
fn most(class: ClassId) -> usize {
    if MAY_USE_BLOCKS { MOST } else { places(class) }
}

/// The class of the block that an array of so many places above a sentinel takes.
fn class_of_array(capacity: usize) -> Option<ClassId> {
    class_for((capacity + 1) * size_of::<*mut u8>(), 16)
}

impl Learner {
    /// Bytes claimed of the budget.
    pub fn claimed(&self) -> usize {
        self.spent
    }

    /// The classes above their fixed capacity, by their bits.
    pub fn grown(&self) -> u64 {
        self.grown
    }

    /// Answers true if the class's latest two misses, at least, were drains.
    #[inline]
    pub fn only_drains(&self, class: ClassId) -> bool {
        self.drained & class.bit() != 0 && self.streaks[class.index()] > 0
    }

    /// Blocks of the class that are arrays of magazines.
    #[inline]
    pub fn arrays(&self, class: ClassId) -> usize {
        usize::from(self.arrays[class.index()])
    }
}

impl ThreadCache {
    /// Notes a refill or a drain of the class's magazine. True if the capacity grew.
    #[inline]
    pub fn learn(&mut self, class: ClassId, drain: bool) -> bool {
        let learner = &mut self.magazines.learner;
        learner.misses += 1;
        let bit = class.bit();
        if (learner.drained & bit != 0) == drain {
            learner.streaks[class.index()] = learner.streaks[class.index()].saturating_add(1);
        } else {
            learner.drained ^= bit;
            learner.turned |= bit;
            let streak = core::mem::take(&mut learner.streaks[class.index()]);
            let turns = &mut learner.turns[class.index()];
            let shortest = &mut learner.shortest[class.index()];
            *shortest = if *turns == 0 {
                streak
            } else {
                streak.min(*shortest)
            };
            *turns += 1;
            if *turns == 1
                && let Some(whole) = whole_class(class)
            {
                self.magazines.learner.begun[whole] = self.arena().os().recently();
            }
        }
        let learner = &self.magazines.learner;
        if learner.misses < CLOCK_TURN && learner.turns[class.index()] < TURNS {
            return false;
        }
        self.decide(class)
    }

    /// Changes capacities, now that there is enough to decide on. True if that of the class grew.
    #[cold]
    fn decide(&mut self, class: ClassId) -> bool {
        if !self.arena().policy().learns() {
            self.magazines.learner.misses = 0;
            self.magazines.learner.turns[class.index()] = 0;
            return false;
        }
        if self.magazines.learner.misses >= CLOCK_TURN {
            self.magazines.learner.misses = 0;
            self.heed_clock();
        }
        if self.magazines.learner.turns[class.index()] < TURNS {
            return false;
        }
        self.magazines.learner.turns[class.index()] = 0;
        self.is_lively(class) && self.grow(class)
    }

    /// Answers true unless the blocks of the class are spans and come and go rarely.
    fn is_lively(&self, class: ClassId) -> bool {
        whole_class(class).is_none_or(|whole| {
            let begun = self.magazines.learner.begun[whole];
            self.arena().os().recently().saturating_sub(begun) < LIVELY
        })
    }

    /// Forgets what has not turned for `decay`.
    fn heed_clock(&mut self) {
        let now = self.arena().os().recently();
        if now.saturating_sub(self.magazines.learner.since) >= self.arena().policy().decay() {
            self.magazines.learner.since = now;
            let idle = !core::mem::take(&mut self.magazines.learner.turned);
            self.forget(idle);
        }
    }

    /// Makes the class's magazine large enough for its bursts, as far as the budget has room; where
    /// it has none, classes that do not turn give some back first. True if the capacity grew.
    fn grow(&mut self, class: ClassId) -> bool {
        let now = self.capacities[class.index()] as usize;
        if self.is_short(class) {
            return false;
        }
        let missed = usize::from(self.magazines.learner.shortest[class.index()]) * batch(now);
        let wanted = (now + missed.max(now)).next_power_of_two().min(most(class));
        let most = self.most_within_allowance(class, wanted);
        let mut wish = wanted.min(most);
        while wish > now && !self.claim(class, wish - now) {
            wish /= 2;
        }
        if wish <= now && now < most {
            let bit = class.bit();
            let idle = !core::mem::replace(&mut self.magazines.learner.turned, bit) & !bit;
            self.forget(idle);
            wish = (2 * now).min(most);
            if !self.claim(class, wish - now) {
                return false;
            }
        }
        if wish <= now {
            return false;
        }
        let grows = self.set_capacity(class, wish);
        if !grows {
            let bytes = (wish - now) * CLASSES[class.index()].size as usize;
            self.arena().policy().budget().give_back(bytes);
        }
        self.heap.counters.magazines_grown.add(u64::from(grows));
        grows
    }

    /// The largest capacity that the class may have, by the thread's allowance, if it wants so
    /// much: what it has if it would grow by less than an eighth.
    fn most_within_allowance(&mut self, class: ClassId, wanted: usize) -> usize {
        let now = self.capacities[class.index()] as usize;
        if self.room(class) < wanted.saturating_sub(now) {
            self.make_way(class);
        }
        let now = self.capacities[class.index()] as usize;
        let room = self.room(class);
        if room < now.div_ceil(8) {
            return now;
        }
        now.saturating_add(room).min(most(class))
    }

    /// Claims the bytes of so many blocks of the budget; false if there is not that much.
    fn claim(&self, class: ClassId, blocks: usize) -> bool {
        let bytes = blocks * CLASSES[class.index()].size as usize;
        self.arena()
            .policy()
            .budget()
            .claim(self.magazines.learner.spent, bytes)
    }

    /// Halves the capacities of those of these classes that have grown.
    fn forget(&mut self, classes: u64) {
        let mut left = classes & self.magazines.learner.grown;
        while left != 0 {
            let class = ClassId::new(left.trailing_zeros() as usize);
            left &= left - 1;
            let half = self.capacities[class.index()] as usize / 2;
            let shrunk = self.set_capacity(class, half.max(self.fixed_capacity(class)));
            self.heap.counters.magazines_shrunk.add(u64::from(shrunk));
        }
    }

    /// Takes back all that the class has learned.
    pub fn unlearn(&mut self, class: ClassId) {
        if self.magazines.learner.grown & class.bit() != 0 {
            self.magazines.learner.turns[class.index()] = 0;
            // The cache's own memory has places for the fixed capacity: this cannot fail.
            self.set_capacity(class, self.fixed_capacity(class));
        }
    }

    /// Forgets everything: the cache's next thread begins anew.
    pub fn unlearn_all(&mut self) {
        ClassId::of(self.magazines.learner.grown).for_each(|class| self.unlearn(class));
        self.magazines.learner = Learner {
            drained: 0,
            turns: [0; CLASS_COUNT],
            streaks: [0; CLASS_COUNT],
            shortest: [0; CLASS_COUNT],
            turned: 0,
            grown: 0,
            spent: 0,
            arrays: [0; CLASS_COUNT],
            begun: [0; WHOLE_CLASSES],
            misses: 0,
            since: 0,
        };
    }

    /// Changes a magazine's capacity; what it holds beyond that goes to the spans. False if there
    /// is no memory for its pointers: nothing has changed then.
    pub fn set_capacity(&mut self, class: ClassId, capacity: usize) -> bool {
        let is_small = capacity <= places(class);
        // One that lies in a block is in no nest.
        let Some(own) = self.own_array_for(class, if is_small { capacity } else { MOST }) else {
            return false;
        };
        let old = self.bases[class.index()];
        let base = match is_small {
            true => Some(own),
            false => self.new_array(capacity),
        };
        let Some(base) = base else {
            return false;
        };
        // SAFETY: the array is the class's own, which has places for as much, or a new one.
        unsafe { self.move_array(class, base, capacity) };
        if old != own {
            // SAFETY: the old array, which begins with the sentinel, is a block that nobody uses
            // any more.
            unsafe { self.heap.give(&[old.wrapping_sub(1).cast()]) };
            if let Some(of) = class_of_array(usize::from(self.capacities[class.index()])) {
                self.magazines.learner.arrays[of.index()] -= 1;
                self.note_cached(of);
            }
        }
        self.account(class, capacity);
        true
    }

    /// Places for `capacity` pointers above a sentinel, in a block of the heap. `None` if there is
    /// no memory.
    fn new_array(&mut self, capacity: usize) -> Option<*mut *mut u8> {
        let class = class_of_array(capacity)?;
        let mut block: *mut u8 = ptr::null_mut();
        // SAFETY: `block` is the one place below the end that `take` is given; then the new block's
        // first word is written.
        unsafe {
            if self.heap.take(class, (&raw mut block).add(1), 1) == 0 {
                return None;
            }
            let sentinel = block.cast::<*mut u8>();
            sentinel.write(ptr::null_mut());
            self.magazines.learner.arrays[class.index()] += 1;
            self.note_cached(class);
            Some(sentinel.add(1))
        }
    }

    /// Notes the class's new capacity. The bytes of a larger one were claimed before; those of a
    /// smaller one are given back here.
    fn account(&mut self, class: ClassId, capacity: usize) {
        let (size, fixed) = (
            CLASSES[class.index()].size as usize,
            self.fixed_capacity(class),
        );
        let before = (self.capacities[class.index()] as usize).saturating_sub(fixed) * size;
        let learned = capacity.saturating_sub(fixed);
        let after = learned * size;
        self.arena()
            .policy()
            .budget()
            .give_back(before.saturating_sub(after));
        self.magazines.learner.spent = self.magazines.learner.spent - before + after;
        let before = core::mem::replace(&mut self.capacities[class.index()], capacity as u16);
        self.note_capacity(class, before.into());
        self.magazines.learner.grown &= !class.bit();
        self.magazines.learner.grown |= u64::from(capacity > fixed) << class.index();
        self.heap.class_counters[class.index()]
            .learned_blocks
            .set(learned as u64);
    }
}
