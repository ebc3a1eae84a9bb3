//! The pool: the address range, its SuperSlabs and slots, and the spans that belong to no heap.
//!
//! ```text
//! node: CPU stashes (lock-free) -> partial lists (a lock a class) -> SP-SLOT words -> growth
//! ```
//!
//! Each room has state of its own, which only its own files touch, and calls only rooms that stand
//! above it here:
//!
//! | room | its state |
//! |---|---|
//! | `policy` | options, and the switches of a running process |
//! | `figures` | the board, and the pool's ring of events |
//! | `addresses` | the range, its parts, the tables of its slots; the decode of an address |
//! | `affinity` | CPUs, NUMA nodes and bindings |
//! | `metadata` | the metadata of SuperSlabs and spans; the protocol of a span's owner |
//! | `ground` | the five above, which all nodes share |
//! | `supers` | a node's SP-SLOT words, the hints where room is, and what stays warm |
//! | `pages` | a node's page modes, its growth, prefaulting, purges and forks |
//! | `spans` | stashes and lists of partial spans |
//! | `heap_lock`, `scan` | the lock on a heap; how one is looked through |
//! | `heaps` | the memory of heaps, and an entry for each |
//! | `reclaim` | how far the search for idle memory in heaps has come |
//! | `warmer` | the thread that prepares and gives back memory |
//! | `node` | the parts of a node, put together |
//! | `runs` | large and huge blocks |
//! | `layout`, `arena` | where all of it lies, and all of it put together |
//! | `global` | the process's arena |
//! | `describe`, `validity` | reports about the whole |
//!
//! `heap_lock`, `supers::slot_word`, `supers::avail`, `supers::extents`, `spans::stash`,
//! `spans::stashed`, `spans::inbox`, `spans::queue`, `metadata::ownership`, `pages::claims`,
//! `pages::shelf` and `pages::spare` are the protocols, free of pointers and of the operating
//! system.

pub mod heap_lock;
pub mod metadata;
pub mod pages;
pub mod spans;
pub mod supers;

cfg_if::cfg_if! {
    if #[cfg(not(loom))] {
        mod addresses;
        mod affinity;
        mod arena;
        pub mod describe;
        #[cfg(test)]
        pub mod faked;
        mod figures;
        pub mod global;
        mod ground;
        mod heaps;
        mod layout;
        mod node;
        mod policy;
        mod reclaim;
        mod runs;
        mod scan;
        #[cfg(any(test, debug_assertions))]
        mod validity;
        #[cfg(feature = "lock-stats")]
        mod waits;
        mod warmer;

        pub use addresses::{Location, RunPart, SlotRun, SpanPart};
        pub use arena::Arena;
        pub use heaps::HeapBytes;
        #[cfg(all(feature = "hardened", not(feature = "valgrind")))]
        pub use metadata::BlockId;
        pub use node::Node;
        pub use policy::Budget;
        pub use scan::{Look, Scan};
        #[cfg(feature = "lock-stats")]
        pub use waits::lock_stats;
        #[cfg(any(test, debug_assertions))]
        pub use validity::{Invalid, ensure};
    }
}
