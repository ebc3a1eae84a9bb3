//! The figures of the heap, of its NUMA nodes and of its size classes. One table has the name and
//! the meaning of each, and where it is shown; the structs, the sums and the lists that
//! [`format`](super) writes come from it.

use super::board::NodeBoard;
use super::{List, Totals};
use crate::classes::CLASS_COUNT;
use crate::sync::Ordering;
use theap_platform::MAX_NODES;

/// Whether a figure also falls. To Prometheus a counter only rises: it takes a fall for a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// The figure only rises.
    Counter,
    /// The figure rises and falls.
    Gauge,
}

impl Metric {
    /// The name that Prometheus has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }

    /// The end of the metric's name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge => "",
        }
    }
}

/// Metrics of Prometheus that several figures of a node share, told apart by a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Memory by its pages.
    Mapped,
    /// Memory by the state of its slots.
    Slot,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::Mapped, Self::Slot];

    /// The metric's name, its label, and what it means.
    pub const fn metric(self) -> [&'static str; 3] {
        match self {
            Self::Mapped => [
                "mapped_bytes",
                "pages",
                "Memory mapped, by node and page mode.",
            ],
            Self::Slot => [
                "slot_bytes",
                "state",
                "Mapped memory, by node and state of its slots.",
            ],
        }
    }
}

/// The table of the figures of the heap: those of the address range, those that each node has,
/// those of the nodes' warmers, which are all bytes, and those that are counts.
macro_rules! figures {
    (
        range { $($(#[doc = $range_doc:literal])+ $range:ident,)+ }
        block { $($(#[doc = $block_doc:literal])+ $block:ident,)+ }
        node { $($(#[doc = $node_doc:literal])+ $node:ident: $family:ident $label:literal,)+ }
        warmer { $($(#[doc = $warmer_doc:literal])+ $warmer:ident,)+ }
        count { $($(#[doc = $count_doc:literal])+ $count:ident,)+ }
    ) => {
        /// What the allocator holds and has done. Sizes are in bytes.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $range_doc])+ pub $range: u64,)+
            $($(#[doc = $block_doc])+ pub $block: u64,)+
            $($(#[doc = $node_doc])+ pub $node: u64,)+
            $($(#[doc = $warmer_doc])+ pub $warmer: u64,)+
            $($(#[doc = $count_doc])+ pub $count: u64,)+
            /// Counters of all heaps.
            pub totals: Totals,
            /// The sizes of the parts of the heap that the NUMA nodes have.
            pub nodes: List<NodeStats, MAX_NODES>,
            /// The figures of each size class.
            pub classes: List<ClassStats, CLASS_COUNT>,
        }

        /// What a NUMA node's part of the heap holds. Sizes are in bytes.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct NodeStats {
            /// The kernel's number of the node; 0 where the heap makes no difference between nodes.
            pub node: u64,
            $($(#[doc = $node_doc])+ pub $node: u64,)+
        }

        const NODE_SIZES: usize = [$(stringify!($node)),+].len();
        const SIZES: usize = NODE_SIZES
            + [$(stringify!($range),)+ $(stringify!($block),)+ $(stringify!($warmer)),+].len();
        const COUNTS: usize = [$(stringify!($count)),+].len();

        impl Stats {
            /// The figures that are sizes in bytes, with their names.
            pub fn sizes(&self) -> [(&'static str, u64); SIZES] {
                [
                    $((stringify!($range), self.$range),)+
                    $((stringify!($block), self.$block),)+
                    $((stringify!($node), self.$node),)+
                    $((stringify!($warmer), self.$warmer),)+
                ]
            }

            /// The sizes that no node has a part of, with their names and meanings.
            pub(super) fn range_sizes(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [
                    $((stringify!($range), concat!($($range_doc),+).trim_ascii(), self.$range),)+
                    $((stringify!($block), concat!($($block_doc),+).trim_ascii(), self.$block),)+
                ]
                .into_iter()
            }

            /// The figures that are counts, with their names and meanings.
            pub(super) fn counts(&self) -> [(&'static str, &'static str, u64); COUNTS] {
                [$((stringify!($count), concat!($($count_doc),+).trim_ascii(), self.$count),)+]
            }

            /// Adds the sizes of a node, and puts it on the list.
            pub(super) fn add_node(&mut self, node: NodeStats) {
                $(self.$node = self.$node.wrapping_add(node.$node);)+
                self.nodes.push(node);
            }

            /// Adds the figures of a node's warmer.
            pub(super) fn add_warmer(&mut self, board: &NodeBoard) {
                $(self.$warmer = self.$warmer.wrapping_add(board.$warmer.load(Ordering::Relaxed));)+
            }
        }

        impl NodeStats {
            /// Adds the sizes of another node.
            pub(super) fn add(&mut self, other: &Self) {
                $(self.$node = self.$node.wrapping_add(other.$node);)+
            }

            /// The sizes in bytes, with their names.
            pub fn sizes(&self) -> [(&'static str, u64); NODE_SIZES] {
                [$((stringify!($node), self.$node),)+]
            }

            /// The sizes in bytes, each with its metric and the value of the metric's label.
            pub(super) fn metrics(&self) -> [(Family, &'static str, u64); NODE_SIZES] {
                [$((Family::$family, $label, self.$node),)+]
            }
        }
    };
}

figures! {
    range {
        /// Bytes of addresses that the heap's range may have at most.
        address_space,
        /// Bytes of huge runs that have mappings of their own, as the range has no room for them.
        outside,
        /// Bytes that count against `limit` and `soft_limit`: what is mapped for blocks, and the
        /// metadata that was opened with it.
        charged,
        /// Bytes of metadata that are accessible, touched or not: tables, thread caches, the board,
        /// and the metadata of SuperSlabs.
        metadata,
    }
    block {
        /// Bytes of blocks and runs that the program holds, as their classes and slots have them.
        allocated,
        /// Bytes of blocks that thread caches hold: in magazines, lists and quarantine, and as
        /// arrays of magazines.
        cached,
        /// Bytes inside of spans that no block has which the program or a thread cache holds.
        free,
        /// Bytes of the wholly free spans that heaps keep; a part of `free`.
        kept,
    }
    node {
        /// Bytes mapped on 4 KiB pages, touched or not.
        mapped_small: Mapped "small",
        /// Bytes mapped for transparent hugepages, touched or not.
        mapped_thp: Mapped "thp",
        /// Bytes on hugetlb pages of 2 MiB.
        mapped_hugetlb: Mapped "hugetlb",
        /// Bytes on hugetlb pages of 1 GiB.
        mapped_hugetlb_1g: Mapped "hugetlb_1g",
        /// Bytes of slots in use, as spans of blocks or as runs; free blocks inside spans included.
        active: Slot "active",
        /// Bytes of free slots that were in use before, so that their pages are still there.
        empty: Slot "empty",
        /// Bytes of free slots that were not used since they were mapped or purged; they read zero.
        fresh: Slot "fresh",
    }
    warmer {
        /// Bytes of wholly free SuperSlabs whose pages were there when the warmer looked last.
        stock,
        /// Bytes that the warmer wanted to have in stock when it looked last.
        stock_target,
        /// Bytes that the warmer has mapped or populated so far.
        prepared,
        /// Bytes that the warmer has given back to the system so far.
        given_back,
        /// Bytes of SuperSlabs on small pages that threads took so far, as they outran the warmer.
        bridged,
        /// Bytes of SuperSlabs in use for which the warmer has got hugepages instead of small pages
        /// so far.
        collapsed,
    }
    count {
        /// Growths, heaps for new threads and purges that a sealed heap refused.
        refusals,
        /// Allocations that returned null because of `limit`.
        limit_refusals,
        /// Times that the heap grew beyond `soft_limit`, or by another eighth of it, or that memory
        /// was short.
        soft_limits,
        /// Times that a thread broke the contract of its hot scope.
        hot_breaches,
        /// Heaps ever made for threads. A thread has one; the heap of an exited thread is used
        /// again.
        heaps,
        /// Warmer threads started so far, in this process and those that it was forked from.
        warmer_starts,
    }
}

/// The table of the figures of a size class: the width of the column in the text, and the metric
/// with its meaning.
macro_rules! class_figures {
    ($($(#[doc = $doc:literal])+ $name:ident: $width:literal, $metric:ident $help:literal;)+) => {
        /// The figures of a size class.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ClassStats {
            /// Bytes of a block.
            pub size: u64,
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        const CLASS_FIGURES: usize = [$(stringify!($name)),+].len();

        impl ClassStats {
            /// The figures of a class: name, width of the column, kind of metric, and meaning.
            pub(super) const FIGURES: [(&'static str, usize, Metric, &'static str); CLASS_FIGURES] =
                [$((stringify!($name), $width, Metric::$metric, $help),)+];

            /// The numbers with their names, but for the size.
            pub fn list(&self) -> [(&'static str, u64); CLASS_FIGURES] {
                [$((stringify!($name), self.$name),)+]
            }
        }
    };
}

class_figures! {
    /// Bytes of blocks that the program holds.
    allocated: 14, Gauge "Bytes of blocks that the program holds, by size.";
    /// Bytes of blocks that thread caches hold.
    cached: 12, Gauge "Bytes of blocks that thread caches hold, by size.";
    /// Bytes inside of spans that no such block has.
    free: 12, Gauge "Bytes inside of spans that no block in use or in a cache has, by size.";
    /// Spans now, wherever they are.
    spans: 8, Gauge "Spans, by size of their blocks.";
    /// Bytes of these spans.
    span_bytes: 14, Gauge "Bytes of spans, by size of their blocks.";
    /// Blocks moved from spans to magazines.
    refilled_blocks: 16, Counter "Blocks moved from spans to magazines, by size.";
    /// Blocks moved from magazines to spans.
    drained_blocks: 16, Counter "Blocks moved from magazines to spans, by size.";
    /// Blocks that magazines may hold now beyond their fixed capacities.
    learned_blocks: 16, Gauge "Blocks that magazines may hold beyond their fixed capacities, by size.";
}

impl ClassStats {
    /// Whether the class was ever used.
    pub fn is_used(&self) -> bool {
        self.spans != 0 || self.refilled_blocks != 0
    }
}
