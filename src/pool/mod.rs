//! The pool: the address range, its SuperSlabs and slots, and the spans that belong to no heap.
//!
//! ```text
//! node: CPU stashes (lock-free) -> partial lists (a lock a class) -> SP-SLOT words -> growth (a lock)
//! ```
//!
//! `superslab`, `avail`, `stash`, `queue` and `claims` are the protocols, free of pointers and of the operating system;
//! `arena` lays out the range and its metadata, `board` the part of it that has the numbers; `node` finds slots and
//! grows; `runs` serves what is larger than a class; `partial` keeps the spans in between owners; `purge` gives memory
//! back; `warmer` does both ahead of time.

pub mod avail;
pub mod claims;
pub mod queue;
pub mod stash;
pub mod superslab;

cfg_if::cfg_if! {
    if #[cfg(not(loom))] {
        mod affinity;
        mod arena;
        mod board;
        mod budget;
        mod decay;
        #[cfg(any(test, debug_assertions))]
        mod check;
        pub mod describe;
        mod fork;
        mod grow;
        mod heaps;
        #[cfg(feature = "hardened")]
        mod lives;
        mod meta;
        mod node;
        mod partial;
        mod purge;
        mod runs;
        mod warmer;

        pub use arena::Arena;
        pub use budget::Budget;
        #[cfg(feature = "hardened")]
        pub use lives::Place;
        #[cfg(any(test, debug_assertions))]
        pub use check::{Invalid, ensure};
        pub use node::SlotRun;
    }
}

pub use superslab::SLOTS;

/// Bytes of a slot.
pub const SLOT: usize = 64 << 10;
/// Bytes of a SuperSlab.
pub const SUPER: usize = SLOT * SLOTS;

/// What threads have waited for: each kind of lock with its name.
#[cfg(feature = "lock-stats")]
pub fn lock_stats() -> [(&'static str, theap_platform::Contention); 3] {
    [
        ("heaps", arena::RANK_HEAPS),
        ("partial", node::RANK_PARTIAL),
        ("growth", node::RANK_GROWTH),
    ]
    .map(|(name, rank)| (name, theap_platform::contention(theap_platform::Rank(rank))))
}

/// A span, by the number of its first slot in the address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub u32);

impl SpanId {
    /// The SuperSlab and the slot in it.
    #[inline]
    pub fn split(self) -> (usize, usize) {
        (self.0 as usize / SLOTS, self.0 as usize % SLOTS)
    }
}

/// What the class byte of a slot says, and at once the index of the magazine that takes its blocks.
pub mod kind {
    /// Not in use. The magazine of this index holds nothing and takes nothing.
    pub const FREE: u8 = 0;
    /// Class 0; class `c` is `FIRST + c`.
    pub const FIRST: u8 = 1;
    /// A run of slots.
    pub const LARGE: u8 = FIRST + crate::classes::CLASS_COUNT as u8;
    /// A run of more slots than a SuperSlab has, or aligned to more than one slot's place in it.
    pub const HUGE: u8 = LARGE + 1;
    /// Number of values.
    pub const COUNT: usize = HUGE as usize + 1;
}

/// Where a span came from; stage 0 is the heap's own partial spans. Each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// A stash of this CPU.
    Stash = 1,
    /// The node's partial list, or another CPU's stash.
    Partial = 2,
    /// An EMPTY slot.
    Empty = 3,
    /// FRESH slots (or FRESH and EMPTY ones, for a span of several).
    Fresh = 4,
    /// As `Fresh`, of a SuperSlab whose pages were there already.
    Prepared = 5,
    /// A new SuperSlab.
    Grow = 6,
    /// Another node.
    Remote = 7,
}
