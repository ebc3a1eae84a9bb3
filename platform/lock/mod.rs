//! Locks on a futex, and the order in which a thread may take them.

#[cfg(feature = "lock-stats")]
pub mod contention;
mod mutex;
mod rank;

pub use mutex::{Guard, Mutex, RawMutex, spin_only};
pub use rank::Rank;
