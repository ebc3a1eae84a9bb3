//! The bytes that all threads together may keep beyond what the options fix, because their
//! workloads turned out to need it: the option `budget`, in bytes. A claim leaves as much as it
//! takes, so that the first thread does not get everything: one that holds `mine` may hold up to
//! half of what the others leave.

use core::sync::atomic::{AtomicUsize, Ordering};

/// The bytes that magazines and kept spans have claimed. Threads ask only where a capacity changes.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    spent: AtomicUsize,
}

impl Budget {
    /// A budget of which nothing is claimed yet.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            spent: AtomicUsize::new(0),
        }
    }

    /// Lowers the limit to at most `limit` bytes from now on; claims stay as they are.
    pub fn at_most(&self, limit: usize) {
        self.limit.fetch_min(limit, Ordering::Relaxed);
    }

    /// Claims `bytes` more for the thread that holds `mine` bytes. Returns false if that is too
    /// much.
    #[must_use]
    pub fn claim(&self, mine: usize, bytes: usize) -> bool {
        let claimed = |spent: usize| {
            let limit = self.limit.load(Ordering::Relaxed);
            let left = limit.saturating_sub(spent.saturating_sub(mine));
            (mine + bytes <= left / 2).then_some(spent + bytes)
        };
        self.spent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, claimed)
            .is_ok()
    }

    /// Gives claimed bytes back.
    pub fn give_back(&self, bytes: usize) {
        // Most threads that end have claimed nothing: they leave the line to others.
        if bytes > 0 {
            self.spent.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Restarts the count in a forked child: only the `mine` bytes that its one thread has claimed
    /// count.
    pub fn restart(&self, mine: usize) {
        self.spent.store(mine, Ordering::Relaxed);
    }

    /// The bytes that are claimed now.
    #[cfg(test)]
    pub fn spent(&self) -> usize {
        self.spent.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn each_gets_half_of_what_others_leave() {
        let budget = Budget::new(1024);
        assert!(!budget.claim(0, 513));
        assert!(budget.claim(0, 512));
        assert!(!budget.claim(512, 1), "a thread has its half");
        assert!(!budget.claim(0, 257));
        assert!(budget.claim(0, 256));
        budget.give_back(512);
        assert!(budget.claim(256, 256));
        assert_eq!(budget.spent(), 512);
        budget.at_most(600);
        assert!(!budget.claim(512, 1) && !budget.claim(0, 45));
        assert!(budget.claim(0, 44));
    }
}
