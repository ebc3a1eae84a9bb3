//! The warm memory of a node over time: its EMPTY slots, and the wholly free spans that heaps keep.
//! Memory that was given back when it became free and is taken again before the time of the option
//! `decay` is over was given back too early: as much is kept beyond the option `retain` from then
//! on. What stayed free for `decay` is *idle*, and given back whatever `retain` says, but for a
//! floor. Memory that the program has asked for ahead (`warm_up`, `reserve`) is kept until it asks
//! for a purge. The threads that take and give slots count them here; every number is a hint, so
//! all accesses are relaxed.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Parts of the time of `decay`, each with a least number of its own: what is idle is seen one
/// part of that time too late at most.
pub const PARTS: usize = 32;

/// The parts that are over at `now` of those since `since`, as far as they count, and since when
/// the one that is under way is.
pub fn parts_of((since, now): (u64, u64), decay: u64) -> (usize, u64) {
    let part = (decay / PARTS as u64).max(1);
    let over = now.saturating_sub(since) / part;
    if over < PARTS as u64 {
        (over as usize, since + over * part)
    } else {
        (PARTS, now)
    }
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
    /// Slots besides that a reclaimer is to give back: they were free in a span for as long, or no
    /// wholly free SuperSlab was among those above.
    reclaimed: AtomicUsize,
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
        self.reclaimed.store(0, Relaxed);
    }

    /// Slots that are to be given back.
    pub fn idle(&self) -> usize {
        self.idle.load(Relaxed) + self.reclaimed.load(Relaxed)
    }

    /// Those of them that are not left to a reclaimer.
    pub fn idle_for_all(&self) -> usize {
        self.idle.load(Relaxed)
    }

    /// Leaves all of them to a reclaimer.
    pub fn leave_to_reclaimer(&self) {
        let idle = self.idle.swap(0, Relaxed);
        self.reclaimed.fetch_add(idle, Relaxed);
    }

    /// Notes that so many slots more are idle, of `most` in all: those of a span that was idle.
    pub fn add_idle(&self, slots: usize, most: usize) {
        let most = most.saturating_sub(self.idle.load(Relaxed));
        let more = |reclaimed: usize| Some((reclaimed + slots).min(most));
        let _ = self.reclaimed.fetch_update(Relaxed, Relaxed, more);
    }

    /// Notes that idle slots were given back, or cannot be.
    pub fn gave_idle(&self, slots: usize) {
        let less = |idle: usize| Some(idle.saturating_sub(slots));
        let reclaimed = (self.reclaimed.fetch_update(Relaxed, Relaxed, less)).unwrap_or(0);
        let less = |idle: usize| Some(idle.saturating_sub(slots.saturating_sub(reclaimed)));
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

    /// Notes that slots which became warm just now had been free, in a span, for the latest `parts`
    /// parts of a period; the first of these and the one that is under way may not be whole.
    pub fn were_free(&self, slots: usize, parts: usize) {
        let Some(whole) = parts.checked_sub(2) else {
            return;
        };
        self.least.fetch_add(slots, Relaxed);
        let next = self.part.load(Relaxed) + PARTS;
        for ago in 1..=whole.min(PARTS) {
            self.before[(next - ago) % PARTS].fetch_add(slots, Relaxed);
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
        let (over, begun) = parts_of((since, now), decay);
        if over == 0
            || (self.since)
                .compare_exchange(since, begun, Relaxed, Relaxed)
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
        let beyond = warm.saturating_sub(floor);
        let reclaimed = self.reclaimed.fetch_min(beyond, Relaxed).min(beyond);
        let idle = least.saturating_sub(floor).min(beyond - reclaimed);
        self.idle.store(idle, Relaxed);
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
        const PERIOD: u64 = 100 * PARTS as u64;
        let decay = Decay::default();
        decay.took_cold(50);
        assert_eq!(decay.kept(), 0, "nothing was given back");
        decay.gave(96);
        decay.took_cold(32);
        decay.took_cold(100);
        assert_eq!(decay.kept(), 96);
        let period = |begin, warm| {
            (0..PARTS as u64).for_each(|part| {
                assert!(decay.end_period((begin + 100 * part, PERIOD), warm, 100, 10));
            });
        };
        period(100, 196);
        assert_eq!(decay.kept(), 96, "needed in this period");
        assert_eq!(decay.idle(), 0);
        decay.took_warm(120);
        decay.took_warm(150);
        assert!(!decay.end_period((99 + PERIOD, PERIOD), 150, 100, 10));
        period(100 + PERIOD, 196);
        assert_eq!(decay.kept(), 76, "20 were free all the time");
        assert_eq!(decay.idle(), 110, "all but the floor");
        assert!(decay.end_period((100 + 2 * PERIOD, PERIOD), 196, 100, 10));
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
        period(200 + 2 * PERIOD, 196);
        assert_eq!(decay.kept(), 0, "and then all");
    }

    #[test]
    fn what_was_idle_in_a_span_stays_idle() {
        let decay = Decay::default();
        decay.took_warm(0);
        let period = 100 * PARTS as u64;
        let ends = |at, warm| assert!(decay.end_period((at, period), warm, 100, 10));
        ends(100, 196);
        assert_eq!(decay.idle(), 0, "nothing was free for long");
        decay.add_idle(150, 186);
        ends(200, 196);
        assert_eq!(decay.idle(), 150);
        decay.gave_idle(120);
        assert_eq!(decay.idle(), 30);
        ends(300, 30);
        assert_eq!(decay.idle(), 20, "no more than there is beyond the floor");
        decay.gave_idle(usize::MAX);
        assert_eq!(decay.idle(), 0);
    }

    #[test]
    fn what_was_free_in_a_span_counts_as_warm_since_then() {
        let decay = Decay::default();
        let period = 100 * PARTS as u64;
        let part = |nth: u64, warm| decay.end_period((100 * nth, period), warm, 100, 10);
        (1..=40).for_each(|nth| assert!(part(nth, 10)));
        // Found half a period after the last block came home, and too young to count.
        decay.were_free(50, PARTS / 2);
        decay.were_free(7, 1);
        let mut nth = 40;
        while decay.idle() < 50 {
            nth += 1;
            assert!(part(nth, 67));
        }
        let late = nth - 40;
        assert!((15..=18).contains(&late), "{late}");
        while decay.idle() < 57 {
            nth += 1;
            assert!(part(nth, 67));
        }
        assert!((32..=34).contains(&(nth - 40)), "{nth}");
    }
}
