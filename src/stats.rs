//! Counters. They are counted where batches move, never on the fast path, each by its heap's thread alone: a relaxed
//! load and store, no read-modify-write. Reading sums over the heaps and may be behind by what is under way.

use crate::sync::{AtomicU64, Ordering};
use theap_platform::PageMode;

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
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

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters of one heap.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: Count,)+ }

        /// The counters of all heaps together; zero without the feature `stats`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Totals { $($(#[doc = $doc])+ pub $name: u64,)+ }

        /// Name and meaning of every counter.
        pub const COUNTERS: &[(&str, &str)] = &[$((stringify!($name), concat!($($doc),+)),)+];

        impl Totals {
            /// Adds one heap's counters.
            pub(crate) fn add(&mut self, counters: &Counters) {
                $(self.$name += counters.$name.get();)+
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
    /// Spans made of FRESH slots.
    stage_fresh,
    /// Spans for which the heap grew.
    stage_grow,
    /// Spans of another node.
    stage_remote,
    /// Spans whose slots were given back.
    spans_released,
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

/// What the allocator holds and has done. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Addresses reserved.
    pub address_space: u64,
    /// Memory mapped on 4 KiB pages (touched or not).
    pub mapped_small: u64,
    /// Memory mapped for transparent hugepages (touched or not).
    pub mapped_thp: u64,
    /// Memory on hugetlb pages of 2 MiB.
    pub mapped_hugetlb: u64,
    /// Memory on hugetlb pages of 1 GiB.
    pub mapped_hugetlb_1g: u64,
    /// Slots in use, as spans or runs.
    pub active: u64,
    /// Free slots that were touched: warm.
    pub empty: u64,
    /// Free slots that read zero.
    pub fresh: u64,
    /// What a sealed heap refused: growth, a heap for a new thread, a purge.
    pub refusals: u64,
    /// Heaps ever made; a thread has one, and an exited thread's is used again.
    pub heaps: u64,
    /// Counters of all heaps.
    pub totals: Totals,
}

impl Stats {
    /// Memory mapped, in any page mode.
    pub const fn mapped(&self) -> u64 {
        self.mapped_small + self.mapped_thp + self.mapped_hugetlb + self.mapped_hugetlb_1g
    }

    /// Sums over the arena. `counters` visits every heap.
    pub(crate) fn gather(arena: &crate::pool::Arena, counters: impl FnOnce(&mut Totals)) -> Self {
        let mut stats = Self {
            address_space: arena.range().1 as u64,
            ..Self::default()
        };
        for node in arena.nodes() {
            stats.mapped_small += node.mapped_bytes(PageMode::Small);
            stats.mapped_thp += node.mapped_bytes(PageMode::Thp);
            stats.mapped_hugetlb += node.mapped_bytes(PageMode::Hugetlb);
            stats.mapped_hugetlb_1g += node.mapped_bytes(PageMode::Hugetlb1g);
            let [active, empty, fresh] = node.slot_bytes();
            stats.active += active;
            stats.empty += empty;
            stats.fresh += fresh;
        }
        stats.refusals = arena.refusals();
        stats.heaps = arena.heaps_made() as u64;
        counters(&mut stats.totals);
        stats
    }
}
