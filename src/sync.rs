//! Atomics and locks, under one name for the product and for loom.
//!
//! The lock-free protocols (`pool::metadata::ownership`, `pool::supers::slot_word`,
//! `pool::supers::avail`, `pool::supers::extents`, `pool::spans::stash`, `pool::spans::inbox`,
//! `pool::pages::claims`, `pool::pages::shelf`, `stats`) use only what this module exports, so that
//! the models in `tests/loom` run the product's own source. There every access can be weakened by
//! the line that it stands in, and a test shows for each protocol that its model fails then.

cfg_if::cfg_if! {
    if #[cfg(loom)] {
        mod weak;

        pub use weak::{AtomicIsize, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Weakening, fence, weaken};
        pub use core::sync::atomic::Ordering;
    } else {
        mod owner_word;

        use core::sync::atomic::AtomicBool;
        pub use owner_word::OwnerWord;
        pub use core::sync::atomic::{AtomicIsize, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
    }
}
