//! The allowance of a thread: the bytes of blocks that all of its magazines together may hold, by
//! their capacities, beyond a few that they always may: the option `thread_cache`. Nobody but the
//! thread can empty its magazines, so this is what a thread that rests keeps at most.
//!
//! Each class begins with the capacity of [`nest_capacity`], which it always keeps. A class that
//! misses again is raised towards the option `magazine` at once, as far as there is room for what
//! no class had to learn: [`UNLEARNED`] of the allowance. So one burst in every class leaves little
//! behind. A thread that goes on missing there gets more, [`EARNED`] for each [`ROUND`] of misses.
//! The learner raises a class further, which takes bursts that come again and again.
//!
//! Where there is no room, the class makes way, at most once in [`ROUND`] misses of the thread: the
//! classes that have not missed lately (for up to four such rounds) give half of what they may
//! hold. If that does not suffice, the class takes from the one that has most beyond its share, as
//! long as it has less than its own: a class's share is its share of the latest misses. (A class
//! that is used at random misses less by the square of its capacity.) What is not learned takes
//! nothing of a class that has learned. So a thread whose work moves from class to class serves
//! those that it uses, and what is used alike shares alike.
//!
//! All of this is done by refills and drains. It takes no memory but for the places that the
//! thread's own memory has for each class, so that a sealed heap shares as well.
#![allow(unsafe_code)] // Moves the ends of arrays.

use super::cache::ThreadCache;
use super::magazines::{NEST, nest_places, places};
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::geometry::ClassId;
use core::ptr;

/// Bytes of blocks that each class may always hold.
const NEST_BYTES: usize = 8 << 10;
/// Bytes that the magazines of all classes may hold beyond their nests without learning.
pub const UNLEARNED: usize = 1 << 20;
/// Bytes by which that becomes more when classes have to make way.
const EARNED: usize = 64 << 10;
/// Misses of a thread between two times that classes make way.
const ROUND: u16 = 256;

/// Blocks that the class's magazine may always hold: none of the largest classes.
pub const fn nest_capacity(class: ClassId) -> usize {
    let fit = NEST_BYTES / CLASSES[class.index()].size as usize;
    if fit < NEST { fit } else { NEST }
}

/// Bytes of blocks that the magazines of all classes may always hold.
pub const NESTS: usize = {
    let (mut sum, mut class) = (0, 0);
    while class < CLASS_COUNT {
        sum += nest_capacity(ClassId::new(class)) * CLASSES[class].size as usize;
        class += 1;
    }
    sum
};

/// What the magazines of a thread may hold beyond their nests. Zero is valid: nothing.
pub struct Allowance {
    /// Bytes that all classes together may hold beyond their nests now.
    taken: usize,
    /// Those that they may hold without learning.
    unlearned: usize,
    /// Bytes beyond [`UNLEARNED`] that they may hold so, as the thread went on missing.
    earned: usize,
    /// The classes that may hold more than their nests, by their bits.
    raised: u64,
    /// The classes that may hold as much as the option `magazine` says, or more.
    whole: u64,
    /// Misses of each class since classes made way last, and a quarter of what was here before.
    missed: [u8; CLASS_COUNT],
    /// Misses of all classes since then, up to [`ROUND`].
    misses: u16,
}

impl Allowance {
    /// Notes a refill or a drain of the class.
    #[inline]
    pub fn note_miss(&mut self, class: ClassId) {
        let missed = &mut self.missed[class.index()];
        *missed = missed.saturating_add(1);
        self.misses = (self.misses + 1).min(ROUND);
    }

    fn most_unlearned(&self) -> usize {
        UNLEARNED + self.earned
    }

    /// Answers true if no class may hold more than its nest.
    pub fn is_least(&self) -> bool {
        self.raised == 0
    }

    /// Forgets what has missed: the cache's next thread begins anew.
    pub fn reset(&mut self) {
        (self.missed, self.misses, self.earned) = ([0; CLASS_COUNT], 0, 0);
    }
}

fn size_of_class(class: ClassId) -> usize {
    CLASSES[class.index()].size as usize
}

impl ThreadCache {
    /// Bytes that the thread's classes may hold beyond their nests.
    fn allowance(&self) -> usize {
        self.arena().policy().config().thread_cache
    }

    /// Bytes that the class may hold beyond its nest now.
    fn beyond(&self, class: ClassId) -> usize {
        let capacity = usize::from(self.capacities[class.index()]);
        (capacity - nest_capacity(class)) * size_of_class(class)
    }

    /// Bytes of these that the class may hold without learning.
    fn unlearned(&self, class: ClassId, capacity: usize) -> usize {
        let capacity = capacity.min(self.fixed_capacity(class));
        capacity.saturating_sub(nest_capacity(class)) * size_of_class(class)
    }

    /// Blocks by which the allowance has room to raise the class now; without learning if it is
    /// short. Blocks that are spans leave the room for what no class had to learn: one of them
    /// would take all of a small allowance.
    pub fn room(&self, class: ClassId) -> usize {
        let allowance = &self.magazines.allowance;
        let mut room = self.allowance().saturating_sub(allowance.taken);
        if CLASSES[class.index()].is_whole() {
            let learned = allowance.taken - allowance.unlearned;
            let most = self.allowance().saturating_sub(UNLEARNED);
            room = room.min(most.saturating_sub(learned));
        }
        if self.is_short(class) {
            let most = allowance.most_unlearned();
            room = room.min(most.saturating_sub(allowance.unlearned));
        }
        room / size_of_class(class)
    }

    /// Raises the class's capacity towards the option `magazine` if it is below that. True if it is
    /// larger now.
    #[inline]
    pub fn raise(&mut self, class: ClassId) -> bool {
        self.raise_to(class, self.fixed_capacity(class))
    }

    /// Raises it towards `most`, which is no more than the option says.
    #[inline]
    pub fn raise_to(&mut self, class: ClassId, most: usize) -> bool {
        self.is_short(class)
            && usize::from(self.capacities[class.index()]) < most
            && self.raise_short(class, most)
    }

    /// Whether the class may hold less than the option `magazine` says.
    #[inline]
    pub fn is_short(&self, class: ClassId) -> bool {
        self.magazines.allowance.whole & class.bit() == 0
    }

    /// One class takes no more than half of the room, so that the first does not get everything.
    #[cold]
    fn raise_short(&mut self, class: ClassId, most: usize) -> bool {
        if self.room(class) == 0 && self.magazines.allowance.misses < ROUND {
            return false;
        }
        let now = usize::from(self.capacities[class.index()]);
        if self.room(class) < 2 {
            self.make_way(class);
        }
        let room = self.room(class).div_ceil(2);
        let capacity = most.min(now.saturating_add(room));
        // Without memory for the class's own place, the nest's has to do.
        let nest = nest_places(class);
        capacity > now
            && (self.set_capacity(class, capacity)
                || now < nest && nest < capacity && self.set_capacity(class, nest))
    }

    /// Lets other classes give capacity back, so that the class can be raised.
    #[cold]
    pub fn make_way(&mut self, class: ClassId) {
        let allowance = &mut self.magazines.allowance;
        if allowance.misses < ROUND {
            return;
        }
        allowance.misses = 0;
        let missed = allowance.missed;
        allowance.missed = missed.map(|misses| misses / 4);
        let mut raised = allowance.raised & !class.bit();
        let mut whole = self.allowance();
        if self.is_short(class) && self.arena().policy().learns() {
            let allowance = &mut self.magazines.allowance;
            allowance.earned = (allowance.earned + EARNED).min(whole);
            whole = whole.min(allowance.most_unlearned());
            raised &= !self.magazines.learner.grown();
        }
        let others = || ClassId::all().filter(|other| raised & other.bit() != 0);
        for idle in others().filter(|other| missed[other.index()] == 0) {
            self.lower(idle, usize::from(self.capacities[idle.index()]) / 2);
        }
        let all = missed
            .iter()
            .map(|&misses| usize::from(misses))
            .sum::<usize>();
        let part = whole / all.max(1);
        let share = |of: ClassId| part * usize::from(missed[of.index()]);
        if self.room(class) == 0 && self.beyond(class) + size_of_class(class) <= share(class) {
            let excess = |&of: &ClassId| self.beyond(of).saturating_sub(share(of));
            if let Some(most) = others().max_by_key(excess).filter(|most| excess(most) > 0) {
                let left = (self.beyond(most) / 2).max(share(most)) / size_of_class(most);
                self.lower(most, nest_capacity(most) + left);
            }
        }
    }

    /// Lowers the class's capacity, but not below its nest. While capacities must not grow by
    /// learning, the magazine goes back to its own place: a new one would take memory.
    pub fn lower(&mut self, class: ClassId, capacity: usize) {
        let most = if self.arena().policy().learns() {
            capacity
        } else {
            capacity.min(places(class))
        };
        let lowered = self.set_capacity(class, most.max(nest_capacity(class)));
        self.heap.counters.magazines_shrunk.add(u64::from(lowered));
    }

    /// Moves what the class's magazine holds to an array at `base`, and lets it hold so many blocks
    /// from now on. The oldest blocks beyond that go to the spans.
    ///
    /// # Safety
    /// There are `capacity` places from `base` on above a sentinel, which nothing else uses; they
    /// may be the array that the class has now.
    pub unsafe fn move_array(&mut self, class: ClassId, base: *mut *mut u8, capacity: usize) {
        let (old, held) = (self.bases[class.index()], self.held(class));
        let gone = held.saturating_sub(capacity);
        // SAFETY: the magazine's pointers lie from its base to its top; the new array has
        // `capacity` places and is the old one or does not overlap it (this function's own Safety
        // section). Neither lies in the struct. What is in a magazine is free.
        unsafe {
            if gone > 0 {
                self.heap.give(core::slice::from_raw_parts(old, gone));
            }
            ptr::copy(old.add(gone), base, held - gone);
            let magazine = self.magazine(class);
            magazine.top = base.add(held - gone);
            magazine.limit = base.add(capacity);
        }
        self.bases[class.index()] = base;
        self.wipe(class);
        self.note_cached(class);
    }

    /// Notes the capacity of a class that magazines serve, which was `before`.
    pub fn note_capacity(&mut self, class: ClassId, before: usize) {
        let capacity = usize::from(self.capacities[class.index()]);
        let (size, nest) = (size_of_class(class), nest_capacity(class));
        let [was, is] = [before, capacity].map(|capacity| self.unlearned(class, capacity));
        let is_whole = capacity >= self.fixed_capacity(class);
        let allowance = &mut self.magazines.allowance;
        allowance.taken = allowance.taken - (before - nest) * size + (capacity - nest) * size;
        allowance.unlearned = allowance.unlearned - was + is;
        let set = |bits: &mut u64, on: bool| {
            *bits = *bits & !class.bit() | u64::from(on) << class.index();
        };
        set(&mut allowance.raised, capacity > nest);
        set(&mut allowance.whole, is_whole);
        let allowed = NESTS + allowance.taken;
        self.heap.board.allowed.set(allowed as u64);
    }

    /// Gives the capacities of all magazines back but for their nests: they hold no more than that.
    pub fn lower_all(&mut self) {
        for class in ClassId::of(self.magazines.allowance.raised) {
            // The cache's own memory has places for that: this cannot fail.
            self.set_capacity(class, nest_capacity(class));
        }
        self.magazines.allowance.reset();
    }

    /// Whether the books of the allowance are right.
    #[cfg(any(test, debug_assertions))]
    pub fn is_within_allowance(&self) -> bool {
        let served = |class: &ClassId| self.has_magazine(*class);
        let bits = |is: &dyn Fn(ClassId) -> bool| {
            let these = ClassId::all().filter(served).filter(|&class| is(class));
            these.fold(0, |bits, class| bits | class.bit())
        };
        let capacity = |class: ClassId| usize::from(self.capacities[class.index()]);
        let Allowance {
            taken,
            unlearned,
            raised,
            whole,
            ..
        } = self.magazines.allowance;
        ClassId::all()
            .filter(served)
            .all(|class| capacity(class) >= nest_capacity(class))
            && ClassId::all()
                .filter(served)
                .map(|class| self.beyond(class))
                .sum::<usize>()
                == taken
            && taken <= self.allowance()
            && unlearned <= self.magazines.allowance.most_unlearned()
            && unlearned
                == ClassId::all()
                    .filter(served)
                    .map(|class| self.unlearned(class, capacity(class)))
                    .sum::<usize>()
            && raised == bits(&|class| capacity(class) > nest_capacity(class))
            && whole & self.served() == bits(&|class| capacity(class) >= self.fixed_capacity(class))
    }
}
