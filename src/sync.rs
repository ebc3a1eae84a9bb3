//! Atomics and locks, under one name for the product and for loom.
//!
//! The lock-free protocols (`heap::ownership`, `pool::superslab`, `pool::avail`, `pool::stash`,
//! `pool::queue`, `pool::claims`, `stats`) use only what this module exports, so that the models in
//! `tests/loom` run the product's own source. There every access can be weakened by the line that
//! it stands in: that a model can fail is shown for each protocol.

cfg_if::cfg_if! {
    if #[cfg(loom)] {
        mod weak;

        pub use weak::{AtomicIsize, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Weakening, fence, weaken};
        pub use core::sync::atomic::Ordering;
    } else {
        pub use core::sync::atomic::{AtomicIsize, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
    }
}
