//! theap: a memory allocator on 2 MiB hugepages for latency-sensitive services on Linux x86_64.
//!
//! [`Theap`] is a `#[global_allocator]`; [`warm_up`], [`warm_up_class`], [`collect`], [`purge`] and
//! [`stats`] act on its heap.
//!
//! ```text
//! api -> process -> front (magazines) -> heap (a thread's spans) -> pool (SuperSlabs, slots)
//! ```
//!
//! A layer calls only those to its right; `theap-arch` has what is tuned for the machine,
//! `theap-platform` what is asked of the operating system. `docs/design.md` tells why.
#![cfg_attr(not(test), no_std)]

cfg_if::cfg_if! {
    if #[cfg(loom)] {
        // The protocols alone, for the models of tests/loom.
        #[allow(dead_code, reason = "the models use the protocols alone")]
        mod classes;
        #[allow(dead_code, reason = "the models use the protocols alone")]
        pub mod geometry;
        #[allow(dead_code, reason = "the models use the protocols alone")]
        pub mod pool;
        #[allow(dead_code, reason = "the models use the protocols alone")]
        pub mod stats;
        pub mod sync;
    } else {
        mod api;
        mod choices;
        mod classes;
        mod config;
        mod contract;
        mod crash;
        mod front;
        mod gate;
        mod geometry;
        mod heap;
        mod hot;
        mod messages;
        mod placement;
        mod pool;
        mod process;
        mod residence;
        mod stats;
        mod sync;

        pub use api::{
            Theap, class_size, collect, gates, heaps, on_soft_limit, owns, placement, purge, raw, resident, seal, serve_soft_limit, set_classes, set_front, set_learning, stats, unseal,
            usable_size, warm_up, warm_up_class,
        };
        #[doc(hidden)]
        pub use front::HEAD_FIELDS;
        pub use crash::report_crashes;
        pub use config::{Calls, Config, Foreign, Numa, OPTIONS, OptionRow, Pages, Prefault};
        pub use contract::{Breach, Contract};
        pub use gate::{Classes, Front};
        pub use hot::{Hot, excused, hot};
        pub use placement::{NodePlacement, Placement};
        pub use stats::board::{Board, EventReader, Unreadable};
        pub use stats::events::{Event, EventKind};
        pub use stats::{COUNTERS, ClassStats, HeapStats, List, NodeStats, Resident, Shown, Stats, ThreadName, Totals};
        pub use theap_platform::{Error, Mapping};
        #[cfg(feature = "lock-stats")]
        pub use {api::lock_stats, theap_platform::Contention};
        #[cfg(any(test, debug_assertions))]
        pub use {api::is_valid, pool::Invalid};
    }
}
