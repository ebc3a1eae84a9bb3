//! The owner of a span, and how blocks come home to it from other threads (TREMOTE).
//!
//! A span has exactly one owner at any moment. `owner` is one atomic word:
//!
//! - [`FREE`]: its slots are not in use (also in the metadata of slots inside a larger span);
//! - [`NOBODY`]: it is full, that is, it has no free block and is on no list;
//! - [`POOL`]: it is on a list or in a stash of the pool;
//! - [`RUN`]: it is a large or huge run, freed as a whole;
//! - anything from [`FIRST_HEAP`]: the id of the heap that owns it.
//!
//! Only the owner touches a span's free bits, its counts and its link; for a heap, that is who has
//! the heap's lock ([`crate::pool::heap_lock`]). Anyone may set remote bits:
//! a freer that is not the owner sets the block's bit in the remote word, then the word's bit in
//! `pending`. The freer that finds `pending` empty and the owner NOBODY moves the span to POOL (or
//! to itself, if it was the span's last owner).
//!
//! The owner of a span without free bits collects the pending words. If there are none it swaps the
//! owner to NOBODY and reads `pending` once more. All four accesses of this handshake (the owner's
//! swap and re-read, the freer's `fetch_or` and compare-exchange) are read-modify-writes with
//! acquire-release ordering: whichever of the two on `pending` comes second sees what the other did
//! before it, so either the owner sees the bit or the freer sees NOBODY. Plain loads and stores
//! of `pending` would lose spans here (`tests/loom` shows it). Most freers find another owner, and
//! a load says so: only those that see NOBODY need the compare-exchange, which makes one of them
//! the heir.
//!
//! A late freer may find the span collected, released and reused. Then its compare-exchange fails
//! on FREE or on a heap's id, or it lists a full span as partial; whoever takes that span from the
//! list disowns it again. A bit left in `pending` without a bit in the remote word means nothing
//! and is dropped by the next collection.

use crate::sync::{AtomicU64, Ordering};

/// The span's slots are not in use. Zero, so that untouched metadata is valid.
pub const FREE: u64 = 0;
/// The span is full and on no list.
pub const NOBODY: u64 = 1;
/// The span is on a list or in a stash of the pool.
pub const POOL: u64 = 2;
/// The span is a large or huge run.
pub const RUN: u64 = 3;
/// The smallest heap id.
pub const FIRST_HEAP: u64 = 16;

/// The words that threads share about one span.
#[derive(Debug)]
#[repr(C)]
pub struct Handshake {
    owner: AtomicU64,
    /// Bit `w` is set after a bit was set in remote word `w`.
    pending: AtomicU64,
}

/// The work that a remote free leaves to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Freed {
    /// Nothing: the span has an owner, or another thread will notice the bit.
    Noted,
    /// The span is POOL now and the caller puts it on a list.
    ToPool,
    /// The span is the caller's now.
    Mine,
    /// These bits were set already: a double free. Nothing else was changed.
    Twice(u64),
}

impl Handshake {
    /// The words of a span whose slots are not in use, as in metadata that was never touched.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            owner: AtomicU64::new(FREE),
            pending: AtomicU64::new(0),
        }
    }

    /// The owner as seen now. Only the answer that the caller's own heap owns it stays true, as
    /// long as the caller has that heap's lock.
    #[inline]
    pub fn owner(&self) -> u64 {
        self.owner.load(Ordering::Relaxed)
    }

    /// Makes `me` (the id of a heap, or RUN) the owner of a span of free slots. No block of the
    /// span is live, so bits that are left in `pending` mean nothing.
    pub fn claim(&self, me: u64) {
        self.pending.store(0, Ordering::Relaxed);
        self.owner.store(me, Ordering::Release);
    }

    /// Owner only: gives up a span whose blocks are all free.
    pub fn release(&self) {
        self.owner.swap(FREE, Ordering::AcqRel);
    }

    /// Ends a run. Returns false if the span was no run or was one no longer: a double free.
    pub fn end_run(&self) -> bool {
        self.owner
            .compare_exchange(RUN, FREE, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Owner only: gives a span with free blocks to the pool and puts it on a list afterwards.
    pub fn give_to_pool(&self) {
        self.owner.store(POOL, Ordering::Release);
    }

    /// Takes a span that the caller has removed from a list or a stash.
    pub fn take_from_pool(&self, me: u64) {
        let was = self.owner.swap(me, Ordering::AcqRel);
        debug_assert_eq!(was, POOL, "the pool owned the listed span");
    }

    /// Owner only: leaves a span to nobody whose only block is handed out. There is no other block
    /// that could come home meanwhile: whoever frees this one takes the span by `retake`.
    pub fn hand_out(&self) {
        self.owner.store(NOBODY, Ordering::Release);
    }

    /// Takes a full span back if its owner word is NOBODY. Only the last owner may call this, or
    /// who frees the only block of a span.
    #[inline]
    pub fn retake(&self, me: u64) -> bool {
        self.owner.load(Ordering::Relaxed) == NOBODY
            && self
                .owner
                .compare_exchange(NOBODY, me, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// Frees the blocks `bits` of remote word `index`. `heir` is the owner word that the span gets
    /// if it was NOBODY: the caller's id if it was the last owner, else POOL.
    #[inline]
    pub fn free_remote(&self, word: &AtomicU64, index: usize, bits: u64, heir: u64) -> Freed {
        let twice = word.fetch_or(bits, Ordering::AcqRel) & bits;
        if twice != 0 {
            return Freed::Twice(twice);
        }
        if self.pending.fetch_or(1 << index, Ordering::AcqRel) != 0 {
            return Freed::Noted;
        }
        // The `fetch_or` comes before the owner's, which sees the bit, or after it and so after
        // the owner's swap, which this load then sees.
        if self.owner.load(Ordering::Relaxed) != NOBODY {
            return Freed::Noted;
        }
        match self
            .owner
            .compare_exchange(NOBODY, heir, Ordering::AcqRel, Ordering::Relaxed)
        {
            Ok(_) if heir == POOL => Freed::ToPool,
            Ok(_) => Freed::Mine,
            Err(_) => Freed::Noted,
        }
    }

    /// Whether a collection would find a pending word.
    #[inline]
    pub fn has_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed) != 0
    }

    /// Owner only: takes all pending bits; `each` gets a word's index and its bits. Returns whether
    /// there were any bits.
    pub fn collect<'a>(
        &self,
        word: impl Fn(usize) -> &'a AtomicU64,
        mut each: impl FnMut(usize, u64),
    ) -> bool {
        if !self.has_pending() {
            return false;
        }
        let mut pending = self.pending.swap(0, Ordering::AcqRel);
        let mut any = false;
        while pending != 0 {
            let index = pending.trailing_zeros() as usize;
            pending &= pending - 1;
            let bits = word(index).swap(0, Ordering::AcqRel);
            if bits != 0 {
                any = true;
                each(index, bits);
            }
        }
        any
    }

    /// Owner only, for a span without free bits: sets its owner word to NOBODY. Returns true if a
    /// remote free came in between and the caller still owns the span, which it must then collect.
    pub fn disown(&self, me: u64) -> bool {
        self.owner.swap(NOBODY, Ordering::AcqRel);
        self.pending.fetch_or(0, Ordering::AcqRel) != 0
            && self
                .owner
                .compare_exchange(NOBODY, me, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}
