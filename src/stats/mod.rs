//! What the heap holds and has done: [`Stats`], read from the [`board`], in this process or by
//! another one.
//!
//! The heaps' threads count in `counters`; `board` is the memory in which all numbers lie, which
//! another process may read; `figures` is the table of what is derived from them, and `format`
//! writes it as text, as JSON and for Prometheus. `events` are what happened lately, recorded in a
//! `ring` for each heap.

pub mod board;
mod counters;
pub mod events;
mod figures;
mod format;
pub mod ring;

use crate::classes::CLASSES;
use crate::geometry::{ClassId, SLOT, SUPER};
use crate::sync::Ordering;
use board::Board;
use core::ops::Deref;
use theap_platform::PageMode;

pub use counters::{COUNTERS, Count, Counters, Totals};
pub use figures::{ClassStats, NodeStats, Stats};

use counters::METRICS;

/// A list of at most `N` entries, usable as a slice.
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
    /// The sizes of a node, computed from its board.
    fn read(board: &board::NodeBoard) -> Self {
        let mapped = |mode: PageMode| {
            (board.mapped[mode as usize].load(Ordering::Relaxed) as u64).wrapping_mul(SUPER as u64)
        };
        let span_slots = ClassId::all().map(|class| {
            let spans = board.spans_of(class).load(Ordering::Relaxed);
            spans.wrapping_mul(u64::from(CLASSES[class.index()].slots))
        });
        let run_slots = board.run_slots.load(Ordering::Relaxed);
        let mut node = Self {
            node: board.kernel_node.load(Ordering::Relaxed),
            mapped_small: mapped(PageMode::Small),
            mapped_thp: mapped(PageMode::Thp),
            mapped_hugetlb: mapped(PageMode::Hugetlb),
            mapped_hugetlb_1g: mapped(PageMode::Hugetlb1g),
            active: span_slots
                .fold(run_slots, u64::wrapping_add)
                .wrapping_mul(SLOT as u64),
            empty: (board.empty.load(Ordering::Relaxed) as u64).wrapping_mul(SLOT as u64),
            fresh: 0,
        };
        node.fresh = node
            .mapped()
            .saturating_sub(node.active)
            .saturating_sub(node.empty);
        node
    }

    /// The sizes of all nodes together.
    pub(crate) fn of_all(board: &Board<'_>) -> Self {
        let mut all = Self::default();
        board
            .nodes
            .iter()
            .for_each(|node| all.add(&Self::read(node)));
        all
    }

    /// Bytes mapped, in any page mode. What another process publishes may be anything, so nothing
    /// here overflows.
    pub fn mapped(&self) -> u64 {
        self.mapped_small
            .wrapping_add(self.mapped_thp)
            .wrapping_add(self.mapped_hugetlb)
            .wrapping_add(self.mapped_hugetlb_1g)
    }
}

impl ClassStats {
    /// The figures of a class, summed over the boards of nodes and heaps.
    fn read(board: &Board<'_>, class: ClassId) -> Self {
        let about = &CLASSES[class.index()];
        let sum = |each: &dyn Fn(&board::ClassCounters) -> u64| {
            let heaps = board.heaps.iter().map(|heap| each(heap.class(class)));
            heaps.fold(0, u64::wrapping_add)
        };
        let nodes = board.nodes.iter();
        let spans = nodes
            .map(|node| node.spans_of(class).load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add);
        Self {
            size: u64::from(about.size),
            spans,
            span_bytes: spans.wrapping_mul(about.span_bytes() as u64),
            refilled_blocks: sum(&|class| class.refilled_blocks.get()),
            drained_blocks: sum(&|class| class.drained_blocks.get()),
            learned_blocks: sum(&|class| class.learned_blocks.get()),
        }
    }
}

impl Stats {
    /// Fills figures that are all zero with those of the heap that the board is of: in place, as
    /// they take 8 KiB, and whoever asks may have a small stack.
    #[inline(never)]
    pub(crate) fn fill(&mut self, board: &Board<'_>) {
        self.address_space = board.header.address_space.load(Ordering::Relaxed);
        self.outside = board.header.outside.load(Ordering::Relaxed);
        self.charged = board.header.charged.load(Ordering::Relaxed);
        self.refusals = board.header.refusals.load(Ordering::Relaxed);
        self.limit_refusals = board.header.limit_refusals.load(Ordering::Relaxed);
        self.soft_limits = board.header.soft_limits.load(Ordering::Relaxed);
        // Heap 0 is no thread's.
        self.heaps = board.heaps.len().saturating_sub(1) as u64;
        for node in board.nodes {
            self.add_node(NodeStats::read(node));
            self.add_warmer(node);
            let starts = node.warmer_starts.load(Ordering::Relaxed);
            self.warmer_starts = self.warmer_starts.wrapping_add(starts);
        }
        for heap in board.heaps {
            self.totals.add(&heap.counters);
        }
        for class in ClassId::all() {
            self.classes.push(ClassStats::read(board, class));
        }
    }

    /// Bytes mapped, in any page mode.
    pub const fn mapped(&self) -> u64 {
        self.mapped_small + self.mapped_thp + self.mapped_hugetlb + self.mapped_hugetlb_1g
    }
}
