//! Counters. They are counted where batches move, never on the fast path, each by its heap's thread alone: a relaxed
//! load and store, no read-modify-write. Reading sums over the heaps and may be behind by what is under way.

use crate::sync::{AtomicU64, Ordering};

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds, by the one writer.
    #[inline]
    pub fn add(&self, n: u64) {
        if cfg!(feature = "stats") {
            self.0
                .store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        }
    }

    /// Replaces the number, by the one writer.
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

/// Whether what this name counts also falls: the others of [`COUNTERS`] only rise.
pub fn is_gauge(name: &str) -> bool {
    name == "spans_kept"
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters of one heap.
        #[derive(Debug, Default)]
        #[repr(C)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: Count,)+ }

        /// The counters of all heaps together; zero without the feature `stats`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Totals { $($(#[doc = $doc])+ pub $name: u64,)+ }

        /// Name and meaning of every counter.
        pub const COUNTERS: &[(&str, &str)] = &[$((stringify!($name), concat!($($doc),+)),)+];

        impl Totals {
            /// Adds one heap's counters. What another process publishes may be anything, so nothing here overflows.
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
    /// Batches of blocks taken from spans.
    refills,
    /// Blocks in these batches.
    refilled_blocks,
    /// Batches of blocks returned to spans.
    drains,
    /// Blocks in these batches.
    drained_blocks,
    /// Halves of a FastCache moved to its list or, where that is full, to spans.
    spills,
    /// Classes switched to the other front, once a heap.
    classes_switched,
    /// Times that the learner enlarged a magazine.
    magazines_grown,
    /// Times that it made one smaller again.
    magazines_shrunk,
    /// Words of remote bits set for spans of another owner.
    remote_words,
    /// Spans taken from the heap's own partial spans.
    stage_own,
    /// Spans taken from a stash of this CPU.
    stage_stash,
    /// Spans taken from the node's partial list or another CPU's stash.
    stage_partial,
    /// Spans made of EMPTY slots.
    stage_empty,
    /// Spans made of FRESH slots that nobody touched since they were mapped or purged: they take page faults.
    stage_fresh,
    /// Spans made of FRESH slots whose pages were there already: hugetlb, warmed up, or prefaulted.
    stage_prepared,
    /// Spans for which the heap grew.
    stage_grow,
    /// Spans of another node.
    stage_remote,
    /// Times a heap followed its thread to another node.
    node_moves,
    /// Spans whose slots were given back.
    spans_released,
    /// Spans that heaps have learned to keep now, of a class that runs empty and full again.
    spans_kept,
    /// Full spans left to nobody.
    spans_disowned,
    /// Full spans taken back by their last owner.
    spans_retaken,
    /// Large and huge runs allocated.
    runs_allocated,
    /// Large and huge runs freed.
    runs_freed,
    /// Bytes of runs that were enlarged in place or moved without copying.
    run_bytes_kept,
}
