//! The board: the memory that holds all numbers of which [`Stats`](super::Stats) is made, laid out
//! so that another process can read them while they are written.
//!
//! ```text
//! | Header (a page) | NodeBoard of each node | HeapBoard of each heap | Rings of pool and heaps |
//! ```
//!
//! The rings are there only if the board is published, and only for the first heaps.
//!
//! The board is a part of the arena's metadata. With the option `publish` that part is a file in
//! memory (memfd), which every process that may look into this one finds in `/proc/PID/fd`; the
//! writers do exactly the same in both cases. The board holds nothing but atomics. The allocator
//! makes its decisions without the board, but for two numbers of a node that lie here alone: its
//! warm slots and its mapped SuperSlabs.
//!
//! ```text
//! part        written by
//! HeapBoard   the thread of the heap
//! NodeBoard   any thread, by read-modify-write
//! Header      the holder of the lock on heap ids; `tracing`: observers; `refusals` and the numbers
//!             of the limits: any thread
//! ```
//!
//! A reader trusts nothing. [`Board::at`] checks every length against the bytes that are there, and
//! against the most that an arena has, since reading a hole of a file in memory takes a page. Any
//! bits are valid numbers, and sums wrap. A number that is computed from all names and sizes
//! identifies the layout, so that a reader built from other source refuses the board and does not
//! misread it.

#![allow(unsafe_code)] // Reads memory that another process may write, as atomics.

use super::events::{Event, EventKind};
use super::ring::Ring;
use super::{COUNTERS, Count, Counters, Level};
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::geometry::ClassId;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use theap_platform::{MAX_NODES, PAGE, PageMode};

/// "theap" in the first bytes of a board.
const MAGIC: u64 = u64::from_le_bytes(*b"theap\0\0\x01");
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Most heaps that an arena has places for.
pub const MAX_HEAPS: usize = 65536;
/// Rings of a published board: the pool's, and those of the first heaps.
pub const MAX_RINGS: usize = 1024;
/// Bytes from one ring to the next.
pub const RING_BYTES: usize = size_of::<Ring>().next_multiple_of(PAGE);
/// Bytes of the version that a board shows.
const VERSION_BYTES: usize = 16;

/// The numbers of the whole heap.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Header {
    /// [`MAGIC`]; written last.
    magic: AtomicU64,
    /// [`LAYOUT`] of the writer.
    layout: AtomicU64,
    /// Version of the writer, padded with zeros.
    version: [AtomicU64; VERSION_BYTES / 8],
    /// Nodes that the heap knows.
    nodes: AtomicU64,
    /// Heaps ever made; `heap_made` writes it.
    pub heaps: AtomicU64,
    /// Heaps that there are places for.
    max_heaps: AtomicU64,
    /// Rings on the board.
    rings: AtomicU64,
    /// The time until which events are recorded (ns of CLOCK_MONOTONIC); written by observers.
    pub tracing: AtomicU64,
    /// Bytes reserved for blocks.
    pub address_space: AtomicU64,
    /// Bytes of huge runs outside of the range.
    pub outside: AtomicU64,
    /// Growths, heaps for new threads and purges that a sealed heap refused.
    pub refusals: AtomicU64,
    /// Bytes that count against `limit` and `soft_limit`.
    pub charged: AtomicU64,
    /// Allocations that got nothing because of `limit`.
    pub limit_refusals: AtomicU64,
    /// Growths that went beyond `soft_limit` and were noted, and times that memory was short.
    pub soft_limits: AtomicU64,
    /// Times that a thread broke the contract of its hot scope.
    pub hot_breaches: AtomicU64,
    /// Huge runs outside of the range.
    pub outside_runs: AtomicU64,
    /// Bytes of metadata that are accessible.
    pub metadata: AtomicU64,
    /// 1 if the heaps count, 0 if the writer was built without the feature `stats`.
    counts: AtomicU64,
    /// The first address of the range, and that of the metadata; the latter end at the former.
    first: AtomicU64,
    metadata_first: AtomicU64,
}

/// The numbers of a node.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct NodeBoard {
    /// The kernel's number of the node.
    pub kernel_node: AtomicU64,
    /// SuperSlabs mapped now, by `PageMode`.
    pub mapped: [AtomicUsize; PageMode::COUNT],
    /// EMPTY slots now: free, and in use before.
    pub empty: AtomicUsize,
    /// Bytes of free SuperSlabs whose pages were there when the warmer looked last.
    pub stock: AtomicU64,
    /// Bytes that the warmer wanted to have in stock when it looked last.
    pub stock_target: AtomicU64,
    /// Bytes that warmers prepared.
    pub prepared: AtomicU64,
    /// Bytes that warmers gave back.
    pub given_back: AtomicU64,
    /// Bytes that threads took on small pages as they outran the warmer.
    pub bridged: AtomicU64,
    /// Bytes for which warmers got hugepages instead of small ones.
    pub collapsed: AtomicU64,
    /// Warmer threads started.
    pub warmer_starts: AtomicU64,
    /// Slots of runs now.
    pub run_slots: AtomicU64,
    /// Spans of each class now.
    pub spans: [AtomicU64; CLASS_COUNT],
}

/// The numbers that a heap has for one class.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ClassCounters {
    /// Blocks moved from spans to magazines.
    pub refilled_blocks: Count,
    /// Blocks moved from magazines to spans.
    pub drained_blocks: Count,
    /// Blocks that the magazine may hold now beyond its fixed capacity.
    pub learned_blocks: Level,
    /// Blocks that the thread's cache held when its last batch of the class moved.
    pub cached_blocks: Level,
}

/// The numbers of a heap. The alignment makes two of them take a page.
#[derive(Debug)]
#[repr(C, align(512))]
pub struct HeapBoard {
    /// The counters of the heap, which its thread alone writes.
    pub counters: Counters,
    /// The kernel's number of the thread that has the heap, or zero; the thread writes it.
    pub thread: AtomicU64,
    /// Bytes of the spans that the heap owns.
    pub span_bytes: Count,
    /// Bytes of those of them whose blocks are all free.
    pub kept: Count,
    /// Bytes of blocks that the thread's magazines may hold; the thread writes it.
    pub allowed: Count,
    /// The numbers that are kept for each class, which the thread of the heap alone writes.
    pub classes: [ClassCounters; CLASS_COUNT],
}

/// The addresses of a heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The first address of the metadata, which lie below the range.
    pub metadata: usize,
    /// The first address of the range.
    pub blocks: usize,
    /// Bytes of the range.
    pub len: usize,
}

/// The places of the parts of a board, in bytes from its first one.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Place of the first `HeapBoard`.
    pub heaps: usize,
    /// Place of the pool's ring; the rings of the heaps follow it.
    pub rings: usize,
    /// Bytes of the whole board.
    pub len: usize,
}

impl Places {
    /// The places on a board for this many nodes, heaps and rings.
    pub const fn new(nodes: usize, heaps: usize, rings: usize) -> Self {
        let nodes_end = size_of::<Header>() + nodes * size_of::<NodeBoard>();
        let at = nodes_end.next_multiple_of(PAGE);
        let rings_at = (at + heaps * size_of::<HeapBoard>()).next_multiple_of(PAGE);
        Self {
            heaps: at,
            rings: rings_at,
            len: rings_at + rings * RING_BYTES,
        }
    }
}

/// Boards of zeros for the models; in the product untouched memory is such a board.
#[cfg(loom)]
mod zeros {
    use super::*;
    use core::array::from_fn;

    fn zero() -> AtomicU64 {
        AtomicU64::new(0)
    }

    #[expect(missing_docs, reason = "the module says it")]
    impl Header {
        pub fn new() -> Self {
            Self {
                magic: zero(),
                layout: zero(),
                version: from_fn(|_| zero()),
                nodes: zero(),
                heaps: zero(),
                max_heaps: zero(),
                rings: zero(),
                tracing: zero(),
                address_space: zero(),
                outside: zero(),
                refusals: zero(),
                charged: zero(),
                limit_refusals: zero(),
                soft_limits: zero(),
                hot_breaches: zero(),
                outside_runs: zero(),
                metadata: zero(),
                counts: zero(),
                first: zero(),
                metadata_first: zero(),
            }
        }
    }

    #[expect(missing_docs, reason = "the module says it")]
    impl NodeBoard {
        pub fn new() -> Self {
            Self {
                kernel_node: zero(),
                mapped: from_fn(|_| AtomicUsize::new(0)),
                empty: AtomicUsize::new(0),
                stock: zero(),
                stock_target: zero(),
                prepared: zero(),
                given_back: zero(),
                bridged: zero(),
                collapsed: zero(),
                warmer_starts: zero(),
                run_slots: zero(),
                spans: from_fn(|_| zero()),
            }
        }
    }

    #[expect(missing_docs, reason = "the module says it")]
    impl HeapBoard {
        pub fn new() -> Self {
            Self {
                counters: Counters::default(),
                thread: zero(),
                span_bytes: Count::default(),
                kept: Count::default(),
                allowed: Count::default(),
                classes: from_fn(|_| ClassCounters::default()),
            }
        }
    }
}

/// A board that can be read.
#[derive(Clone, Copy, Debug)]
pub struct Board<'a> {
    /// The numbers of the whole heap.
    pub(crate) header: &'a Header,
    /// All nodes.
    pub(crate) nodes: &'a [NodeBoard],
    /// The heaps that were ever made.
    pub(crate) heaps: &'a [HeapBoard],
    /// The first ring, and the number of rings of the pool and the heaps made.
    rings: (*const Ring, usize),
}

/// The reason why memory cannot be read as a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The memory does not begin like a board.
    NotABoard,
    /// The writer of the board was built from other source, with this version (padded with zeros).
    OtherVersion([u8; VERSION_BYTES]),
    /// The board says that it has more than is there, or than a board ever has.
    TooShort,
}

impl core::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotABoard => f.write_str("no statistics of theap"),
            Self::TooShort => f.write_str("statistics of theap that are cut off"),
            Self::OtherVersion(version) => {
                let len = version.iter().take_while(|b| b.is_ascii_graphic()).count();
                let version = core::str::from_utf8(&version[..len]).unwrap_or("");
                write!(
                    f,
                    "statistics of another build of theap (version {version}; this one is {VERSION})"
                )
            }
        }
    }
}

impl core::error::Error for Unreadable {}

/// The place in each ring up to which a reader has read the events.
#[derive(Clone, Debug)]
pub struct EventReader {
    seen: [u64; MAX_RINGS],
}

impl Default for EventReader {
    /// A reader that begins with the oldest events that are still there.
    fn default() -> Self {
        Self {
            seen: [0; MAX_RINGS],
        }
    }
}

impl EventReader {
    /// Leaves out all events that were recorded before now.
    pub fn skip_past(&mut self, board: &Board<'_>) {
        for source in 0..board.rings.1.min(MAX_RINGS) {
            self.seen[source] = board.ring(source).head();
        }
    }
}

/// The names and the places of a struct's fields.
macro_rules! places {
    ($of:ident: $($field:ident)+) => {
        [$((stringify!($field), core::mem::offset_of!($of, $field))),+]
    };
}

const HEADER: [(&str, usize); 16] = places!(Header: magic layout version nodes heaps max_heaps rings
    tracing address_space outside refusals outside_runs metadata counts first metadata_first);
const NODE: [(&str, usize); 12] = places!(NodeBoard: kernel_node mapped empty stock stock_target
    prepared given_back bridged collapsed warmer_starts run_slots spans);
const HEAP: [(&str, usize); 6] =
    places!(HeapBoard: counters thread span_bytes kept allowed classes);
const CLASS: [(&str, usize); 4] = places!(ClassCounters: refilled_blocks drained_blocks learned_blocks
    cached_blocks);

const fn mix_places(mut hash: u64, places: &[(&str, usize)]) -> u64 {
    let mut i = 0;
    while i < places.len() {
        hash = mix(hash, places[i].0.as_bytes());
        hash = mix(hash, &places[i].1.to_le_bytes());
        i += 1;
    }
    hash
}

/// A number that identifies the layout and the meaning of a board: FNV-1a over every name and size.
const LAYOUT: u64 = {
    let mut hash = mix(0xcbf2_9ce4_8422_2325, VERSION.as_bytes());
    let mut i = 0;
    while i < COUNTERS.len() {
        hash = mix(hash, COUNTERS[i].0.as_bytes());
        i += 1;
    }
    i = 0;
    while i < CLASS_COUNT {
        hash = mix(hash, &CLASSES[i].size.to_le_bytes());
        hash = mix(hash, &[CLASSES[i].slots]);
        i += 1;
    }
    i = 0;
    while i < EventKind::ALL.len() {
        hash = mix(hash, EventKind::ALL[i].name().as_bytes());
        i += 1;
    }
    let sizes = [
        RING_BYTES,
        size_of::<Header>(),
        size_of::<NodeBoard>(),
        size_of::<HeapBoard>(),
    ];
    i = 0;
    while i < sizes.len() {
        hash = mix(hash, &sizes[i].to_le_bytes());
        i += 1;
    }
    hash = mix_places(hash, &HEADER);
    hash = mix_places(hash, &NODE);
    hash = mix_places(hash, &HEAP);
    mix_places(hash, &CLASS)
};

const fn mix(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x100_0000_01b3);
        i += 1;
    }
    hash
}

impl NodeBoard {
    /// The number of spans of a class now.
    pub fn spans_of(&self, class: ClassId) -> &AtomicU64 {
        &self.spans[class.index()]
    }
}

impl HeapBoard {
    /// The heap's numbers for a class.
    pub fn class(&self, class: ClassId) -> &ClassCounters {
        &self.classes[class.index()]
    }
}

impl Header {
    /// A header of zeros that lives for ever.
    #[cfg(test)]
    pub fn leaked() -> &'static Self {
        // SAFETY: zero is valid.
        std::boxed::Box::leak(unsafe { std::boxed::Box::new_zeroed().assume_init() })
    }

    /// Notes that one more heap was made, `made` in all, after its place on the board is there.
    pub fn heap_made(&self, made: u32) {
        self.heaps.store(u64::from(made), Ordering::Release);
    }

    /// Fills in the numbers that do not change, of them the addresses of the metadata and of the
    /// range behind them. From then on the board can be read.
    pub fn open(&self, [nodes, max_heaps, rings]: [usize; 3], memory: Extent) {
        for (word, bytes) in self.version.iter().zip(VERSION.as_bytes().chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        self.nodes.store(nodes as u64, Ordering::Relaxed);
        self.max_heaps.store(max_heaps as u64, Ordering::Relaxed);
        self.rings.store(rings as u64, Ordering::Relaxed);
        let Extent {
            metadata,
            blocks,
            len,
        } = memory;
        self.metadata_first
            .store(metadata as u64, Ordering::Relaxed);
        self.first.store(blocks as u64, Ordering::Relaxed);
        self.address_space.store(len as u64, Ordering::Relaxed);
        self.counts
            .store(u64::from(cfg!(feature = "stats")), Ordering::Relaxed);
        self.layout.store(LAYOUT, Ordering::Relaxed);
        self.magic.store(MAGIC, Ordering::Release);
    }
}

impl<'a> Board<'a> {
    /// The board at an address: this process's, or one that another process publishes.
    ///
    /// # Errors
    /// The reason why the memory cannot be read as a board.
    ///
    /// # Safety
    /// `start` is page-aligned, and the `len` bytes from there can be read during `'a`; if anybody
    /// writes them meanwhile, then by atomic stores only.
    pub unsafe fn at(start: *const u8, len: usize) -> Result<Self, Unreadable> {
        if len < size_of::<Header>() {
            return Err(Unreadable::TooShort);
        }
        // SAFETY: `len` bytes can be read, as the caller promised, and a header fits them; it is
        // made of atomics, for which any bits are valid.
        let header = unsafe { &*start.cast::<Header>() };
        if header.magic.load(Ordering::Acquire) != MAGIC {
            return Err(Unreadable::NotABoard);
        }
        if header.layout.load(Ordering::Relaxed) != LAYOUT {
            let mut version = [0; VERSION_BYTES];
            for (bytes, word) in version.chunks_mut(8).zip(&header.version) {
                bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
            }
            return Err(Unreadable::OtherVersion(version));
        }
        let number = |word: &AtomicU64| word.load(Ordering::Acquire).min(len as u64) as usize;
        let nodes = number(&header.nodes);
        let (heaps, max_heaps) = (number(&header.heaps), number(&header.max_heaps));
        let rings = number(&header.rings);
        if nodes > MAX_NODES
            || heaps > max_heaps
            || max_heaps > MAX_HEAPS.min(len / size_of::<HeapBoard>())
            || rings > MAX_RINGS.min(len / RING_BYTES)
        {
            return Err(Unreadable::TooShort);
        }
        let places = Places::new(nodes, max_heaps, rings);
        if places.len > len {
            return Err(Unreadable::TooShort);
        }
        // SAFETY: both slices lie within the `len` bytes that the caller promised, since
        // `places.len` is no more; they are aligned, as `start` is to a page and `Places` keeps
        // their alignment; any bits are valid.
        unsafe {
            let nodes_at = start.add(size_of::<Header>()).cast();
            let heaps_at = start.add(places.heaps).cast();
            Ok(Self {
                header,
                nodes: core::slice::from_raw_parts(nodes_at, nodes),
                heaps: core::slice::from_raw_parts(heaps_at, heaps),
                rings: (start.add(places.rings).cast(), rings.min(heaps + 1)),
            })
        }
    }

    /// The ring of the pool (0) or of a heap (its number plus one).
    fn ring(&self, index: usize) -> &'a Ring {
        assert!(index < self.rings.1);
        // SAFETY: `at` found this many rings within the bytes that can be read, RING_BYTES apart.
        unsafe { &*self.rings.0.byte_add(index * RING_BYTES) }
    }

    /// Makes the process record events until this time, in ns of CLOCK_MONOTONIC; 0 ends the
    /// recording.
    ///
    /// # Safety
    /// The memory of the board can be written.
    pub unsafe fn trace_until(&self, time: u64) {
        self.header.tracing.store(time, Ordering::Relaxed);
    }

    /// Gives `each` the events that were recorded since `reader` last looked. Returns the number of
    /// events that were overwritten before they were read.
    pub fn events(&self, reader: &mut EventReader, mut each: impl FnMut(Event)) -> u64 {
        let rings = self.rings.1.min(reader.seen.len());
        (0..rings)
            .map(|source| {
                self.ring(source).read(&mut reader.seen[source], |record| {
                    if let Some(event) = Event::decode(source, record) {
                        each(event);
                    }
                })
            })
            .fold(0, u64::saturating_add)
    }

    /// Whether the heaps count.
    pub(crate) fn counts(&self) -> bool {
        self.header.counts.load(Ordering::Relaxed) != 0
    }

    /// The addresses of the heap, but for those of runs outside of the range.
    pub(crate) fn extent(&self) -> Extent {
        let address = |word: &AtomicU64| word.load(Ordering::Relaxed) as usize;
        Extent {
            metadata: address(&self.header.metadata_first),
            blocks: address(&self.header.first),
            len: address(&self.header.address_space),
        }
    }

    /// The figures of the heap as they are now.
    pub fn stats(&self) -> super::Stats {
        let mut stats = super::Stats::default();
        stats.fill(self);
        stats
    }
}
