//! The warm memory of a node over time: its EMPTY slots, and the wholly free spans that heaps keep.
//! Memory that was given back when it became free and is taken again before the time of the option
//! `decay` is over was given back too early: as much is kept beyond the option `retain` from then
//! on. What stayed free for `decay` is *idle*, and given back whatever `retain` says, but for a
//! floor. Memory that the program has asked for ahead (`warm_up`, `reserve`) is kept until it asks
//! for a purge. The threads that take and give slots count them here; every number is a hint, so
//! all accesses are relaxed.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Parts of the time of `decay`, each with a least number of its own: what is idle is seen an
/// eighth of that time too late at most.
pub const PARTS: usize = 8;

/// The parts that are over after some time, as far as they count.
pub fn parts_of(time: u64, decay: u64) -> usize {
    (time / (decay / PARTS as u64).max(1)).min(PARTS as u64) as usize
}

/// The decay of one node.
#[derive(Debug, Default)]
pub struct Decay {
    /// Slots to keep beyond `retain`.
    kept: AtomicUsize,
    /// Slots of the wholly free spans that heaps keep, as these have told; at least as many.
    in_heaps: AtomicUsize,
    /// Slots to keep besides, since the program has asked for them.
    warmed: AtomicUsize,
    /// The slots that were given back in this period and not taken again.
    gave: AtomicUsize,
    /// The least number of warm slots in this part of the period.
    least: AtomicUsize,
    /// The least numbers in the latest parts, and where the next one goes: at 0 a period begins.
    before: [AtomicUsize; PARTS],
    part: AtomicUsize,
    /// Slots that stayed warm and free for `decay` and are to be given back.
    idle: AtomicUsize,
    /// Nanoseconds at which the part began.
    since: AtomicU64,
}

impl Decay {
    /// Slots to keep beyond `retain`, learned.
    pub fn kept(&self) -> usize {
        self.kept.load(Relaxed)
    }

    /// Slots to keep beyond `retain` since the program has asked for them.
    pub fn warmed(&self) -> usize {
        self.warmed.load(Relaxed)
    }

    /// Notes slots that were mapped because the program has asked for them.
    pub fn warm(&self, slots: usize) {
        self.warmed.fetch_add(slots, Relaxed);
    }

    /// Slots of wholly free spans in heaps.
    pub fn in_heaps(&self) -> usize {
        self.in_heaps.load(Relaxed)
    }

    /// Notes that a heap which has told of `was` such slots has `is` of them.
    pub fn tell(&self, was: usize, is: usize) {
        self.in_heaps.fetch_add(is.wrapping_sub(was), Relaxed);
    }

    /// Keeps no more than `retain` from now on.
    pub fn forget(&self) {
        self.kept.store(0, Relaxed);
        self.gave.store(0, Relaxed);
        self.warmed.store(0, Relaxed);
        self.idle.store(0, Relaxed);
    }

    /// Slots that are to be given back.
    pub fn idle(&self) -> usize {
        self.idle.load(Relaxed)
    }

    /// Notes that so many slots more are idle, of `most` in all.
    pub fn add_idle(&self, slots: usize, most: usize) {
        let more = |idle: usize| Some((idle + slots).min(most));
        let _ = self.idle.fetch_update(Relaxed, Relaxed, more);
    }

    /// Notes that idle slots were given back, or cannot be.
    pub fn gave_idle(&self, slots: usize) {
        let less = |idle: usize| Some(idle.saturating_sub(slots));
        let _ = self.idle.fetch_update(Relaxed, Relaxed, less);
    }

    /// Notes slots that were given back because there were too many.
    pub fn gave(&self, slots: usize) {
        self.gave.fetch_add(slots, Relaxed);
    }

    /// Notes that slots were taken whose first touch has cost page faults or will cost them.
    #[inline]
    pub fn took_cold(&self, slots: usize) {
        if self.gave.load(Relaxed) == 0 {
            return;
        }
        let left = |gave: usize| Some(gave.saturating_sub(slots));
        let gave = self.gave.fetch_update(Relaxed, Relaxed, left).unwrap_or(0);
        self.kept.fetch_add(gave.min(slots), Relaxed);
        self.least.store(0, Relaxed);
    }

    /// Notes how many warm slots are left after some were taken.
    #[inline]
    pub fn took_warm(&self, left: usize) {
        if left < self.least.load(Relaxed) {
            self.least.store(left, Relaxed);
        }
    }

    /// Ends a part of the period if it is over: the slots beyond `floor` that were free for a whole
    /// period are idle. With the last part the period ends: those beyond `retain` are no longer
    /// kept. `now` and `decay` are in nanoseconds, the
    /// others in slots. Returns whether the part was over.
    pub fn end_period(
        &self,
        (now, decay): (u64, u64),
        warm: usize,
        retain: usize,
        floor: usize,
    ) -> bool {
        let since = self.since.load(Relaxed);
        let over = parts_of(now.saturating_sub(since), decay);
        if over == 0
            || (self.since)
                .compare_exchange(since, now, Relaxed, Relaxed)
                .is_err()
        {
            return false;
        }
        let least = self.least.swap(warm, Relaxed).min(warm);
        let part = self.part.load(Relaxed);
        (part..part + over).for_each(|part| self.before[part % PARTS].store(least, Relaxed));
        self.part.store((part + over) % PARTS, Relaxed);
        let before = self.before.iter().map(|part| part.load(Relaxed));
        let least = before.fold(usize::MAX, usize::min);
        self.idle.store(least.saturating_sub(floor), Relaxed);
        if part + over < PARTS {
            return true;
        }
        let less = |kept: usize| Some(kept.saturating_sub(least.saturating_sub(retain)));
        let _ = self.kept.fetch_update(Relaxed, Relaxed, less);
        self.gave.store(0, Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Decay, PARTS};

    #[test]
    fn keeps_what_was_given_back_too_early_until_it_is_idle() {
        let decay = Decay::default();
        decay.took_cold(50);
        assert_eq!(decay.kept(), 0, "nothing was given back");
        decay.gave(96);
        decay.took_cold(32);
        decay.took_cold(100);
        assert_eq!(decay.kept(), 96);
        let period = |begin, warm| {
            (0..PARTS as u64).for_each(|part| {
                assert!(decay.end_period((begin + 100 * part, 800), warm, 100, 10));
            });
        };
        period(100, 196);
        assert_eq!(decay.kept(), 96, "needed in this period");
        assert_eq!(decay.idle(), 0);
        decay.took_warm(120);
        decay.took_warm(150);
        assert!(!decay.end_period((899, 800), 150, 100, 10));
        period(900, 196);
        assert_eq!(decay.kept(), 76, "20 were free all the time");
        assert_eq!(decay.idle(), 110, "all but the floor");
        assert!(decay.end_period((1700, 800), 196, 100, 10));
        assert_eq!(
            decay.idle(),
            186,
            "what was in use has been free for a period"
        );
        decay.gave_idle(180);
        decay.gave_idle(100);
        assert_eq!(decay.idle(), 0);
        decay.add_idle(20, 186);
        decay.add_idle(180, 186);
        assert_eq!(decay.idle(), 186, "not more than there is");
        period(1800, 196);
        assert_eq!(decay.kept(), 0, "and then all");
    }
}
