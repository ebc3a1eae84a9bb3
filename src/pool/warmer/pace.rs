//! The pace of the warmer: how many SuperSlabs it should have in stock, and when its next step
//! comes. This file is arithmetic alone, in SuperSlabs and nanoseconds.
//!
//! - *rate*: the SuperSlabs that were begun or grown since the last step, smoothed over 20 ms when
//!   the rate rises and over 1 s when it falls.
//! - *target*: the stock that lasts for 250 ms at that rate; at most an eighth of the memory that
//!   the process may use, and never less than the option `ahead`.
//! - *next step*: when half of the stock would be used up at that rate, or at 1 GiB/s if that is
//!   more; after 1 to 100 ms.
//! - *excess*: the SuperSlabs that were free all the time for `decay` (seen one of its parts too
//!   late at most), beyond the target and the floor.

use crate::geometry::SUPER;
use crate::pool::supers::{PARTS, parts_of};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// The time for which the stock lasts.
const HORIZON: u64 = 250 * MS;
/// The shortest time whose use makes a rate: a SuperSlab is much in a millisecond.
const SAMPLE: u64 = 10 * MS;
const RISE: u64 = 20 * MS;
const FALL: u64 = SECOND;
/// The demand, in SuperSlabs a second, that must not find the stock empty whatever happened before:
/// 1 GiB/s.
const SUDDEN: u64 = (1 << 30) / SUPER as u64;
/// The demand, in SuperSlabs a second, below which growth rests.
const REST: u64 = 8;
pub const SHORTEST: u64 = MS;
const LONGEST: u64 = 100 * MS;
/// The wait after the system refused; it doubles from the first to the last.
const FIRST_RETRY: u64 = 10 * MS;
const LAST_RETRY: u64 = 10 * SECOND;

/// The limits of the pace, in SuperSlabs and nanoseconds; they do not change.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The least target.
    pub ahead: usize,
    /// The greatest target that a rate makes.
    pub most: usize,
    /// The free SuperSlabs that are kept however long they are free.
    pub floor: usize,
    /// The nanoseconds for which something must be free to be in excess.
    pub decay: u64,
}

/// The numbers that a step begins with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sight {
    /// SuperSlabs of which nothing is in use.
    pub whole: usize,
    /// The whole ones whose pages are all there: the stock.
    pub ready: usize,
    /// The whole ones that have memory, if only in part, and the spare ones to which the hugetlb
    /// pool has promised pages.
    pub held: usize,
    /// SuperSlabs that are mapped.
    pub mapped: usize,
}

/// The state that the warmer keeps from one step to the next. All-zero before the first.
#[derive(Debug, Default)]
pub struct Pace {
    at: u64,
    last: Sight,
    /// SuperSlabs a second, times 1024.
    rate: u64,
    /// The time up to which `rate` counts, and the SuperSlabs used since.
    sampled: u64,
    used: u64,
    /// The least number of free SuperSlabs in each of the latest parts of a `decay`, the part that
    /// is under way, and when that began.
    before: [usize; PARTS],
    part: usize,
    window: u64,
    least: usize,
    excess: usize,
    retry_at: u64,
    retry: u64,
    /// Until then nothing is kept.
    pressed_until: u64,
    /// Where the search for idle slots goes on.
    pub worn: usize,
}

impl Pace {
    /// Takes note of the numbers of a step.
    pub fn observe(&mut self, now: u64, sight: Sight, limits: Limits) {
        if self.at == 0 || sight.held < self.least || limits.decay == 0 {
            self.least = sight.held;
        }
        if self.at == 0 {
            (self.window, self.sampled) = (now, now);
        } else {
            // The SuperSlabs that were free and those that growth has added since are in use now or
            // still free.
            let begun = (self.last.whole + sight.mapped).saturating_sub(self.last.mapped);
            self.used += begun.saturating_sub(sight.whole) as u64;
        }
        let time = now.saturating_sub(self.sampled);
        if time >= SAMPLE {
            let seen = (self.used << 10).saturating_mul(SECOND) / time;
            let smooth = if seen > self.rate { RISE } else { FALL };
            let by = seen.abs_diff(self.rate);
            let change =
                (u128::from(by) * u128::from(time)).div_ceil(u128::from(time + smooth)) as u64;
            if seen > self.rate {
                self.rate += change;
            } else {
                self.rate -= change;
            }
            (self.sampled, self.used) = (now, 0);
        }
        self.at = now;
        let (over, begun) = parts_of((self.window, now), limits.decay);
        if over > 0 {
            let least = core::mem::replace(&mut self.least, sight.held);
            (self.part..self.part + over).for_each(|part| self.before[part % PARTS] = least);
            self.part = (self.part + over) % PARTS;
            let least = self.before.into_iter().fold(usize::MAX, usize::min);
            self.excess = least.saturating_sub(self.keep(limits));
            self.window = begun;
        }
    }

    /// The stock that there should be, in SuperSlabs.
    pub fn target(&self, limits: Limits) -> usize {
        let lasting =
            (u128::from(self.rate) * u128::from(HORIZON) / u128::from(SECOND)) as u64 >> 10;
        (lasting as usize).min(limits.most).max(limits.ahead)
    }

    /// Tells whether the program has lately begun few SuperSlabs.
    pub fn rests(&self) -> bool {
        self.rate >> 10 < REST
    }

    /// SuperSlabs that are missing, unless the system refused some just now.
    pub fn missing(&self, limits: Limits, ready: usize) -> usize {
        if self.at < self.retry_at {
            return 0;
        }
        self.target(limits).saturating_sub(ready)
    }

    /// The SuperSlabs to be given back.
    pub fn excess(&self) -> usize {
        self.excess
    }

    /// Notes that SuperSlabs were given back, or tried in vain.
    pub fn gave_back(&mut self, count: usize) {
        self.excess = self.excess.saturating_sub(count);
    }

    /// Notes that the system served.
    pub fn served(&mut self) {
        self.retry = 0;
    }

    /// Notes that the system refused.
    pub fn refused(&mut self) {
        self.retry = (2 * self.retry).clamp(FIRST_RETRY, LAST_RETRY);
        self.retry_at = self.at + self.retry;
    }

    /// Notes that memory is short: all that is free is given back, and for a while nothing is
    /// prepared.
    pub fn press(&mut self, sight: Sight) {
        self.excess = sight.held;
        self.pressed_until = self.at + LAST_RETRY;
        self.retry_at = self.pressed_until;
    }

    /// The free SuperSlabs that are to stay.
    pub fn keep(&self, limits: Limits) -> usize {
        if self.at < self.pressed_until {
            return 0;
        }
        self.target(limits).max(limits.floor)
    }

    /// Ends a step, which left these numbers behind. The nanoseconds until the next step.
    pub fn end(&mut self, sight: Sight, limits: Limits) -> u64 {
        self.last = sight;
        if self.missing(limits, sight.ready) > 0 {
            return 0;
        }
        if self.excess > 0 {
            return SHORTEST;
        }
        if limits.ahead == 0 && limits.most == 0 {
            return LONGEST; // Nothing is prepared.
        }
        let rate = (self.rate >> 10).max(SUDDEN);
        (sight.ready as u64 * SECOND / 2 / rate).clamp(SHORTEST, LONGEST)
    }
}
