//! Atomics and locks, under one name for the product and for loom.
//!
//! The lock-free protocols (`heap::ownership`, `pool::superslab`, `pool::avail`, `pool::stash`, `pool::queue`, `pool::claims`,
//! `stats::ring`) use only what this module exports, so that the models in `tests/loom.rs` run the product's own source.

cfg_if::cfg_if! {
    if #[cfg(loom)] {
        pub use loom::sync::atomic::{AtomicIsize, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence};
        pub use core::sync::atomic::Ordering;
    } else {
        pub use core::sync::atomic::{AtomicIsize, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
    }
}
