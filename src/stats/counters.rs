//! Counters. A heap counts where batches of blocks move, never on the fast path, and its own thread
//! alone does so: by a relaxed load and store, not by a read-modify-write. A reader sums over the
//! heaps; its sum may be behind by what is under way.

use super::figures::Metric;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the one writer calls this.
    #[inline]
    pub fn add(&self, n: u64) {
        if cfg!(feature = "stats") {
            self.0
                .store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        }
    }

    /// Takes `n` away. Only the one writer calls this.
    #[inline]
    pub fn sub(&self, n: u64) {
        if cfg!(feature = "stats") {
            let now = self.0.load(Ordering::Relaxed);
            self.0.store(now.wrapping_sub(n), Ordering::Relaxed);
        }
    }

    /// Replaces the number. Only the one writer calls this.
    #[inline]
    pub fn set(&self, n: u64) {
        if cfg!(feature = "stats") {
            self.0.store(n, Ordering::Relaxed);
        }
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A level below 2^32 that one thread writes and any thread reads.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Level(AtomicU32);

impl Level {
    /// Replaces the number. Only the one writer calls this.
    #[inline]
    pub fn set(&self, n: u64) {
        if cfg!(feature = "stats") {
            self.0.store(n as u32, Ordering::Relaxed);
        }
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed).into()
    }
}

/// The kind of a counter: that of its row, or one that only rises.
macro_rules! metric {
    () => {
        Metric::Counter
    };
    ($metric:ident) => {
        Metric::$metric
    };
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident $(: $metric:ident)?,)+) => {
        /// The counters of one heap.
        #[derive(Debug, Default)]
        #[repr(C)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: Count,)+ }

        /// The counters of all heaps together; zero without the feature `stats`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Totals { $($(#[doc = $doc])+ pub $name: u64,)+ }

        /// Name and meaning of every counter.
        pub const COUNTERS: &[(&str, &str)] =
            &[$((stringify!($name), concat!($($doc),+).trim_ascii()),)+];

        /// Whether each of [`COUNTERS`] also falls.
        pub(super) const METRICS: &[Metric] = &[$(metric!($($metric)?),)+];

        impl Totals {
            /// Adds one heap's counters. What another process publishes may be anything, so nothing
            /// here overflows.
            pub(crate) fn add(&mut self, counters: &Counters) {
                $(self.$name = self.$name.wrapping_add(counters.$name.get());)+
            }

            /// Every counter with its name.
            pub fn list(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Batches of blocks that magazines and lists took from spans.
    refills,
    /// Blocks in the batches of `refills`.
    refilled_blocks,
    /// Batches of blocks that magazines and lists returned to spans.
    drains,
    /// Blocks in the batches of `drains`.
    drained_blocks,
    /// Times that half of a full FastCache moved to its list or, where that is full, to spans.
    spills,
    /// Size classes that a heap switched to the other front.
    classes_switched,
    /// Times that the learner enlarged a magazine.
    magazines_grown,
    /// Times that a magazine was made smaller again: what it had learned was no longer needed, or
    /// other classes of the thread needed its bytes.
    magazines_shrunk,
    /// Words of remote bits that threads set in spans of another heap; a word has 64 blocks.
    remote_words,
    /// Spans taken from the partial spans of the same heap.
    stage_own,
    /// Spans taken from a stash of the CPU that the thread runs on.
    stage_stash,
    /// Spans taken from the partial list of the node or from a stash of another CPU.
    stage_partial,
    /// Spans made of slots that were in use before (EMPTY).
    stage_empty,
    /// Spans made of slots not used since they were mapped or purged (FRESH), whose first touch
    /// takes page faults.
    stage_fresh,
    /// Spans made of FRESH slots whose pages were there already: hugetlb, warmed up, or prefaulted.
    stage_prepared,
    /// Spans for which the heap had to grow.
    stage_grow,
    /// Spans taken from another node than the heap's.
    stage_remote,
    /// Times that a heap followed its thread to another node.
    node_moves,
    /// Spans whose slots went back to the pool.
    spans_released,
    /// Spans with free blocks that were taken from heaps whose threads rested.
    spans_reclaimed,
    /// Wholly free spans that heaps keep now, because they needed such spans again soon after they
    /// gave them back.
    spans_kept: Gauge,
    /// Full spans that their heap left without an owner.
    spans_disowned,
    /// Full spans without an owner that their last heap took back.
    spans_retaken,
    /// Runs (blocks larger than the largest size class) allocated.
    runs_allocated,
    /// Runs freed.
    runs_freed,
    /// Bytes of runs that realloc enlarged in place or moved without copying.
    run_bytes_kept,
}
