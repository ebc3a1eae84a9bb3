//! The real system. Every module here is private behind [`crate::Os`] or re-exported by `lib.rs`.

pub mod cgroup;
#[cfg(feature = "lock-stats")]
pub mod contention;
pub mod cpus;
pub mod crash;
pub mod demote;
mod file;
pub mod fork;
pub mod futex;
pub mod line;
pub mod map;
pub mod numa;
pub mod process;
pub mod share;
pub mod thread_exit;
pub mod topology;
pub mod worker;
