//! How often threads waited for a lock of a rank, and how long: for the feature `lock-stats`. Process-wide, counted
//! only by those who have to wait.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::futex::Rank;
use super::process::now;

/// What waiting for the locks of a rank has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contention {
    /// Times that the lock was not free at once.
    pub waits: u64,
    /// Nanoseconds until it was taken, or until the thread gave up and went elsewhere.
    pub wait_ns: u64,
}

const RANKS: usize = 64;

static WAITS: [AtomicU64; RANKS] = [const { AtomicU64::new(0) }; RANKS];
static WAIT_NS: [AtomicU64; RANKS] = [const { AtomicU64::new(0) }; RANKS];

/// The figures of a rank since the start.
pub fn contention(rank: Rank) -> Contention {
    let rank = usize::from(rank.0);
    Contention {
        waits: WAITS[rank].load(Relaxed),
        wait_ns: WAIT_NS[rank].load(Relaxed),
    }
}

/// Waits as `wait` does, and counts it.
#[cold]
pub(super) fn counted<T>(rank: Rank, wait: impl FnOnce() -> T) -> T {
    let begun = now();
    let answer = wait();
    let rank = usize::from(rank.0);
    WAITS[rank].fetch_add(1, Relaxed);
    WAIT_NS[rank].fetch_add(now().saturating_sub(begun), Relaxed);
    answer
}
