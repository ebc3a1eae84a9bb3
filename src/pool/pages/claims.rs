//! The claims on a node's SuperSlabs: one byte for each says whether the SuperSlab is mapped and
//! which thread may map it, and the frontier says how far the node's part of the range is used.
//!
//! | byte      | meaning                                                                   |
//! |-----------|---------------------------------------------------------------------------|
//! | 0         | not mapped                                                                |
//! | 1 to 4    | mapped as this `PageMode`, maybe with flags: [`POPULATED`] and the following  |
//! | PREPARING | claimed by a thread that is mapping it, or spare; no other thread touches it |
//! | LOST      | never used again: the addresses went to a foreign mapping                 |
//!
//! A thread claims a byte by compare-exchange from 0 and sets it to 0 again if it gives the
//! SuperSlab up, so mapping needs no lock against threads that map other SuperSlabs: a thread that
//! grows never waits for the warmer, which may not run for long. A thread that meets a claimed byte
//! goes on to the next.
//!
//! Every byte that is not 0 lies below the `frontier` once its claimer has moved the frontier;
//! `holes` counts the zeros below it. Every thread writes in the same order (bytes, frontier,
//! holes) and computes its change of `holes` from the old value of the frontier, so the count is
//! exact whenever no thread is between two of these steps.
//!
//! Holes are found by a bit for each ([`crate::pool::supers::extents`]), which is set after the
//! byte is 0, and cleared by the next claimer: a clear bit is a promise that there is no hole, or
//! that a thread is about to set the bit.

use crate::geometry::NodeSuper;
use crate::pool::metadata::column::Column;
use crate::pool::supers::extents::Extents;
use crate::sync::{AtomicIsize, AtomicU8, AtomicUsize, Ordering, fence};

/// The byte of a SuperSlab that a thread is mapping.
pub const PREPARING: u8 = 254;
/// The byte of a SuperSlab whose addresses were lost.
pub const LOST: u8 = 255;
/// The bits of a mapped SuperSlab's byte that are its `PageMode`.
pub const MODE: u8 = 0x0F;
/// A flag beside the mode: all pages were there at one moment since the SuperSlab was mapped or
/// purged.
pub const POPULATED: u8 = 0x10;
/// A flag beside the mode: the warmer has got hugepages instead of small ones.
pub const EXAMINED: u8 = 0x20;
/// A flag beside the mode: filled up whenever the warmer has looked since a round began.
pub const FILLED: u8 = 0x40;
/// A flag beside the mode: it was filled up for a whole round of the warmer's.
pub const RIPE: u8 = 0x80;

/// The claims on the SuperSlabs of a node's part.
#[derive(Debug)]
pub struct Claims<'a> {
    bytes: Column<'a, AtomicU8>,
    frontier: AtomicUsize,
    holes: AtomicIsize,
    extents: Extents<'a>,
}

impl<'a> Claims<'a> {
    /// The claims on a part of which nothing is mapped: the bytes are zero.
    pub fn new(bytes: impl Into<Column<'a, AtomicU8>>, extents: Extents<'a>) -> Self {
        Self {
            bytes: bytes.into(),
            frontier: AtomicUsize::new(0),
            holes: AtomicIsize::new(0),
            extents,
        }
    }

    /// The byte of a SuperSlab.
    pub fn byte(&self, i: NodeSuper) -> &'a AtomicU8 {
        self.bytes.at(i.index())
    }

    /// Whether a SuperSlab is not mapped and can be claimed.
    pub fn is_free(&self, i: NodeSuper) -> bool {
        self.byte(i).load(Ordering::Relaxed) == 0
    }

    /// The frontier: no SuperSlab from here on is mapped.
    pub fn frontier(&self) -> NodeSuper {
        NodeSuper(self.frontier.load(Ordering::Acquire) as u32)
    }

    /// The number of free SuperSlabs below the frontier; a hint while other threads claim.
    pub fn holes(&self) -> usize {
        self.holes.load(Ordering::Relaxed).max(0) as usize
    }

    /// Claims `count` SuperSlabs from `first` on if all of them are free. Returns whether they
    /// were.
    pub fn claim(&self, first: NodeSuper, count: usize) -> bool {
        let (first, end) = (first.index(), first.index() + count);
        for i in first..end {
            if (self.bytes.at(i))
                .compare_exchange(0, PREPARING, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
            {
                self.clear(first, i);
                return false;
            }
        }
        let old = self.frontier.fetch_max(end, Ordering::AcqRel);
        // The SuperSlabs between the old frontier and `first` were skipped, for alignment or
        // because another thread has claimed them.
        let skipped = first.saturating_sub(old);
        let filled = old.min(end).saturating_sub(first);
        self.holes
            .fetch_add(skipped as isize - filled as isize, Ordering::AcqRel);
        (old..first).for_each(|i| self.extents.offer_hole(NodeSuper(i as u32)));
        (first..old.min(end)).for_each(|i| self.extents.take_hole(NodeSuper(i as u32)));
        true
    }

    /// Claims the first hole.
    pub fn claim_hole(&self) -> Option<NodeSuper> {
        if self.holes() == 0 {
            return None;
        }
        let mut from = NodeSuper(0);
        loop {
            let i = self.extents.next_hole(from)?;
            if self.is_free(i) && self.claim(i, 1) {
                return Some(i);
            }
            self.withdraw(i);
            from = i.add(1);
        }
    }

    /// Clears the bit of a SuperSlab that is no hole, unless it is one (again).
    pub fn withdraw(&self, i: NodeSuper) {
        if self.extents.may_be_hole(i) && !self.is_free(i) {
            self.extents.take_hole(i);
            fence(Ordering::SeqCst);
            if self.is_free(i) {
                self.extents.offer_hole(i);
            }
        }
    }

    /// Claims up to `count` adjacent SuperSlabs at the frontier, all of them before `supers`, from
    /// where on there are no bytes yet. Returns the first one and their number.
    pub fn claim_ahead(&self, count: usize, supers: usize) -> Option<(NodeSuper, usize)> {
        let free = |&i: &usize| self.is_free(NodeSuper(i as u32));
        let mut from = self.frontier().index();
        loop {
            let first = (from..supers).find(free)?;
            let end = (first + count).min(supers);
            let len = (first..end).take_while(free).count();
            let claimed = NodeSuper(first as u32);
            if len > 0 && self.claim(claimed, len) {
                return Some((claimed, len));
            }
            // Another thread has claimed it. That thread may move the frontier late, and this one
            // must not wait for it.
            from = first + 1;
        }
    }

    /// Records that a SuperSlab that the caller has claimed is now mapped as this `PageMode`,
    /// without flags.
    pub fn set_mode(&self, i: NodeSuper, mode: u8) {
        self.byte(i).store(mode, Ordering::Release);
    }

    /// Gives claimed SuperSlabs back that are not mapped.
    pub fn give_up(&self, first: NodeSuper, count: usize) {
        let (first, end) = (first.index(), first.index() + count);
        // A growth step that the system refused leaves no holes if no other thread has moved the
        // frontier meanwhile.
        if self
            .frontier
            .compare_exchange(end, first, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            self.holes.fetch_add(count as isize, Ordering::AcqRel);
        }
        self.clear(first, end);
    }

    fn clear(&self, first: usize, end: usize) {
        for byte in (first..end).map(|i| self.bytes.at(i)) {
            // No plain store: loom would not see that it comes before or after another thread's
            // `mark` as a whole.
            byte.swap(0, Ordering::Release);
        }
        // Another thread may have withdrawn the bits meanwhile, or moved the frontier: the fence
        // lets this thread see the one, or that thread the bytes.
        fence(Ordering::SeqCst);
        let end = end.min(self.frontier().index());
        (first..end).for_each(|i| self.extents.offer_hole(NodeSuper(i as u32)));
    }

    /// Adds `flag` to the byte of a mapped SuperSlab, unless the SuperSlab is unmapped or the byte
    /// changes meanwhile.
    pub fn mark(&self, i: NodeSuper, flag: u8) {
        self.change(i, |now| now | flag);
    }

    /// Clears the flags of a mapped SuperSlab whose slots the caller has taken and whose pages are
    /// gone.
    pub fn unmark(&self, i: NodeSuper) {
        self.byte(i).fetch_and(MODE, Ordering::AcqRel);
    }

    /// Clears flags of a SuperSlab, unless it is unmapped or the byte changes meanwhile.
    pub fn unmark_some(&self, i: NodeSuper, flags: u8) {
        self.change(i, |now| now & !flags);
    }

    fn change(&self, i: NodeSuper, flags: impl FnOnce(u8) -> u8) {
        let now = self.byte(i).load(Ordering::Relaxed);
        if now != 0 && now < PREPARING {
            let _ =
                self.byte(i)
                    .compare_exchange(now, flags(now), Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Whether a SuperSlab is mapped and has the flag.
    pub fn has(&self, i: NodeSuper, flag: u8) -> bool {
        let byte = self.byte(i).load(Ordering::Relaxed);
        byte < PREPARING && byte & flag != 0
    }

    /// The number of holes that are offered, by a count of the bytes, for tests.
    #[cfg(any(test, loom, debug_assertions))]
    pub fn count_holes(&self) -> usize {
        below(self.frontier())
            .filter(|&i| self.is_free(i) && self.extents.may_be_hole(i))
            .count()
    }
}

/// All SuperSlabs below this one.
pub fn below(end: NodeSuper) -> impl Iterator<Item = NodeSuper> {
    (0..end.0).map(NodeSuper)
}
