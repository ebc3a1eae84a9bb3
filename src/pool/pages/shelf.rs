//! The shelf: huge runs of a node that were freed and wait for the next request of about their
//! size, so that a pair of malloc and free finds, takes and gives back no SuperSlabs.
//!
//! A place holds a run's first slot and its length in one word, or zero. A run is put by
//! compare-exchange from zero, or by a swap for the run that was there, and taken by
//! compare-exchange to zero: so it has exactly one taker. If it was taken and put again meanwhile,
//! the word says the same, and it is the same run.
//!
//! The slots of such a run stay ACTIVE and keep their class bytes; its owner word is FREE, so a
//! second free is found. They count as warm and free.

use crate::geometry::{SLOTS, SlotId};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The number of places of a shelf.
const PLACES: usize = 8;
/// The bits of a word that have the first slot.
const SLOT_BITS: u32 = 32;

/// The shelf of a node. An all-zero shelf is empty.
#[derive(Debug)]
#[repr(align(64))]
pub struct Shelf {
    places: [AtomicU64; PLACES],
    /// The place whose run goes next when all have one.
    next: AtomicU32,
}

fn word(slot: SlotId, len: usize) -> u64 {
    (len as u64) << SLOT_BITS | u64::from(slot.0)
}

fn run(word: u64) -> (SlotId, usize) {
    (SlotId(word as u32), (word >> SLOT_BITS) as usize)
}

impl Shelf {
    /// An empty shelf.
    pub fn new() -> Self {
        Self {
            places: core::array::from_fn(|_| AtomicU64::new(0)),
            next: AtomicU32::new(0),
        }
    }

    /// Puts a run, at least one slot, that the caller holds. Returns the run that must go for it:
    /// the caller holds that one then.
    pub fn put(&self, slot: SlotId, len: usize) -> Option<(SlotId, usize)> {
        let word = word(slot, len);
        let put = |place: &AtomicU64| {
            place.load(Ordering::Relaxed) == 0
                && place
                    .compare_exchange(0, word, Ordering::Release, Ordering::Relaxed)
                    .is_ok()
        };
        if self.places.iter().any(put) {
            return None;
        }
        let nth = self.next.fetch_add(1, Ordering::Relaxed) as usize % PLACES;
        let old = self.places[nth].swap(word, Ordering::AcqRel);
        (old != 0).then(|| run(old))
    }

    /// Takes a run of at least `len` slots that `fits`, and of no more SuperSlabs than these need.
    pub fn take(&self, len: usize, fits: impl Fn(SlotId) -> bool) -> Option<(SlotId, usize)> {
        self.places.iter().find_map(|place| {
            let now = place.load(Ordering::Relaxed);
            let (slot, has) = run(now);
            let taken = (len..=len.next_multiple_of(SLOTS)).contains(&has)
                && fits(slot)
                && place
                    .compare_exchange(now, 0, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok();
            taken.then_some((slot, has))
        })
    }

    /// Takes any run.
    pub fn take_any(&self) -> Option<(SlotId, usize)> {
        self.places.iter().find_map(|place| {
            if place.load(Ordering::Relaxed) == 0 {
                return None;
            }
            let was = place.swap(0, Ordering::Acquire);
            (was != 0).then(|| run(was))
        })
    }

    /// The slots of all runs. No other thread may use the shelf meanwhile.
    #[cfg(not(loom))]
    pub fn slots(&self) -> usize {
        let words = self
            .places
            .iter()
            .map(|place| place.load(Ordering::Relaxed));
        words.map(|word| run(word).1).sum()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_run_serves_what_is_a_little_smaller() {
        let shelf = Shelf::new();
        assert_eq!(shelf.put(SlotId(64), 80), None);
        for (len, fits) in [(81, true), (64, true), (80, false)] {
            assert_eq!(shelf.take(len, |_| fits), None);
        }
        assert_eq!(
            shelf.take(65, |slot| slot == SlotId(64)),
            Some((SlotId(64), 80))
        );
        assert_eq!(shelf.take(65, |_| true), None);
    }

    #[test]
    fn the_oldest_goes_when_all_places_have_one() {
        let shelf = Shelf::new();
        (0..8).for_each(|nth| assert_eq!(shelf.put(SlotId(nth), 100), None));
        assert_eq!(shelf.put(SlotId(8), 100), Some((SlotId(0), 100)));
        assert_eq!(shelf.put(SlotId(9), 100), Some((SlotId(1), 100)));
        assert_eq!(shelf.slots(), 800);
        assert_eq!(core::iter::from_fn(|| shelf.take_any()).count(), 8);
        assert_eq!(shelf.slots(), 0);
    }
}
