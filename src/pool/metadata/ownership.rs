//! The owner of a span, and how blocks come home to it from other threads (TREMOTE).
//!
//! A span is always in exactly one hand. `owner` is one atomic word:
//!
//! - [`FREE`]: its slots are not in use (also in the metadata of slots inside a larger span);
//! - [`NOBODY`]: it is full, that is, it has no free block and is on no list;
//! - [`POOL`]: it is on a list or in a stash of the pool;
//! - [`RUN`]: it is a large or huge run, freed as a whole;
//! - anything from [`FIRST_HEAP`]: the id of the heap that owns it.
//!
//! Only the owner touches a span's free bits, its counts and its link. Anyone may set remote bits:
//! a freer that is not the owner sets the block's bit in the remote word, then the word's bit in
//! `pending`. The freer that finds `pending` empty and the owner NOBODY moves the span to POOL (or
//! to itself, if it was the span's last owner).
//!
//! The owner of a span without free bits collects the pending words. If there are none it swaps the
//! owner to NOBODY and reads `pending` once more. All four accesses of this handshake (the owner's
//! swap and re-read, the freer's `fetch_or` and compare-exchange) are read-modify-writes with
//! acquire-release ordering: whichever of the two on `pending` comes second sees what the other did
//! before it, so either the owner sees the bit or the freer sees NOBODY. Plain loads and stores
//! would lose spans here (`tests/loom` shows it).
//!
//! A late freer may find the span collected, released and reused. Then its compare-exchange fails
//! on FREE or on a heap's id, or it lists a full span as partial; whoever takes that span from the
//! list disowns it again. A bit left in `pending` without a bit in the remote word means nothing
//! and is dropped by the next collection.

use crate::sync::{AtomicU64, Ordering};

/// The span's slots are not in use. Zero, so that untouched metadata is valid.
pub const FREE: u64 = 0;
/// Full, on no list.
pub const NOBODY: u64 = 1;
/// On a list or in a stash of the pool.
pub const POOL: u64 = 2;
/// A large or huge run.
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
    /// Nothing: the span has an owner or will be noticed by somebody else.
    Noted,
    /// The span is POOL now and the caller puts it on a list.
    ToPool,
    /// The span is the caller's now.
    Mine,
    /// The bit was set already: a double free. Nothing else was changed.
    Twice,
}

impl Handshake {
    /// A span in nobody's use. Metadata that was never touched is the same.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            owner: AtomicU64::new(FREE),
            pending: AtomicU64::new(0),
        }
    }

    /// The owner as seen now. Only the answer "me" stays true: nobody else takes a span from its
    /// heap.
    #[inline]
    pub fn owner(&self) -> u64 {
        self.owner.load(Ordering::Relaxed)
    }

    /// Makes a span of free slots `me`'s (a heap, or RUN). No block of it is live, so what
    /// `pending` may still hold means nothing.
    pub fn claim(&self, me: u64) {
        self.pending.store(0, Ordering::Relaxed);
        self.owner.store(me, Ordering::Release);
    }

    /// The owner gives up a span whose blocks are all free.
    pub fn release(&self) {
        self.owner.swap(FREE, Ordering::AcqRel);
    }

    /// Ends a run; false if it was no run (any more): a double free.
    pub fn end_run(&self) -> bool {
        self.owner
            .compare_exchange(RUN, FREE, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// The owner gives a span with free blocks to the pool and puts it on a list afterwards.
    pub fn give_to_pool(&self) {
        self.owner.store(POOL, Ordering::Release);
    }

    /// Takes a span that the caller has removed from a list or a stash.
    pub fn take_from_pool(&self, me: u64) {
        let was = self.owner.swap(me, Ordering::AcqRel);
        debug_assert_eq!(was, POOL, "a listed span is the pool's");
    }

    /// Takes a full span back if it is in nobody's hand. For its last owner only.
    #[inline]
    pub fn retake(&self, me: u64) -> bool {
        self.owner.load(Ordering::Relaxed) == NOBODY
            && self
                .owner
                .compare_exchange(NOBODY, me, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// Frees the blocks `bits` of remote word `index`. `heir` is who gets the span if it was in
    /// nobody's hand: the caller's id if it was the last owner, else POOL.
    #[inline]
    pub fn free_remote(&self, word: &AtomicU64, index: usize, bits: u64, heir: u64) -> Freed {
        if word.fetch_or(bits, Ordering::AcqRel) & bits != 0 {
            return Freed::Twice;
        }
        if self.pending.fetch_or(1 << index, Ordering::AcqRel) != 0 {
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

    /// Whether a collection would look at any word.
    #[inline]
    pub fn has_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed) != 0
    }

    /// Owner only: takes all pending bits; `each` gets a word's index and its bits. True if there
    /// were any.
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

    /// Owner only, for a span without free bits: leaves it to nobody. True if a remote free came in
    /// between and the caller owns the span still (and collects).
    pub fn disown(&self, me: u64) -> bool {
        self.owner.swap(NOBODY, Ordering::AcqRel);
        self.pending.fetch_or(0, Ordering::AcqRel) != 0
            && self
                .owner
                .compare_exchange(NOBODY, me, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}
