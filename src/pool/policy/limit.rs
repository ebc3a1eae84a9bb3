//! The limits of the bytes that the heap has mapped: the options `limit` and `soft_limit`.
//!
//! Whoever maps asks [`Limit::take`] first, which is one compare-exchange where memory grows and
//! nothing anywhere else; whoever unmaps says so to [`Limit::give`]. What counts is what was mapped
//! since the start, touched or not: SuperSlabs, runs outside of the range, and the metadata that is
//! opened as these come. What is accessible from the start does not count.
//!
//! - `limit`: what would be beyond it is refused. The count never exceeds it, whatever number of
//!   threads map at once.
//! - `soft_limit`: growth beyond it is noted ([`Limit::is_due`]), and a thread that has left the
//!   pool, and holds no lock, acts on the note. The next note comes when another eighth of
//!   `soft_limit` was mapped, or when the heap goes beyond `soft_limit` once more after it had
//!   fallen an eighth below: a heap that stays near its limit does not purge at each growth.

use crate::geometry::SUPER;
use crate::stats::board::Header;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use theap_platform::HUGE;

/// The bytes of metadata that a growth may open besides: a step of 2 MiB, and the tables of 1 GiB
/// of addresses.
const METADATA: usize = HUGE + (64 << 10);

/// The bytes that are mapped, and their limits.
pub struct Limit {
    /// No limit is `usize::MAX`.
    hard: usize,
    soft: usize,
    mapped: AtomicUsize,
    /// Growth beyond so many bytes is noted.
    next: AtomicUsize,
    /// Growth beyond `soft` was noted, and nobody has acted on that yet.
    due: AtomicBool,
    /// Where the bytes are shown, and how often the limits were met. The board may be shared with a
    /// forked child, so nothing is decided by it.
    board: &'static Header,
}

impl Limit {
    /// The limits of a heap that has mapped nothing yet; 0 is none.
    pub fn new(hard: usize, soft: usize, board: &'static Header) -> Self {
        let [hard, soft] = [hard, soft].map(|bytes| if bytes == 0 { usize::MAX } else { bytes });
        Self {
            hard,
            soft,
            mapped: AtomicUsize::new(0),
            next: AtomicUsize::new(soft),
            due: AtomicBool::new(false),
            board,
        }
    }

    /// Whether there is one of the limits.
    pub fn is_set(&self) -> bool {
        self.hard.min(self.soft) != usize::MAX
    }

    /// The bytes that are mapped now.
    pub fn mapped(&self) -> usize {
        self.mapped.load(Ordering::Relaxed)
    }

    /// The bytes that `limit` leaves now.
    pub fn room(&self) -> usize {
        self.hard.saturating_sub(self.mapped())
    }

    /// The bytes that both limits leave now, for memory that nobody needs yet.
    pub fn spare(&self) -> usize {
        self.hard.min(self.soft).saturating_sub(self.mapped())
    }

    /// Whether `limit` may refuse so many bytes, with the metadata for them.
    pub fn is_short_of(&self, bytes: usize) -> bool {
        self.room() < bytes.saturating_add(METADATA) && self.hard != usize::MAX
    }

    /// Counts `bytes` that are about to be mapped; false, and nothing is counted, if `limit` does
    /// not allow them.
    #[must_use]
    pub fn take(&self, bytes: usize) -> bool {
        let more = |mapped: usize| Some(mapped.checked_add(bytes)?).filter(|&sum| sum <= self.hard);
        let Ok(before) = (self.mapped).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        else {
            return false;
        };
        self.show(before + bytes);
        if before + bytes > self.next.load(Ordering::Relaxed) {
            self.cross(before + bytes);
        }
        true
    }

    /// Counts bytes as unmapped that `take` has counted.
    pub fn give(&self, bytes: usize) {
        let mapped = self.mapped.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        self.show(mapped);
        if self.soft != usize::MAX && mapped < self.soft - self.soft / 8 {
            self.next.store(self.soft, Ordering::Relaxed);
        }
    }

    /// Notes that growth went beyond `next`. One of several threads does so.
    #[cold]
    fn cross(&self, mapped: usize) {
        let step = (self.soft / 8).max(SUPER);
        let beyond = |next: usize| (mapped > next).then(|| mapped.saturating_add(step));
        let crossed = (self.next).fetch_update(Ordering::Relaxed, Ordering::Relaxed, beyond);
        if crossed.is_ok() {
            self.note();
        }
    }

    /// Notes that `soft_limit` was reached, or that memory is short on the machine or in the group.
    pub fn note(&self) {
        self.board.soft_limits.fetch_add(1, Ordering::Relaxed);
        self.due.store(true, Ordering::Release);
    }

    /// Whether `soft_limit` was reached and nobody has acted on that yet.
    pub fn is_due(&self) -> bool {
        self.due.load(Ordering::Relaxed)
    }

    /// Takes the note that `soft_limit` was reached; one thread gets it.
    pub fn take_due(&self) -> bool {
        self.due.swap(false, Ordering::Acquire)
    }

    /// Counts an allocation that got nothing, if `limit` is the reason.
    pub fn count_null(&self, bytes: usize) {
        if self.is_short_of(bytes.max(SUPER)) {
            self.board.limit_refusals.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Shows the bytes again on a board that was copied while others wrote to it.
    pub fn show_again(&self) {
        self.show(self.mapped());
    }

    /// Shows the bytes. Of two threads the later one may show the earlier number.
    fn show(&self, mapped: usize) {
        self.board.charged.store(mapped as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Limit, METADATA};
    use crate::geometry::SUPER;
    use crate::stats::board::Header;
    use core::sync::atomic::Ordering;
    use std::boxed::Box;
    use std::thread;
    use std::vec::Vec;

    const MIB: usize = 1 << 20;

    fn limit(hard: usize, soft: usize) -> &'static Limit {
        let board: &'static Header = Header::leaked();
        Box::leak(Box::new(Limit::new(hard, soft, board)))
    }

    #[test]
    fn what_is_beyond_the_limit_is_refused() {
        let limit = limit(10 * MIB, 0);
        assert!(limit.is_set() && limit.take(8 * MIB));
        assert!(!limit.take(2 * MIB + 1) && !limit.take(usize::MAX));
        assert_eq!((limit.mapped(), limit.room()), (8 * MIB, 2 * MIB));
        assert!(limit.take(2 * MIB) && !limit.take(1));
        limit.give(4 * MIB);
        assert!(limit.take(3 * MIB));
        assert_eq!(limit.mapped(), 9 * MIB);
        assert!(!limit.is_due());
    }

    #[test]
    fn without_limits_everything_is_counted_and_nothing_refused() {
        let limit = limit(0, 0);
        assert!(!limit.is_set() && limit.take(1 << 40) && !limit.is_short_of(1 << 40));
        limit.give(1 << 40);
        assert_eq!((limit.mapped(), limit.is_due()), (0, false));
    }

    #[test]
    fn threads_that_race_stay_below_the_limit() {
        let limit = limit(100, 0);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                thread::spawn(|| {
                    let mut got = 0;
                    for _ in 0..20_000 {
                        got += usize::from(limit.take(7));
                        assert!(limit.mapped() <= 100);
                        if got > 1 {
                            limit.give(7);
                            got -= 1;
                        }
                    }
                    got * 7
                })
            })
            .collect();
        let held: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
        assert_eq!(limit.mapped(), held);
    }

    #[test]
    fn the_soft_limit_is_noted_once_a_crossing() {
        let limit = limit(0, 80 * MIB);
        let crossed = |bytes: usize| {
            assert!(limit.take(bytes));
            limit.take_due()
        };
        assert!(!crossed(80 * MIB), "at it, and not beyond");
        assert!(crossed(2 * MIB) && !crossed(2 * MIB));
        assert!(!crossed(8 * MIB), "92 of 92");
        assert!(crossed(MIB), "an eighth more was mapped");
        limit.give(21 * MIB);
        assert!(!crossed(10 * MIB), "it had not fallen by an eighth below");
        limit.give(20 * MIB);
        assert!(!crossed(18 * MIB), "80 of 80");
        assert!(crossed(1), "beyond it once more");
        assert_eq!(limit.board.soft_limits.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn allocations_are_counted_that_got_nothing_for_the_limit() {
        let limit = limit(100 * MIB, 0);
        let counted = |bytes| {
            limit.count_null(bytes);
            limit.board.limit_refusals.load(Ordering::Relaxed)
        };
        assert!(limit.take(100 * MIB - SUPER - METADATA));
        assert_eq!(counted(100), 0, "there is room for a SuperSlab");
        assert_eq!(counted(SUPER + 1), 1);
        assert!(limit.take(1));
        assert_eq!(counted(100), 2);
    }
}
