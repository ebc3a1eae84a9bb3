//! The layout of an arena's metadata.
//!
//! ```text
//! | arena, parts | hints | heap 0 | front of the board | rest | heaps | tables | SuperMetas |
//! |--------------------- dense ----------------------- | -------- opened in steps ----- |
//! ```
//!
//! The dense front is accessible from the start and takes memory where it is touched; the rest is
//! committed as heaps and SuperSlabs come to be. The tables, which have bytes for each slot or
//! SuperSlab, lie before heap 0 in a range that is too small for steps.
//! The arena itself lies at the front of its metadata, so that nothing is needed before it.
#![allow(unsafe_code)] // Places values and tables in raw memory.

use super::Arena;
use super::affinity::Affinity;
use super::figures::{Extent, Figures};
use super::heaps::{HeapBytes, HeapEntry, Heaps, NURSERIES, Nursery};
use super::metadata::column::Column;
use super::metadata::{Metadata, STRETCHES, Stretch, Tables};
use super::node::Node;
use super::pages::Pages;
use super::pages::claims::Claims;
use super::policy::Policy;
use super::reclaim::Reclaim;
use super::runs::{Entry, MOST_OUTSIDE};
use super::spans::stash::Stash;
use super::spans::stashed::Stashed;
use super::spans::{NodeLists, Spans};
use super::supers::avail::{Avail, Bitmap, LEVELS, WHOLE};
use super::supers::extents::Extents;
use super::supers::slot_word::SlotWord;
use super::supers::{Nursed, Supers};
use crate::classes::CLASS_COUNT;
use crate::geometry::SUPER;
use crate::stats::board::MAX_HEAPS;
use crate::sync::{AtomicU8, AtomicU64, AtomicUsize};
use core::sync::atomic::AtomicU8 as CoreAtomicU8;
use core::sync::atomic::Ordering::Relaxed;
use theap_platform::{HUGE, PAGE};

/// Hands out places, one behind the other.
struct Carver {
    at: usize,
}

impl Carver {
    fn take(&mut self, bytes: usize, align: usize) -> usize {
        let at = self.at.next_multiple_of(align);
        self.at = at + bytes;
        at
    }

    /// A place for `count` values, on a cache line of its own.
    fn values<T>(&mut self, count: usize) -> usize {
        self.take(count * size_of::<T>(), 64)
    }

    /// Places for the tables of so many SuperSlabs, whole pages each.
    fn tables(&mut self, supers: usize) -> [Stretch; STRETCHES.len()] {
        STRETCHES.map(|bytes| Stretch {
            address: self.take((supers * bytes).next_multiple_of(PAGE), PAGE),
            bytes,
        })
    }

    /// The stashes of all CPUs, and their bits before them.
    fn stashes(&mut self, shape: Shape) -> [usize; 2] {
        let bits = self.values::<AtomicU64>(shape.stashed());
        [bits, self.values::<Stash>(shape.cpus * CLASS_COUNT)]
    }
}

/// The quantities that determine a layout.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Bytes of the range.
    pub len: usize,
    /// Nodes that have a part of it.
    pub nodes: usize,
    /// CPUs that are possible.
    pub cpus: usize,
    /// Bytes of the memory of a heap.
    pub heap_bytes: HeapBytes,
    /// The board is to be published.
    pub publish: bool,
}

impl Shape {
    /// SuperSlabs of the range.
    pub fn supers(&self) -> usize {
        self.len / SUPER
    }

    /// SuperSlabs of a node's part.
    fn supers_of_node(&self) -> usize {
        self.supers() / self.nodes.next_power_of_two()
    }

    /// Whether the tables are opened in steps.
    fn opens_in_steps(&self) -> bool {
        Tables::open_in_steps(self.supers_of_node())
    }

    /// Heaps that there are places for.
    fn max_heaps(&self) -> usize {
        self.supers().clamp(256, MAX_HEAPS)
    }

    /// Nurseries, one a CPU as far as there may be so many.
    fn nurseries(&self) -> usize {
        self.cpus.clamp(NURSERIES.0, NURSERIES.1)
    }

    /// Words of the bits of stashes.
    fn stashed(&self) -> usize {
        CLASS_COUNT * Stashed::words(self.cpus)
    }

    /// The board, if it begins at this address.
    fn board_at(&self, address: usize) -> Extent {
        Extent {
            address,
            nodes: self.nodes,
            max_heaps: self.max_heaps(),
            rings: Extent::rings_for(self.max_heaps(), self.publish),
        }
    }
}

/// Offsets of everything in the metadata.
pub struct Layout {
    shape: Shape,
    policy: usize,
    figures: usize,
    affinity: usize,
    supers: usize,
    pages: usize,
    lists: usize,
    nodes: usize,
    heaps_at: usize,
    spans_at: usize,
    reclaim: usize,
    stashes: usize,
    stashed: usize,
    learned: usize,
    outside: usize,
    heap_entries: usize,
    nurseries: usize,
    meta_states: usize,
    bitmaps: usize,
    open: usize,
    tables: [Stretch; STRETCHES.len()],
    shared: usize,
    board: usize,
    dense: usize,
    heaps: usize,
    metas: usize,
    total: usize,
}

impl Layout {
    /// The layout for a shape.
    pub fn new(shape: Shape) -> Self {
        let (nodes, supers) = (shape.nodes, shape.supers());
        let (max_heaps, metas_len) = (shape.max_heaps(), Metadata::len(supers));
        let mut carver = Carver { at: 0 };
        carver.values::<Arena>(1);
        let policy = carver.values::<Policy>(1);
        let figures = carver.values::<Figures>(1);
        let affinity = carver.values::<Affinity>(1);
        let supers_of = carver.values::<Supers>(nodes);
        let pages = carver.values::<Pages>(nodes);
        let lists = carver.values::<NodeLists>(nodes);
        let nodes_at = carver.values::<Node>(nodes);
        let heaps_at = carver.values::<Heaps>(1);
        let spans_at = carver.values::<Spans>(1);
        let reclaim = carver.values::<Reclaim>(1);
        let [stashed, stashes] = carver.stashes(shape);
        let learned = carver.take(shape.cpus, 64);
        let open = carver.values::<AtomicUsize>(nodes);
        let nurseries = carver.values::<Nursery>(shape.nurseries());
        let meta_states = carver.take(metas_len / HUGE, 64);
        let bitmaps = carver.values::<AtomicU64>(nodes * hint_words(shape.supers_of_node()));
        let early = (!shape.opens_in_steps()).then(|| carver.tables(supers));
        let shared = carver.take(shape.heap_bytes.first, PAGE);
        let extent = shape.board_at(0);
        let board = carver.take(extent.len(), PAGE);
        let heaps = carver.take(max_heaps * shape.heap_bytes.whole, PAGE);
        let tables = early.unwrap_or_else(|| carver.tables(supers));
        let heap_entries = carver.take(max_heaps * size_of::<HeapEntry>(), PAGE);
        let outside = carver.take(MOST_OUTSIDE * size_of::<Entry>(), PAGE);
        Self {
            shape,
            policy,
            figures,
            affinity,
            supers: supers_of,
            pages,
            lists,
            nodes: nodes_at,
            heaps_at,
            spans_at,
            reclaim,
            stashes,
            stashed,
            learned,
            outside,
            heap_entries,
            nurseries,
            meta_states,
            bitmaps,
            open,
            tables,
            shared,
            board,
            dense: board + extent.open_from_start(),
            heaps,
            metas: carver.take(metas_len, HUGE),
            total: carver.take(0, PAGE),
        }
    }

    /// Bytes at the front that are accessible from the start.
    pub fn dense(&self) -> usize {
        self.dense
    }

    /// Bytes at the front that must be reserved from the start: a board that is published is one
    /// mapping.
    pub fn reserved(&self) -> usize {
        let end = if self.shape.publish {
            self.heaps
        } else {
            self.dense
        };
        end.next_multiple_of(PAGE)
    }

    /// Bytes of the whole.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The board of metadata at `meta`.
    pub fn board(&self, meta: usize) -> Extent {
        self.shape.board_at(meta + self.board)
    }
}

/// Bitmaps of a node's SuperSlabs: the levels of room, the marks of nursed ones, and the holes.
const BITMAPS: usize = LEVELS + 2;

/// Words of a bitmap and its summary, for a node.
fn bitmap_words(supers: usize) -> usize {
    let words = supers.div_ceil(64);
    words + words.div_ceil(64)
}

/// Words of all bitmaps of a node, and of the hints of its extents behind them.
fn hint_words(supers: usize) -> usize {
    BITMAPS * bitmap_words(supers) + Extents::words(supers)
}

/// The places of a layout in memory that is there.
pub struct Places {
    meta: usize,
    layout: Layout,
}

impl Places {
    /// The places in metadata at `meta`.
    ///
    /// # Safety
    /// `meta` is a range of `layout.total()` bytes, aligned to a hugepage, of which the dense part
    /// is committed and zero, and which is the arena's as long as it lives. Nobody else uses it,
    /// and each of the functions below is called once for each of its arguments.
    pub unsafe fn new(meta: usize, layout: Layout) -> Self {
        Self { meta, layout }
    }

    fn table<T>(&self, offset: usize, count: usize) -> &'static [T] {
        // SAFETY: the tables lie in the dense part, which `new` was promised; they are of atomics,
        // for which zero is valid, and disjoint by layout.
        unsafe { core::slice::from_raw_parts((self.meta + offset) as *const T, count) }
    }

    fn put<T>(&self, offset: usize, index: usize, value: T) -> &'static T {
        let place = ((self.meta + offset) as *mut T).wrapping_add(index);
        // SAFETY: a place of its own in the dense part, which `new` was promised.
        unsafe {
            place.write(value);
            &*place
        }
    }

    fn all<T>(&self, offset: usize) -> &'static [T] {
        // SAFETY: the caller has put a value for each node there.
        unsafe {
            core::slice::from_raw_parts((self.meta + offset) as *const T, self.layout.shape.nodes)
        }
    }
}

/// The parts, one place each.
impl Places {
    /// Places the policy.
    pub fn put_policy(&self, policy: Policy) -> &'static Policy {
        self.put(self.layout.policy, 0, policy)
    }

    /// Places the figures.
    pub fn put_figures(&self, figures: Figures) -> &'static Figures {
        self.put(self.layout.figures, 0, figures)
    }

    /// Places the affinity.
    pub fn put_affinity(&self, affinity: Affinity) -> &'static Affinity {
        self.put(self.layout.affinity, 0, affinity)
    }

    /// Places the slots of a node.
    pub fn put_supers(&self, node: usize, supers: Supers) -> &'static Supers {
        self.put(self.layout.supers, node, supers)
    }

    /// Places the pages of a node.
    pub fn put_pages(&self, node: usize, pages: Pages) -> &'static Pages {
        self.put(self.layout.pages, node, pages)
    }

    /// Places the lists of a node.
    pub fn put_lists(&self, node: usize, lists: NodeLists) -> &'static NodeLists {
        self.put(self.layout.lists, node, lists)
    }

    /// Places the nurseries.
    pub fn put_nurseries(&self) -> &'static [Nursery] {
        let (at, count) = (self.layout.nurseries, self.layout.shape.nurseries());
        for index in 0..count {
            self.put(at, index, Nursery::new());
        }
        self.table(at, count)
    }

    /// Places the heaps.
    pub fn put_heaps(&self, heaps: Heaps) -> &'static Heaps {
        self.put(self.layout.heaps_at, 0, heaps)
    }

    /// Places the spans without an owner.
    pub fn put_spans(&self, spans: Spans) -> &'static Spans {
        self.put(self.layout.spans_at, 0, spans)
    }

    /// Places the reclaimer.
    pub fn put_reclaim(&self, reclaim: Reclaim) -> &'static Reclaim {
        self.put(self.layout.reclaim, 0, reclaim)
    }

    /// Places a node.
    pub fn put_node(&self, index: usize, node: Node) {
        self.put(self.layout.nodes, index, node);
    }

    /// Places the arena, at the front.
    pub fn put_arena(&self, arena: Arena) -> &'static Arena {
        self.put(0, 0, arena)
    }

    /// The pages of all nodes: the place of the first, and their number.
    pub fn pages(&self) -> (*const Pages, usize) {
        let first = (self.meta + self.layout.pages) as *const Pages;
        (first, self.layout.shape.nodes)
    }

    /// The lists of all nodes, after they were placed.
    pub fn lists(&self) -> &'static [NodeLists] {
        self.all(self.layout.lists)
    }

    /// All nodes, after they were placed.
    pub fn nodes(&self) -> &'static [Node] {
        self.all(self.layout.nodes)
    }
}

/// The tables.
impl Places {
    /// The tables that are opened in steps: SP-SLOT words, page modes, class bytes, heads.
    pub fn stretches(&self) -> [Stretch; STRETCHES.len()] {
        self.layout.tables.map(|table| Stretch {
            address: self.meta + table.address,
            ..table
        })
    }

    /// The open bytes of each node's part.
    pub fn open(&self) -> &'static [AtomicUsize] {
        let shape = self.layout.shape;
        let open: &[AtomicUsize] = self.table(self.layout.open, shape.nodes);
        if !shape.opens_in_steps() {
            let whole = shape.supers_of_node() * SUPER;
            open.iter().for_each(|part| part.store(whole, Relaxed));
        }
        open
    }

    /// The table of the `index`-th stretch, for the SuperSlabs of a node.
    fn column<T>(&self, index: usize, node: usize) -> Column<'static, T> {
        let supers = self.layout.shape.supers_of_node();
        let Stretch { address, bytes } = self.stretches()[index];
        debug_assert_eq!(bytes, size_of::<T>());
        // SAFETY: tables of atomics, for which zero is valid, that lie apart from all else as long
        // as the arena lives. The parts ask for values of the SuperSlabs that are open.
        unsafe { Column::new(address + node * supers * bytes, supers) }
    }

    /// The board.
    pub fn board(&self) -> Extent {
        self.layout.board(self.meta)
    }

    /// A byte for each CPU.
    pub fn learned(&self) -> &'static [CoreAtomicU8] {
        self.table(self.layout.learned, self.layout.shape.cpus)
    }

    /// Bytes at the beginning that have the parts and the stashes, in whole pages.
    pub fn front(&self) -> usize {
        self.layout.open.next_multiple_of(PAGE)
    }

    /// The address of the table of runs outside of the range.
    pub fn outside(&self) -> usize {
        self.meta + self.layout.outside
    }

    /// The stashes of all CPUs, and the bits that tell which of them have spans.
    pub fn stashes(&self) -> (&'static [Stash], &'static [AtomicU64]) {
        let (layout, shape) = (&self.layout, &self.layout.shape);
        (
            self.table(layout.stashes, shape.cpus * CLASS_COUNT),
            self.table(layout.stashed, shape.stashed()),
        )
    }

    /// The metadata of SuperSlabs: its address, and the states of its pieces.
    pub fn metas(&self) -> (usize, &'static [CoreAtomicU8]) {
        let pieces = Metadata::len(self.layout.shape.supers()) / HUGE;
        let states = self.table(self.layout.meta_states, pieces);
        (self.meta + self.layout.metas, states)
    }

    /// The entries of heaps, the memory of heap 0, and that of all heaps.
    pub fn heaps(&self) -> (Column<'static, HeapEntry>, usize, usize) {
        let (at, count) = (
            self.meta + self.layout.heap_entries,
            self.layout.shape.max_heaps(),
        );
        // SAFETY: a table of atomics of its own; the heaps open it in steps.
        let entries = unsafe { Column::new(at, count) };
        let (shared, heaps) = (self.layout.shared, self.layout.heaps);
        (entries, self.meta + shared, self.meta + heaps)
    }

    /// Bytes of the memory of a heap.
    pub fn heap_bytes(&self) -> HeapBytes {
        self.layout.shape.heap_bytes
    }

    /// The SP-SLOT words of a node.
    pub fn words(&self, node: usize) -> Column<'static, SlotWord> {
        self.column(0, node)
    }

    /// The claims of a node.
    pub fn claims(&self, node: usize, extents: Extents<'static>) -> Claims<'static> {
        Claims::new(self.column::<AtomicU8>(1, node), extents)
    }

    /// The hints of a node: where there is room, where adjacent SuperSlabs are free, and which ones
    /// nurseries take from; of these, those before `common` serve threads as well.
    pub fn hints(&self, node: usize, common: usize) -> (Avail<'static>, Extents<'static>, Nursed) {
        let supers = self.layout.shape.supers_of_node();
        let all = hint_words(supers);
        let table: &[AtomicU64] = self.table(self.layout.bitmaps + node * all * 8, all);
        let (bitmaps, of_extents) = table.split_at(BITMAPS * bitmap_words(supers));
        let bitmap = |nth| {
            let one = &bitmaps[nth * bitmap_words(supers)..][..bitmap_words(supers)];
            let (words, summary) = one.split_at(supers.div_ceil(64));
            Bitmap { words, summary }
        };
        let levels = core::array::from_fn(bitmap);
        let (nursed, holes) = (bitmap(LEVELS), bitmap(LEVELS + 1));
        let extents = Extents::new((levels[WHOLE], holes), (nursed, common), of_extents);
        (Avail { levels }, extents, Nursed::new(nursed, common))
    }
}
