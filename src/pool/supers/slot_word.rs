//! SP-SLOT: the state of a SuperSlab's 32 slots in one 64-bit word, two bits a slot.
//!
//! | state   | bits | meaning                                                            |
//! |---------|------|--------------------------------------------------------------------|
//! | ABSENT  | 00   | not to be taken: not mapped, or being purged (the design's PURGING) |
//! | FRESH   | 01   | free, reads zero, not touched since it was mapped or purged         |
//! | ACTIVE  | 10   | in use                                                             |
//! | EMPTY   | 11   | free and warm                                                      |
//!
//! The low bit says "can be taken", so `k` adjacent slots are found and taken with a few shifts and
//! one compare-exchange, and given back with one `fetch_or`. Zero, the state of untouched metadata,
//! is all ABSENT. Only the functions of this file write the word.

use crate::geometry::SLOTS;
use crate::sync::{AtomicU64, Ordering};

const LOW: u64 = 0x5555_5555_5555_5555;

/// The states of a SuperSlab's slots.
#[derive(Debug)]
#[repr(transparent)]
pub struct SlotWord(AtomicU64);

/// Adjacent slots that were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The first slot.
    pub first: usize,
    /// The number of taken slots that were EMPTY; if it is 0, all of them read zero.
    pub warm: u32,
}

/// Whether slots that can be taken were touched. What is warm comes first.
#[cfg(all(feature = "shared-pool", not(loom)))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warmth {
    /// All of them are EMPTY.
    Warm,
    /// Some are FRESH.
    Cold,
}

/// A copy of the word at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots(pub u64);

impl Slots {
    /// The low bits of the slots that can be taken.
    fn takeable(self) -> u64 {
        self.0 & LOW
    }

    /// The low bits of the EMPTY slots.
    fn empty(self) -> u64 {
        self.0 & (self.0 >> 1) & LOW
    }

    /// The state of a slot, as the table above calls it.
    pub fn name_of(self, slot: usize) -> &'static str {
        ["ABSENT", "FRESH", "ACTIVE", "EMPTY"][(self.0 >> (2 * slot)) as usize & 3]
    }

    /// The number of slots that can be taken.
    pub fn free_count(self) -> u32 {
        self.takeable().count_ones()
    }

    /// The number of EMPTY slots.
    pub fn empty_count(self) -> u32 {
        self.empty().count_ones()
    }

    /// The number of ACTIVE slots.
    #[cfg(any(test, loom, debug_assertions))]
    pub fn active_count(self) -> u32 {
        ((self.0 >> 1) & !self.0 & LOW).count_ones()
    }

    /// Whether any slot is EMPTY.
    pub fn has_empty(self) -> bool {
        self.empty() != 0
    }

    /// Whether `len` adjacent slots can be taken.
    pub fn has_run(self, len: usize) -> bool {
        starts(self.takeable(), len) != 0
    }

    /// Tells whether the first `len` slots can be taken.
    #[cfg(not(loom))]
    pub fn has_first(self, len: usize) -> bool {
        let want = low_bits(0, len);
        self.takeable() & want == want
    }

    /// Whether `len` adjacent slots can be taken, the first at a multiple of `align` slots, and
    /// whether such slots are warm.
    #[cfg(all(feature = "shared-pool", not(loom)))]
    pub fn run_at(self, len: usize, align: usize) -> Option<Warmth> {
        let has = |set| {
            let starts = starts(set, len);
            starts != 0 && (align == 1 || starts & aligned(align) != 0)
        };
        if has(self.empty()) {
            Some(Warmth::Warm)
        } else {
            has(self.takeable()).then_some(Warmth::Cold)
        }
    }
}

/// The low bits of the slots at which `len` set slots begin.
fn starts(mut set: u64, len: usize) -> u64 {
    let mut have = 1;
    while have < len {
        let step = have.min(len - have);
        set &= set >> (2 * step);
        have += step;
    }
    set
}

/// The maximal stretches of set slots.
fn stretches(mut set: u64) -> impl Iterator<Item = (usize, usize)> {
    core::iter::from_fn(move || {
        if set == 0 {
            return None;
        }
        let first = set.trailing_zeros() as usize / 2;
        let mut len = 1;
        while first + len < SLOTS && set & (1 << (2 * (first + len))) != 0 {
            len += 1;
        }
        set &= !low_bits(first, len);
        Some((first, len))
    })
}

fn low_bits(first: usize, len: usize) -> u64 {
    let mask = if len == SLOTS {
        LOW
    } else {
        LOW & ((1 << (2 * len)) - 1)
    };
    mask << (2 * first)
}

/// The slots at which a run of the alignment `align` (in slots, a power of two) may start.
fn aligned(align: usize) -> u64 {
    let mut mask = 0;
    let mut slot = 0;
    while slot < SLOTS {
        mask |= 1 << (2 * slot);
        slot += align;
    }
    mask
}

impl SlotWord {
    /// A word whose slots are all ABSENT.
    #[cfg(any(test, loom))]
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The states of the slots at this moment.
    pub fn get(&self) -> Slots {
        Slots(self.0.load(Ordering::Acquire))
    }

    /// Publishes the slots of a SuperSlab that the caller has claimed and mapped, which were all
    /// ABSENT: the first `taken` slots become ACTIVE at once, the others FRESH.
    pub fn publish_fresh(&self, taken: usize) {
        let active = if taken == 0 { 0 } else { low_bits(0, taken) };
        self.0
            .store((LOW & !active) | (active << 1), Ordering::Release);
    }

    /// Takes an EMPTY slot.
    #[cfg(any(feature = "shared-pool", test, loom))]
    pub fn take_empty(&self) -> Option<Taken> {
        self.take(
            |slots| {
                let empty = slots.empty();
                (empty != 0).then(|| empty.trailing_zeros() as usize / 2)
            },
            1,
        )
    }

    /// Takes `len` adjacent slots, the first at a multiple of `align` slots. EMPTY slots are
    /// preferred. Single slots come from the low end and runs from the high end, so that single
    /// slots do not split the room for runs.
    pub fn take_run(&self, len: usize, align: usize) -> Option<Taken> {
        let at = aligned(align);
        self.take(
            |slots| {
                let warm = starts(slots.empty(), len) & at;
                let found = if warm != 0 {
                    warm
                } else {
                    starts(slots.takeable(), len) & at
                };
                if found == 0 {
                    None
                } else if len == 1 {
                    Some(found.trailing_zeros() as usize / 2)
                } else {
                    Some((63 - found.leading_zeros() as usize) / 2)
                }
            },
            len,
        )
    }

    /// Takes exactly the slots `first..first + len`.
    pub fn take_exact(&self, first: usize, len: usize) -> Option<Taken> {
        let want = low_bits(first, len);
        self.take(
            |slots| (slots.takeable() & want == want).then_some(first),
            len,
        )
    }

    fn take(&self, choose: impl Fn(Slots) -> Option<usize>, len: usize) -> Option<Taken> {
        let mut now = self.0.load(Ordering::Acquire);
        loop {
            let first = choose(Slots(now))?;
            let bits = low_bits(first, len);
            let next = (now & !bits) | (bits << 1);
            match self
                .0
                .compare_exchange_weak(now, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => {
                    return Some(Taken {
                        first,
                        warm: ((now >> 1) & bits).count_ones(),
                    });
                }
                Err(seen) => now = seen,
            }
        }
    }

    /// Gives ACTIVE slots back as EMPTY. Returns the states before and after.
    pub fn release(&self, first: usize, len: usize) -> (Slots, Slots) {
        let bits = low_bits(first, len);
        let before = self.0.fetch_or(bits, Ordering::AcqRel);
        debug_assert_eq!(
            before & (bits | bits << 1),
            bits << 1,
            "only ACTIVE slots are released"
        );
        (Slots(before), Slots(before | bits))
    }

    /// Gives slots back in the state in which all of them were taken: FRESH if `fresh`, else EMPTY.
    #[cfg(not(feature = "shared-pool"))]
    pub fn put_back(&self, first: usize, len: usize, fresh: bool) {
        let bits = low_bits(first, len);
        if fresh {
            self.0.fetch_xor(bits | bits << 1, Ordering::AcqRel);
        } else {
            self.0.fetch_or(bits, Ordering::AcqRel);
        }
    }

    /// Takes all 32 slots for purging if all are free and at least one is EMPTY or `fresh_too`:
    /// they become ABSENT. Returns the states that they had.
    pub fn begin_purge_all(&self, fresh_too: bool) -> Option<Slots> {
        let now = self.get();
        let taken = now.takeable() == LOW
            && (fresh_too || now.has_empty())
            && self
                .0
                .compare_exchange(now.0, 0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        taken.then_some(now)
    }

    /// Takes the EMPTY slots for purging: they become ABSENT. Returns each stretch of taken slots:
    /// its first slot and its length.
    pub fn begin_purge_empty(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut now = self.0.load(Ordering::Acquire);
        let taken = loop {
            let empty = Slots(now).empty();
            let next = now & !(empty | empty << 1);
            match self
                .0
                .compare_exchange_weak(now, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => break empty,
                Err(seen) => now = seen,
            }
        };
        stretches(taken)
    }

    /// Ends a purge: ABSENT slots become FRESH, or EMPTY again where the purge failed. Returns the
    /// states before and after.
    pub fn end_purge(&self, first: usize, len: usize, purged: bool) -> (Slots, Slots) {
        let low = low_bits(first, len);
        let bits = if purged { low } else { low | low << 1 };
        let before = self.0.fetch_or(bits, Ordering::AcqRel);
        debug_assert_eq!(
            before & (low | low << 1),
            0,
            "only ABSENT slots were purged"
        );
        (Slots(before), Slots(before | bits))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn fresh() -> SlotWord {
        let word = SlotWord::new();
        word.publish_fresh(0);
        word
    }

    #[test]
    fn absent_slots_are_not_taken() {
        let word = SlotWord::new();
        assert_eq!(word.take_run(1, 1), None);
        assert_eq!(word.take_empty(), None);
        assert_eq!(word.take_exact(0, 32), None);
        assert_eq!(word.begin_purge_all(true), None);
    }

    #[test]
    fn empty_is_preferred_and_not_zero() {
        let word = fresh();
        assert_eq!(word.take_run(1, 1), Some(Taken { first: 0, warm: 0 }));
        assert_eq!(word.take_run(1, 1), Some(Taken { first: 1, warm: 0 }));
        word.release(1, 1);
        assert_eq!(word.take_run(1, 1), Some(Taken { first: 1, warm: 1 }));
        assert_eq!(word.get().active_count(), 2);
        assert_eq!(word.get().free_count(), 30);
    }

    #[test]
    fn runs_are_adjacent_and_aligned() {
        for len in 1..=32 {
            for align in [1, 2, 4, 8, 16, 32] {
                let word = fresh();
                let mut seen = 0u32;
                while let Some(taken) = word.take_run(len, align) {
                    assert_eq!(taken.first % align, 0);
                    let bits = (((1u64 << len) - 1) << taken.first) as u32;
                    assert!(taken.first + len <= 32 && seen & bits == 0);
                    seen |= bits;
                }
                assert!(seen != 0);
                assert_eq!(word.get().active_count(), seen.count_ones());
            }
        }
    }

    #[test]
    fn purge_takes_what_is_empty() {
        let word = fresh();
        let run = word.take_run(8, 1).unwrap();
        word.take_exact(0, 3).unwrap();
        word.release(run.first, 8);
        assert_eq!(word.begin_purge_empty().collect::<Vec<_>>(), [(24, 8)]);
        assert_eq!(word.get().free_count(), 21);
        word.end_purge(24, 8, true);
        assert_eq!(word.get().free_count(), 29);
        assert!(!word.get().has_empty());
        assert_eq!(word.begin_purge_all(true), None);
        word.release(0, 3);
        assert!(word.begin_purge_all(false).is_some());
        assert_eq!(word.get(), Slots(0));
    }
}
