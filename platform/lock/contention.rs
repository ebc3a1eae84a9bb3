//! The number of times that threads waited for a lock of a rank, and the time: for the feature
//! `lock-stats`. The figures are the process's; only a thread that has to wait counts.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::Rank;
use crate::system::process::now;

/// The number of times and the time that threads have waited for the locks of a rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contention {
    /// Times that the lock was not free at once.
    pub waits: u64,
    /// Nanoseconds until the thread had the lock, or gave up and went elsewhere.
    pub wait_ns: u64,
}

const RANKS: usize = Rank::ALL.len();

static WAITS: [AtomicU64; RANKS] = [const { AtomicU64::new(0) }; RANKS];
static WAIT_NS: [AtomicU64; RANKS] = [const { AtomicU64::new(0) }; RANKS];

/// The figures of a rank since the start of the process.
pub fn contention(rank: Rank) -> Contention {
    Contention {
        waits: WAITS[rank as usize].load(Relaxed),
        wait_ns: WAIT_NS[rank as usize].load(Relaxed),
    }
}

/// Calls `wait`, which waits for a lock of the rank, and counts the time.
#[cold]
pub(super) fn counted<T>(rank: Rank, wait: impl FnOnce() -> T) -> T {
    let begun = now();
    let answer = wait();
    WAITS[rank as usize].fetch_add(1, Relaxed);
    WAIT_NS[rank as usize].fetch_add(now().saturating_sub(begun), Relaxed);
    answer
}
