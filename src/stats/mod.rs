//! What the heap holds and has done: [`Stats`], read from the [`board`], in this process or by
//! another one.
//!
//! The heaps' threads count in `counters`; `board` is the memory in which all numbers lie, which
//! another process may read; `figures` is the table of what is derived from them, and `format`
//! writes it as text, as JSON and for Prometheus, with `shown` what is asked for besides: each heap
//! (`heaps`), and the memory that the kernel has for all of it (`residence`). `events` are what
//! happened lately, recorded in a `ring` for each heap.
//!
//! ```text
//! refilled - drained blocks of a class  =  those of the program + those of thread caches
//! active + outside                      =  allocated + cached + free
//! ```

pub mod board;
mod counters;
pub mod events;
mod figures;
mod format;
mod heaps;
mod residence;
pub mod ring;
mod shown;

use crate::classes::CLASSES;
use crate::geometry::{ClassId, SLOT, SUPER};
use crate::sync::Ordering;
use board::Board;
use core::ops::Deref;
use theap_platform::PageMode;

pub use counters::{COUNTERS, Count, Counters, Level, Totals};
pub use figures::{ClassStats, NodeStats, Stats};
pub use heaps::{HeapStats, ThreadName};
pub use residence::Resident;
pub use shown::Shown;

use counters::METRICS;
use figures::Metric;

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

    /// Bytes mapped, in any page mode. What another process publishes may be anything, so nothing
    /// here overflows.
    pub fn mapped(&self) -> u64 {
        self.mapped_small
            .wrapping_add(self.mapped_thp)
            .wrapping_add(self.mapped_hugetlb)
            .wrapping_add(self.mapped_hugetlb_1g)
    }
}

/// The sums that `mallinfo` tells, which take little room.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Sums {
    /// The sizes of all nodes together.
    pub nodes: NodeStats,
    /// Bytes of huge runs outside of the range.
    pub outside: u64,
    /// The number of these runs.
    pub outside_runs: u64,
    /// Bytes of blocks and runs that the program holds, those outside included.
    pub allocated: u64,
    /// Bytes of blocks that thread caches hold.
    pub cached: u64,
    /// The number of these blocks.
    pub cached_blocks: u64,
    /// Bytes inside of spans that no block has which the program or a thread cache holds.
    pub free: u64,
    /// The number of blocks for which these bytes have room.
    pub free_blocks: u64,
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
        let mut this = Self {
            size: u64::from(about.size),
            spans,
            span_bytes: spans.wrapping_mul(about.span_bytes() as u64),
            refilled_blocks: sum(&|class| class.refilled_blocks.get()),
            drained_blocks: sum(&|class| class.drained_blocks.get()),
            learned_blocks: sum(&|class| class.learned_blocks.get()),
            ..Self::default()
        };
        if board.counts() {
            this.divide(sum(&|class| class.cached_blocks.get()));
        }
        this
    }

    /// Divides the bytes of the spans among the program, the caches, which have so many blocks, and
    /// what is free. A reader may meet one number before a batch and another one behind it: then a
    /// part that would be negative is none.
    fn divide(&mut self, cached: u64) {
        let out = self.refilled_blocks.wrapping_sub(self.drained_blocks);
        let most = self.span_bytes / self.size.max(1);
        let out = if out > u64::MAX / 2 { 0 } else { out.min(most) };
        let cached = cached.min(out);
        self.allocated = (out - cached) * self.size;
        self.cached = cached * self.size;
        self.free = self.span_bytes - out * self.size;
    }

    /// Whether the figure of this name is in bytes.
    fn is_size(name: &str) -> bool {
        ["allocated", "cached", "free", "span_bytes"].contains(&name)
    }
}

impl Sums {
    /// The sums over a board.
    #[inline(never)]
    pub(crate) fn of(board: &Board<'_>) -> Self {
        let mut this = Self {
            outside: board.header.outside.load(Ordering::Relaxed),
            outside_runs: board.header.outside_runs.load(Ordering::Relaxed),
            ..Self::default()
        };
        for node in board.nodes {
            this.nodes.add(&NodeStats::read(node));
        }
        for class in ClassId::all() {
            this.add(&ClassStats::read(board, class));
        }
        this.add_runs(board);
        this
    }

    /// Adds the numbers of a class.
    fn add(&mut self, class: &ClassStats) {
        let size = class.size.max(1);
        self.allocated = self.allocated.wrapping_add(class.allocated);
        self.cached = self.cached.wrapping_add(class.cached);
        self.free = self.free.wrapping_add(class.free);
        self.cached_blocks = self.cached_blocks.wrapping_add(class.cached / size);
        self.free_blocks = self.free_blocks.wrapping_add(class.free / size);
    }

    /// Adds the runs.
    fn add_runs(&mut self, board: &Board<'_>) {
        if board.counts() {
            let slots = board
                .nodes
                .iter()
                .map(|node| node.run_slots.load(Ordering::Relaxed));
            let runs = slots.fold(0, u64::wrapping_add).wrapping_mul(SLOT as u64);
            self.allocated = self.allocated.wrapping_add(runs).wrapping_add(self.outside);
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
        self.hot_breaches = board.header.hot_breaches.load(Ordering::Relaxed);
        // Heap 0 is no thread's.
        self.heaps = board.heaps.len().saturating_sub(1) as u64;
        for node in board.nodes {
            self.add_node(NodeStats::read(node));
            self.add_warmer(node);
            let starts = node.warmer_starts.load(Ordering::Relaxed);
            self.warmer_starts = self.warmer_starts.wrapping_add(starts);
        }
        self.metadata = board.header.metadata.load(Ordering::Relaxed);
        for heap in board.heaps {
            self.totals.add(&heap.counters);
            self.kept = self.kept.wrapping_add(heap.kept.get());
        }
        let mut sums = Sums {
            outside: self.outside,
            ..Sums::default()
        };
        for class in ClassId::all() {
            let class = ClassStats::read(board, class);
            sums.add(&class);
            self.classes.push(class);
        }
        sums.add_runs(board);
        (self.allocated, self.cached, self.free) = (sums.allocated, sums.cached, sums.free);
    }

    /// Bytes mapped, in any page mode.
    pub const fn mapped(&self) -> u64 {
        self.mapped_small + self.mapped_thp + self.mapped_hugetlb + self.mapped_hugetlb_1g
    }
}
