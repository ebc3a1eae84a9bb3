//! A CPU's small cache of the pool's spans: bounded and lock-free. Another one has the heaps that
//! threads have left on the CPU ([`crate::pool`]'s room `heaps`), by their numbers.
//!
//! Each place holds a span id plus one, or zero. A span is put by compare-exchange from zero and
//! taken by a swap to zero, so it has exactly one taker; there is no link to go stale and nothing
//! to allocate. A full stash refuses, and the span goes to the node's list under its lock.

use crate::geometry::SpanId;
use crate::sync::{AtomicU32, Ordering};

/// The number of places of a stash.
pub const PLACES: usize = 4;

/// The stashed spans of one class on one CPU. An all-zero stash is empty.
#[derive(Debug)]
#[repr(C)]
pub struct Stash([AtomicU32; PLACES]);

impl Stash {
    /// An empty stash.
    pub fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU32::new(0)))
    }

    /// Puts a span that the pool owns into a free place. Returns false if every place is taken.
    pub fn put(&self, span: SpanId) -> bool {
        self.put_number(span.0)
    }

    /// Puts the number of something that is the caller's. Returns false if every place is taken.
    pub fn put_number(&self, number: u32) -> bool {
        self.0.iter().any(|place| {
            place.load(Ordering::Relaxed) == 0
                && place
                    .compare_exchange(0, number + 1, Ordering::Release, Ordering::Relaxed)
                    .is_ok()
        })
    }

    /// Takes a span, which the caller must claim.
    pub fn take(&self) -> Option<SpanId> {
        self.take_number().map(SpanId)
    }

    /// Takes a number.
    pub fn take_number(&self) -> Option<u32> {
        self.0.iter().find_map(|place| {
            if place.load(Ordering::Relaxed) == 0 {
                return None;
            }
            place.swap(0, Ordering::Acquire).checked_sub(1)
        })
    }

    /// The spans in the stash. No other thread may use the stash meanwhile.
    #[cfg(all(any(test, debug_assertions), not(loom)))]
    pub fn spans(&self) -> impl Iterator<Item = SpanId> {
        let held = self.0.iter().map(|place| place.load(Ordering::Relaxed));
        held.filter_map(|id| id.checked_sub(1)).map(SpanId)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn bounded() {
        let stash = Stash::new();
        assert_eq!(stash.take(), None);
        for i in 0..PLACES as u32 {
            assert!(stash.put(SpanId(i)));
        }
        assert!(!stash.put(SpanId(99)));
        let mut got: Vec<_> = core::iter::from_fn(|| stash.take()).map(|s| s.0).collect();
        got.sort();
        assert_eq!(got, [0, 1, 2, 3]);
        assert!(stash.put(SpanId(7)));
    }
}
