//! Spare SuperSlabs: those of a node's last step of growth that nobody uses yet.
//!
//! A step maps several SuperSlabs at once, as that takes as few calls as for one, and calls that
//! change mappings make others wait. But a thread that serves must not wait until all of them are
//! populated. So the step uses its first SuperSlab, and the others are spare: mapped, without
//! pages, and claimed (their bytes in `claims` are PREPARING). They count against the limits. A
//! spare SuperSlab belongs to whoever takes it out of here, with its claim.
//!
//! The word has all that there is to know, so that each change is one compare-exchange: threads
//! that grow, the warmer, and a purge take from it without a lock.

use crate::geometry::NodeSuper;
use crate::sync::{AtomicU64, Ordering};

/// Adjacent SuperSlabs that are mapped on the same pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The first one.
    pub first: NodeSuper,
    /// Their number.
    pub count: usize,
    /// The number of their `PageMode`.
    pub mode: u8,
}

/// The spare SuperSlabs of a node.
#[derive(Debug)]
pub struct Spare(AtomicU64);

/// The most SuperSlabs that can be spare.
pub const MOST: usize = (1 << 24) - 1;

impl Mapped {
    /// Without SuperSlabs it is 0, whatever the rest.
    fn word(self) -> u64 {
        if self.count == 0 {
            return 0;
        }
        u64::from(self.first.0) << 32 | (self.count as u64) << 8 | u64::from(self.mode)
    }

    fn of(word: u64) -> Option<Self> {
        (word != 0).then_some(Self {
            first: NodeSuper((word >> 32) as u32),
            count: (word >> 8) as usize & MOST,
            mode: word as u8,
        })
    }
}

impl Spare {
    /// None are spare.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The spare SuperSlabs now.
    pub fn get(&self) -> Option<Mapped> {
        Mapped::of(self.0.load(Ordering::Relaxed))
    }

    /// The number of spare SuperSlabs now.
    pub fn count(&self) -> usize {
        self.get().map_or(0, |mapped| mapped.count)
    }

    /// Makes SuperSlabs spare, at most [`MOST`], which the caller has claimed and mapped. False if
    /// others are; then they stay the caller's.
    #[must_use]
    pub fn put(&self, mapped: Mapped) -> bool {
        debug_assert!(mapped.count <= MOST);
        (self.0)
            .compare_exchange(0, mapped.word(), Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes the first spare SuperSlab.
    pub fn take(&self) -> Option<Mapped> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let all = Mapped::of(word)?;
            let rest = Mapped {
                first: all.first.add(1),
                count: all.count - 1,
                ..all
            };
            match (self.0).compare_exchange(word, rest.word(), Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Some(Mapped { count: 1, ..all }),
                Err(now) => word = now,
            }
        }
    }

    /// Takes all spare SuperSlabs.
    pub fn take_all(&self) -> Option<Mapped> {
        Mapped::of(self.0.swap(0, Ordering::Acquire))
    }
}
