//! The number of times that threads waited for the locks of the pool, and the time, for the feature
//! `lock-stats`.

use theap_platform::{Contention, Rank, contention};

/// Each kind of lock with its name, and the waits of threads for it.
pub fn lock_stats() -> [(&'static str, Contention); 3] {
    [Rank::Heaps, Rank::Partial, Rank::Growth].map(|rank| (rank.name(), contention(rank)))
}
