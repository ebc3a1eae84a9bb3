//! theap: a memory allocator on 2 MiB hugepages for latency-sensitive services on Linux x86_64.
//!
//! [`Theap`] is a `#[global_allocator]`; [`warm_up`], [`warm_up_class`], [`collect`], [`purge`] and [`stats`] act on its heap.
//!
//! ```text
//! api -> front (magazines) -> heap (spans of a thread, remote frees) -> pool (SuperSlabs, slots, growth)
//! ```
//!
//! A layer calls only those to its right; `theap-arch` has what is tuned for the machine, `theap-platform` what is
//! asked of the operating system. `docs/design.md` tells why.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(loom, allow(dead_code, reason = "the models use the protocols alone"))]
#![cfg_attr(
    any(
        feature = "hardened",
        feature = "valgrind",
        not(all(feature = "theap", feature = "shared-pool", feature = "drain"))
    ),
    allow(
        dead_code,
        reason = "a layer that is left out, or covered, leaves what only it used"
    )
)]
#![allow(unsafe_code)] // An allocator: every file but `config`, `classes`, `stats` and the protocols needs it.

mod classes;

cfg_if::cfg_if! {
    if #[cfg(loom)] {
        // The protocols alone, for the models of tests/loom.
        pub mod heap;
        pub mod pool;
        pub mod stats;
        pub mod sync;
    } else {
        mod heap;
        mod pool;
        mod sync;
    }
}

cfg_if::cfg_if! {
    if #[cfg(not(loom))] {
        mod api;
        mod config;
        mod crash;
        mod fatal;
        mod front;
        mod gate;
        mod placement;
        mod stats;

        pub use api::{
            Theap, class_size, collect, gates, owns, placement, purge, raw, seal, set_classes, set_front, set_learning, stats, unseal,
            usable_size, warm_up, warm_up_class,
        };
        pub use crash::report_crashes;
        pub use config::{Config, Numa, OPTIONS, OptionRow, Pages, Prefault};
        pub use gate::{Classes, Front};
        pub use placement::{NodePlacement, Placement};
        pub use stats::board::{Board, EventReader, Unreadable};
        pub use stats::events::{Event, EventKind};
        pub use stats::{COUNTERS, ClassStats, List, NodeStats, Stats, Totals};
        pub use theap_platform::Error;
        #[cfg(feature = "lock-stats")]
        pub use {api::lock_stats, theap_platform::Contention};
        #[cfg(any(test, debug_assertions))]
        pub use {api::is_valid, pool::Invalid};
    }
}
