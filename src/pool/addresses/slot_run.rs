//! Slots in somebody's hand.
#![allow(unsafe_code)] // Makes runs on the word of a caller.

use crate::geometry::{SLOTS, SlotId, SuperId};

/// Adjacent ACTIVE slots that whoever has this value holds: nobody else takes, writes or gives them
/// back. It cannot be copied, so slots cannot be given back twice; a value that is dropped leaves
/// them in use for good.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the slots stay in use for good"]
pub struct SlotRun {
    slot: SlotId,
    len: usize,
    fresh: bool,
}

impl SlotRun {
    /// Slots that the caller holds. `fresh` says that they read zero.
    ///
    /// # Safety
    /// The slots are ACTIVE, and the caller holds them: it took them, or it holds the span or run
    /// that they belong to and gives that up for this value. What is `fresh` reads zero.
    #[inline]
    pub unsafe fn held(slot: SlotId, len: usize, fresh: bool) -> Self {
        Self { slot, len, fresh }
    }

    /// The first slot.
    #[inline]
    pub fn slot(&self) -> SlotId {
        self.slot
    }

    /// The number of slots; none in a part that was cut off at an end.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the slots read zero.
    #[inline]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The first `len` slots, and the others.
    ///
    /// # Panics
    /// If the run has fewer slots.
    pub fn split(self, len: usize) -> (Self, Self) {
        assert!(len <= self.len);
        let rest = Self {
            slot: self.slot.add(len),
            len: self.len - len,
            ..self
        };
        (Self { len, ..self }, rest)
    }

    /// Both runs as one.
    ///
    /// # Panics
    /// If `next` does not begin where this run ends.
    pub fn join(self, next: Self) -> Self {
        assert!(self.slot.add(self.len) == next.slot);
        Self {
            len: self.len + next.len,
            fresh: self.fresh && next.fresh,
            ..self
        }
    }

    /// Calls `each` with every SuperSlab of the run, the first slot in it, and the number of slots.
    pub fn for_each_super(&self, mut each: impl FnMut(SuperId, usize, usize)) {
        let mut done = 0;
        while done < self.len {
            let (super_id, first) = self.slot.add(done).split();
            let part = (SLOTS - first).min(self.len - done);
            each(super_id, first, part);
            done += part;
        }
    }
}
