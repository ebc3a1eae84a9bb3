//! Which SuperSlabs of a node are mapped, by one byte each: who may map one, and how far the part
//! is used.
//!
//! | byte      | meaning                                                                   |
//! |-----------|---------------------------------------------------------------------------|
//! | 0         | not mapped                                                                |
//! | 1 to 4    | mapped as this `PageMode`, maybe with [`POPULATED`] and [`EXAMINED`]       |
//! | PREPARING | somebody's who is mapping it; nobody else touches it                      |
//! | LOST      | never to be used: the addresses went to a foreign mapping                 |
//!
//! The bytes are claimed by compare-exchange from 0 and given back as they were, so mapping needs
//! no lock against whoever maps elsewhere: a thread that grows never waits for the warmer, which
//! may not run for long. Who meets a claimed byte looks further on.
//!
//! All that is not 0 lies below the `frontier`, once its claimer has moved that; `holes` counts the
//! zeros below it. Both are moved in one order (bytes, frontier, holes), and each mover accounts
//! for what the frontier's old value tells, so the count is exact when nobody is in between.

use crate::geometry::NodeSuper;
use crate::sync::{AtomicIsize, AtomicU8, AtomicUsize, Ordering};

/// A SuperSlab that is being mapped.
pub const PREPARING: u8 = 254;
/// A SuperSlab whose addresses were lost.
pub const LOST: u8 = 255;
/// The bits of a mapped SuperSlab's byte that are its `PageMode`.
pub const MODE: u8 = 0x0F;
/// With a mode: all pages were there at one moment since the SuperSlab was mapped or purged.
pub const POPULATED: u8 = 0x10;
/// With a mode: the warmer has asked for hugepages instead of small ones.
pub const EXAMINED: u8 = 0x20;

/// The SuperSlabs of a node's part.
#[derive(Debug)]
pub struct Claims<'a> {
    bytes: &'a [AtomicU8],
    frontier: AtomicUsize,
    holes: AtomicIsize,
}

impl<'a> Claims<'a> {
    /// A part of which nothing is mapped: the bytes are zero.
    pub fn new(bytes: &'a [AtomicU8]) -> Self {
        Self {
            bytes,
            frontier: AtomicUsize::new(0),
            holes: AtomicIsize::new(0),
        }
    }

    /// The byte of a SuperSlab.
    pub fn byte(&self, i: NodeSuper) -> &'a AtomicU8 {
        &self.bytes[i.index()]
    }

    /// Whether a SuperSlab is not mapped and can be claimed.
    pub fn is_free(&self, i: NodeSuper) -> bool {
        self.byte(i).load(Ordering::Relaxed) == 0
    }

    /// No SuperSlab from here on is mapped.
    pub fn frontier(&self) -> NodeSuper {
        NodeSuper(self.frontier.load(Ordering::Acquire) as u32)
    }

    /// SuperSlabs below the frontier that are free; a hint while others claim.
    pub fn holes(&self) -> usize {
        self.holes.load(Ordering::Relaxed).max(0) as usize
    }

    /// Claims SuperSlabs, if all of them are free.
    pub fn claim(&self, first: NodeSuper, count: usize) -> bool {
        let (first, end) = (first.index(), first.index() + count);
        for i in first..end {
            if self.bytes[i]
                .compare_exchange(0, PREPARING, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
            {
                self.clear(first, i);
                return false;
            }
        }
        let old = self.frontier.fetch_max(end, Ordering::AcqRel);
        // What lies between the old frontier and `first` was skipped, for alignment or as another's
        // claim.
        let skipped = first.saturating_sub(old);
        let filled = old.min(end).saturating_sub(first);
        self.holes
            .fetch_add(skipped as isize - filled as isize, Ordering::AcqRel);
        true
    }

    /// Claims the first hole.
    pub fn claim_hole(&self) -> Option<NodeSuper> {
        if self.holes() == 0 {
            return None;
        }
        below(self.frontier()).find(|&i| self.is_free(i) && self.claim(i, 1))
    }

    /// Claims up to `count` adjacent SuperSlabs at the frontier: the first one, and how many.
    pub fn claim_ahead(&self, count: usize) -> Option<(NodeSuper, usize)> {
        let supers = self.bytes.len();
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
            // Another claimer's; its frontier may come late, and must not be waited for.
            from = first + 1;
        }
    }

    /// A SuperSlab of the caller's is mapped as this `PageMode` now: its flags are gone.
    pub fn set_mode(&self, i: NodeSuper, mode: u8) {
        self.byte(i).store(mode, Ordering::Release);
    }

    /// Gives claimed SuperSlabs back, which are not mapped.
    pub fn give_up(&self, first: NodeSuper, count: usize) {
        let (first, end) = (first.index(), first.index() + count);
        // A step that the system refused leaves no holes where nobody has gone on meanwhile.
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
        for byte in &self.bytes[first..end] {
            // No plain store: loom would not see that it comes before or after another thread's
            // `mark` as a whole.
            byte.swap(0, Ordering::Release);
        }
    }

    /// Adds `flag` to the byte of a mapped SuperSlab, unless it is unmapped or changed meanwhile.
    pub fn mark(&self, i: NodeSuper, flag: u8) {
        let now = self.byte(i).load(Ordering::Relaxed);
        if now != 0 && now < PREPARING {
            let _ =
                self.byte(i)
                    .compare_exchange(now, now | flag, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Takes the flags away from a mapped SuperSlab whose slots are the caller's: its pages are
    /// gone.
    pub fn unmark(&self, i: NodeSuper) {
        self.byte(i).fetch_and(MODE, Ordering::AcqRel);
    }

    /// Whether a SuperSlab is mapped and has the flag.
    pub fn has(&self, i: NodeSuper, flag: u8) -> bool {
        let byte = self.byte(i).load(Ordering::Relaxed);
        byte < PREPARING && byte & flag != 0
    }

    /// The holes that are really there, for tests.
    #[cfg(any(test, loom, debug_assertions))]
    pub fn count_holes(&self) -> usize {
        below(self.frontier()).filter(|&i| self.is_free(i)).count()
    }
}

/// All SuperSlabs below this one.
pub fn below(end: NodeSuper) -> impl Iterator<Item = NodeSuper> {
    (0..end.0).map(NodeSuper)
}
