//! A ring of the latest records of one writer, for a reader that may be another process.
//!
//! The writer never waits for a reader: it overwrites the oldest record. `head` counts the records
//! written; record `n` lies at place `n % RECORDS`. While `head` is `h` the writer may be writing
//! record `h` over record `h - RECORDS`. So a reader that has copied record `n` keeps it only if
//! `head`, read after the copy, is still below `n + RECORDS`. Two fences make "after" true: a
//! reader that got a word of record `h` sees `head` at `h` or beyond. Records that were overwritten
//! before they were read are counted as lost.
//!
//! A ring of zeros is an empty ring. A reader trusts neither `head` nor the records: any bits are
//! some record.

use crate::sync::{AtomicU64, Ordering, fence};

/// Words of a record.
pub const WORDS: usize = 3;
/// Records of a ring.
pub const RECORDS: usize = if cfg!(loom) { 2 } else { 4096 };

/// The latest records of one writer.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Ring {
    head: AtomicU64,
    /// The writer's own copy of `head`. The writer reads this one, since loom does not see that a
    /// store meets the load of another thread if the storing thread has loaded in between.
    written: AtomicU64,
    records: [[AtomicU64; WORDS]; RECORDS],
}

impl Ring {
    /// An empty ring.
    #[cfg(any(test, loom))]
    pub fn new() -> Self {
        Self {
            head: AtomicU64::new(0),
            written: AtomicU64::new(0),
            records: core::array::from_fn(|_| core::array::from_fn(|_| AtomicU64::new(0))),
        }
    }

    /// The place of record `n`.
    fn record(&self, n: u64) -> &[AtomicU64; WORDS] {
        &self.records[(n % RECORDS as u64) as usize]
    }

    /// Adds a record. Only the one writer calls this.
    pub fn push(&self, record: [u64; WORDS]) {
        let n = self.written.load(Ordering::Relaxed);
        // A reader that sees a word of this record sees `head` at `n` or beyond too.
        fence(Ordering::Release);
        for (place, word) in self.record(n).iter().zip(record) {
            place.store(word, Ordering::Relaxed);
        }
        self.written.store(n.wrapping_add(1), Ordering::Relaxed);
        self.head.store(n.wrapping_add(1), Ordering::Release);
    }

    /// Records written so far.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Gives `each` the records from number `from` on that are still there, and moves `from` behind
    /// the last. Returns the number of records that were lost.
    pub fn read(&self, from: &mut u64, mut each: impl FnMut([u64; WORDS])) -> u64 {
        let head = self.head();
        let behind = head.wrapping_sub(*from);
        // The reader is further behind than is possible, or ahead: the writer lies. Begin anew.
        if behind > u64::MAX / 2 {
            *from = head;
            return 0;
        }
        let mut lost = behind.saturating_sub(RECORDS as u64 - 1);
        *from = from.wrapping_add(lost);
        while *from != head {
            let record = core::array::from_fn(|i| self.record(*from)[i].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if self.head.load(Ordering::Relaxed).wrapping_sub(*from) < RECORDS as u64 {
                each(record);
            } else {
                lost += 1;
            }
            *from = from.wrapping_add(1);
        }
        lost
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_latest_records_are_kept_and_the_others_counted() {
        let ring = Box::new(Ring::new());
        let mut from = 0;
        let mut seen = Vec::new();
        assert_eq!(ring.read(&mut from, |record| seen.push(record[0])), 0);
        (0..10).for_each(|i| ring.push([i; WORDS]));
        assert_eq!(ring.read(&mut from, |record| seen.push(record[0])), 0);
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        seen.clear();
        let more = RECORDS as u64 + 5;
        (0..more).for_each(|i| ring.push([i; WORDS]));
        assert_eq!(ring.read(&mut from, |record| seen.push(record[0])), 6);
        assert_eq!(seen, (6..more).collect::<Vec<_>>());
    }

    #[test]
    fn a_head_that_lies_ends_the_look() {
        let ring = Box::new(Ring::new());
        let mut from = 100;
        assert_eq!(ring.read(&mut from, |_| panic!("nothing was written")), 0);
        assert_eq!(from, 0);
        ring.head.store(1 << 62, Ordering::Relaxed);
        let mut count = 0;
        let lost = ring.read(&mut from, |_| count += 1);
        assert_eq!((lost + count, from), (1 << 62, 1 << 62));
        assert!(count < RECORDS as u64);
    }
}
