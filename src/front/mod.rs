//! The front: what malloc and free do in most cases, without a lock, an atomic operation or a look
//! at a span.
//!
//! ```text
//! thread's slot -> ThreadCache { Head { magazines, home part }, Heap, .. } | arrays of pointers
//! ```
//!
//! | file | what it has |
//! |---|---|
//! | `hit`, `plain` | malloc and free when they hit |
//! | `refill`, `free` | malloc and free when they miss |
//! | `runs`, `zeroed`, `resize` | runs, zeroed blocks, changes of size |
//! | `head`, `cache`, `handle`, `life` | a thread's cache: layout, borrowing it, birth and end |
//! | `magazines`, `drain`, `learner` | THEAP: large arrays of pointers, whole batches |
//! | `allowance` | what all magazines of a thread may hold together |
//! | `classic`, `list_drain` | the classic front: a FastCache before a linked list |
//! | `foreign` | blocks that are another allocator's |
//! | `follow`, `warm` | a thread on another node; memory ahead of need |
//! | `limits` | the heap's limits, at the end of slow paths |
//! | `promise` | what hot threads have promised |
//! | `hardened`, `quarantine`, `shuffle` | the feature `hardened` |
//! | `valgrind`, `kept` | the feature `valgrind` |
//! | `no_…` | the twins of what a build leaves out: they do nothing, or what is left to do |
//! | `sizes`, `report`, `validity` | questions about blocks, and about the caches as a whole |
//!
//! What is behind a class's array is either front's: a magazine, which is large, with whole batches
//! between it and the spans; or a FastCache, which is small, before a linked list. The arena's
//! [`crate::gate::Gate`] says which; nothing on the hit paths knows, so each front pays for itself
//! alone.
//!
//! Nothing here knows who calls: what is to be done when the arena comes to be is a function in the
//! caller's [`Setup`].

mod cache;
mod classic;
mod follow;
mod foreign;
mod free;
mod handle;
mod head;
mod hit;
mod life;
mod limits;
pub mod promise;
mod refill;
mod report;
mod runs;
mod setup;
mod sizes;
#[cfg(any(test, debug_assertions))]
mod validity;
mod warm;

cfg_if::cfg_if! {
    if #[cfg(feature = "magazines")] {
        mod allowance;
        mod magazines;
        mod nursery;
    } else {
        mod no_magazines;
        mod no_nursery;
        use no_nursery as nursery;
        use no_magazines as magazines;
    }
}

cfg_if::cfg_if! {
    if #[cfg(feature = "drain")] {
        mod list_drain;
    } else {
        mod no_list_drain;
    }
}

cfg_if::cfg_if! {
    if #[cfg(all(feature = "magazines", feature = "drain"))] {
        mod drain;
        mod learner;
    } else if #[cfg(feature = "magazines")] {
        mod no_drain;
        mod no_learner;
        use no_learner as learner;
    }
}

cfg_if::cfg_if! {
    if #[cfg(feature = "hardened")] {
        mod shuffle;
    } else {
        mod no_shuffle;
    }
}

cfg_if::cfg_if! {
    if #[cfg(feature = "valgrind")] {
        mod kept;
        mod no_quarantine;
        mod valgrind;
        use no_quarantine as quarantine;
        use valgrind as entries;
    } else if #[cfg(feature = "hardened")] {
        mod hardened;
        mod no_kept;
        mod quarantine;
        mod resize;
        use hardened as entries;
        use no_kept as kept;
    } else {
        mod no_kept;
        mod no_quarantine;
        mod plain;
        mod resize;
        mod zeroed;
        use no_kept as kept;
        use no_quarantine as quarantine;
        use plain as entries;
    }
}

#[cfg(feature = "allocator-api2")]
pub use entries::stay;
pub use entries::{
    TAIL, alloc, alloc_aligned, alloc_cached, alloc_zeroed, free, free_sized, resize, usable_size,
};
pub use foreign::{Elsewhere, resize_foreign, stands_in, usable_size_foreign};
pub use free::{collect, discard, end};
pub use head::HEAD_FIELDS;
pub use life::{claimed, note_cached, note_thread};
pub use limits::{forget_others, on_soft_limit, serve as serve_soft_limit};
pub use quarantine::is_held_back;
pub use report::cached_by;
pub use runs::alloc_protectable;
pub use setup::{Setup, arena, start};
#[cfg(any(test, debug_assertions))]
pub use validity::check;
pub use warm::{reserve, warm_up, warm_up_class};

#[cfg(test)]
mod tests;
