//! The real system. Every module here is private behind [`crate::Os`] or re-exported by `lib.rs`.

pub mod affinity;
mod call;
pub mod cgroup;
pub mod crash;
pub mod demote;
pub mod file;
pub mod fork;
pub mod futex;
pub mod huge;
pub mod hugetlb;
pub mod library;
pub mod map;
pub mod mould;
pub mod numa;
pub mod pressure;
pub mod process;
pub mod share;
pub mod smaps;
pub mod stack;
pub mod stderr;
pub mod thread_exit;
pub mod worker;
