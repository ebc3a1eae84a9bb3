//! What the heap holds and has done: [`Stats`], read off the [`board`], in this process or by another one.
//!
//! `counters` counts, `board` says where the numbers lie and may be published, `format` writes them as text, JSON and
//! for Prometheus. `events` are what happened lately, in a `ring` each.

pub mod board;
mod counters;
pub mod events;
mod format;
pub mod ring;

use crate::classes::{CLASS_COUNT, CLASSES};
use crate::pool::{SLOT, SUPER};
use crate::sync::Ordering;
use board::Board;
use core::ops::Deref;
use theap_platform::{MAX_NODES, PageMode};

pub use counters::{COUNTERS, Count, Counters, Totals, is_gauge};

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
    /// Free SuperSlabs whose pages were there when the warmer looked last.
    pub stock: u64,
    /// What the warmer wanted that to be.
    pub stock_target: u64,
    /// What the warmer has prepared so far.
    pub prepared: u64,
    /// What the warmer has given back to the system so far.
    pub given_back: u64,
    /// What the warmer has got hugepages for so far, instead of small ones.
    pub collapsed: u64,
    /// Warmer threads started so far in this process and those that it was forked from.
    pub warmer_starts: u64,
    /// What a sealed heap refused: growth, a heap for a new thread, a purge.
    pub refusals: u64,
    /// Heaps ever made; a thread has one, and an exited thread's is used again.
    pub heaps: u64,
    /// Counters of all heaps.
    pub totals: Totals,
    /// The sizes above, for each NUMA node that the heap knows.
    pub nodes: List<NodeStats, MAX_NODES>,
    /// What each size class has.
    pub classes: List<ClassStats, CLASS_COUNT>,
}

/// What a NUMA node's part of the heap holds. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStats {
    /// The kernel's number of the node; 0 where the heap makes no difference between nodes.
    pub node: u64,
    /// Memory mapped on 4 KiB pages.
    pub mapped_small: u64,
    /// Memory mapped for transparent hugepages.
    pub mapped_thp: u64,
    /// Memory on hugetlb pages of 2 MiB.
    pub mapped_hugetlb: u64,
    /// Memory on hugetlb pages of 1 GiB.
    pub mapped_hugetlb_1g: u64,
    /// Slots in use.
    pub active: u64,
    /// Free slots that were touched.
    pub empty: u64,
    /// Free slots that read zero.
    pub fresh: u64,
}

/// What a size class has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// Bytes of a block.
    pub size: u64,
    /// Spans now, wherever they are.
    pub spans: u64,
    /// Bytes of these spans.
    pub span_bytes: u64,
    /// Blocks moved from spans to magazines.
    pub refilled_blocks: u64,
    /// Blocks moved from magazines to spans.
    pub drained_blocks: u64,
    /// Blocks that magazines may hold now beyond their fixed capacities.
    pub learned_blocks: u64,
}

/// At most `N` entries, usable as a slice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct List<T, const N: usize> {
    entries: [T; N],
    len: usize,
}

impl<T: Copy + Default, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self {
            entries: [T::default(); N],
            len: 0,
        }
    }
}

impl<T, const N: usize> Deref for List<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.entries[..self.len]
    }
}

impl<T: core::fmt::Debug, const N: usize> core::fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T, const N: usize> List<T, N> {
    /// Adds an entry; beyond `N` it is left out.
    fn push(&mut self, entry: T) {
        if let Some(place) = self.entries.get_mut(self.len) {
            *place = entry;
            self.len += 1;
        }
    }
}

impl NodeStats {
    fn read(board: &board::NodeBoard) -> Self {
        let mapped = |mode: PageMode| {
            (board.mapped[mode as usize].load(Ordering::Relaxed) as u64).wrapping_mul(SUPER as u64)
        };
        let slots = board.spans.iter().zip(&CLASSES).fold(
            board.run_slots.load(Ordering::Relaxed),
            |sum, (spans, class)| {
                sum.wrapping_add(
                    spans
                        .load(Ordering::Relaxed)
                        .wrapping_mul(u64::from(class.slots)),
                )
            },
        );
        let mut node = Self {
            node: board.kernel_node.load(Ordering::Relaxed),
            mapped_small: mapped(PageMode::Small),
            mapped_thp: mapped(PageMode::Thp),
            mapped_hugetlb: mapped(PageMode::Hugetlb),
            mapped_hugetlb_1g: mapped(PageMode::Hugetlb1g),
            active: slots.wrapping_mul(SLOT as u64),
            empty: (board.empty.load(Ordering::Relaxed) as u64).wrapping_mul(SLOT as u64),
            fresh: 0,
        };
        let modes = [
            node.mapped_small,
            node.mapped_thp,
            node.mapped_hugetlb,
            node.mapped_hugetlb_1g,
        ];
        node.fresh = modes
            .into_iter()
            .fold(0, u64::wrapping_add)
            .saturating_sub(node.active)
            .saturating_sub(node.empty);
        node
    }
}

impl Stats {
    /// Sums over the board.
    pub(crate) fn read(board: &Board<'_>) -> Self {
        let mut stats = Self {
            address_space: board.header.address_space.load(Ordering::Relaxed),
            refusals: board.header.refusals.load(Ordering::Relaxed),
            heaps: board.heaps.len() as u64,
            ..Self::default()
        };
        for node in board.nodes {
            for (sum, part) in [
                (&mut stats.stock, &node.stock),
                (&mut stats.stock_target, &node.stock_target),
                (&mut stats.prepared, &node.prepared),
                (&mut stats.given_back, &node.given_back),
                (&mut stats.collapsed, &node.collapsed),
                (&mut stats.warmer_starts, &node.warmer_starts),
            ] {
                *sum = sum.wrapping_add(part.load(Ordering::Relaxed));
            }
            let node = NodeStats::read(node);
            for (sum, part) in [
                (&mut stats.mapped_small, node.mapped_small),
                (&mut stats.mapped_thp, node.mapped_thp),
                (&mut stats.mapped_hugetlb, node.mapped_hugetlb),
                (&mut stats.mapped_hugetlb_1g, node.mapped_hugetlb_1g),
                (&mut stats.active, node.active),
                (&mut stats.empty, node.empty),
                (&mut stats.fresh, node.fresh),
            ] {
                *sum = sum.wrapping_add(part);
            }
            stats.nodes.push(node);
        }
        for heap in board.heaps {
            stats.totals.add(&heap.counters);
        }
        for (index, class) in CLASSES.iter().enumerate() {
            let sum = |each: &dyn Fn(&board::ClassCounters) -> u64| {
                let heaps = board.heaps.iter().map(|heap| each(&heap.classes[index]));
                heaps.fold(0, u64::wrapping_add)
            };
            let spans = board
                .nodes
                .iter()
                .map(|node| node.spans[index].load(Ordering::Relaxed))
                .fold(0, u64::wrapping_add);
            stats.classes.push(ClassStats {
                size: u64::from(class.size),
                spans,
                span_bytes: spans.wrapping_mul(class.span_bytes() as u64),
                refilled_blocks: sum(&|class| class.refilled_blocks.get()),
                drained_blocks: sum(&|class| class.drained_blocks.get()),
                learned_blocks: sum(&|class| class.learned_blocks.get()),
            });
        }
        stats
    }

    /// Memory mapped, in any page mode.
    pub const fn mapped(&self) -> u64 {
        self.mapped_small + self.mapped_thp + self.mapped_hugetlb + self.mapped_hugetlb_1g
    }

    /// The figures that are sizes in bytes, with their names.
    pub fn sizes(&self) -> [(&'static str, u64); 13] {
        [
            ("address_space", self.address_space),
            ("mapped_small", self.mapped_small),
            ("mapped_thp", self.mapped_thp),
            ("mapped_hugetlb", self.mapped_hugetlb),
            ("mapped_hugetlb_1g", self.mapped_hugetlb_1g),
            ("active", self.active),
            ("empty", self.empty),
            ("fresh", self.fresh),
            ("stock", self.stock),
            ("stock_target", self.stock_target),
            ("prepared", self.prepared),
            ("given_back", self.given_back),
            ("collapsed", self.collapsed),
        ]
    }
}
