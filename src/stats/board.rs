//! The board: where all numbers lie that [`Stats`](super::Stats) is made of, laid out so that another process can read
//! them while they are written.
//!
//! ```text
//! | Header (a page) | NodeBoard of each node | HeapBoard of each heap | Ring of the pool and of each heap |
//! ```
//!
//! The rings are there only if the board is published, and only for the first heaps.
//!
//! The board is a part of the arena's metadata. With the option `publish` that part is a file in memory (memfd) which
//! whoever may look into the process finds in `/proc/PID/fd`; the writers do exactly the same in both cases. Nothing
//! but atomics lies here, and nothing that the allocator decides by is read from here but the two words it owns alone:
//! a node's warm slots and mapped SuperSlabs.
//!
//! Who may write: a `HeapBoard` its heap's thread; a `NodeBoard` any thread, by read-modify-write; the header the
//! holder of the lock on heap ids, but for `refusals`.
//!
//! A reader trusts nothing: [`Board::at`] checks every length against the bytes that are there
//! (and the most that an arena has: reading a hole of a file in memory takes a page), any bits are valid
//! numbers, and sums wrap. The layout is told by a number that is computed from all names and sizes, so that a reader
//! built from other source does not misread but refuses.

use super::events::{Event, EventKind};
use super::ring::Ring;
use super::{COUNTERS, Count, Counters};
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use theap_platform::{MAX_NODES, PAGE, PageMode};

/// "theap" in the first bytes of a board.
const MAGIC: u64 = u64::from_le_bytes(*b"theap\0\0\x01");
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Heaps that an arena ever has places for.
pub const MAX_HEAPS: usize = 65536;
/// Rings of a published board: the pool's, and those of the first heaps.
pub const MAX_RINGS: usize = 1024;
/// Bytes from one ring to the next.
pub const RING_BYTES: usize = size_of::<Ring>().next_multiple_of(PAGE);
/// Bytes of the version that a board shows.
const VERSION_BYTES: usize = 16;

/// What concerns the whole heap.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Header {
    /// Written last.
    magic: AtomicU64,
    layout: AtomicU64,
    version: [AtomicU64; VERSION_BYTES / 8],
    nodes: AtomicU64,
    /// Heaps ever made; moved by `heap_made`.
    pub heaps: AtomicU64,
    /// Heaps that there are places for.
    max_heaps: AtomicU64,
    rings: AtomicU64,
    /// Until when events are recorded; written by observers.
    pub tracing: AtomicU64,
    /// Bytes reserved for blocks.
    pub address_space: AtomicU64,
    /// What a sealed heap refused.
    pub refusals: AtomicU64,
}

/// A node's numbers.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct NodeBoard {
    /// The kernel's number of the node.
    pub kernel_node: AtomicU64,
    /// SuperSlabs mapped now, by `PageMode`.
    pub mapped: [AtomicUsize; PageMode::COUNT],
    /// EMPTY slots now.
    pub empty: AtomicUsize,
    /// Bytes of free SuperSlabs whose pages are there, when the warmer looked last.
    pub stock: AtomicU64,
    /// What it wanted that to be.
    pub stock_target: AtomicU64,
    /// Bytes that warmers prepared.
    pub prepared: AtomicU64,
    /// Bytes that warmers gave back.
    pub given_back: AtomicU64,
    /// Bytes for which warmers got hugepages instead of small ones.
    pub collapsed: AtomicU64,
    /// Warmer threads started.
    pub warmer_starts: AtomicU64,
    /// Slots of runs now.
    pub run_slots: AtomicU64,
    /// Spans of each class now.
    pub spans: [AtomicU64; CLASS_COUNT],
}

/// A heap's numbers for one class.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ClassCounters {
    /// Blocks moved from spans to magazines.
    pub refilled_blocks: Count,
    /// Blocks moved from magazines to spans.
    pub drained_blocks: Count,
    /// Blocks that the magazine may hold now beyond its fixed capacity.
    pub learned_blocks: Count,
}

/// A heap's numbers. Aligned so that sixteen take whole pages.
#[derive(Debug)]
#[repr(C, align(256))]
pub struct HeapBoard {
    /// Counted by the heap's thread.
    pub counters: Counters,
    /// As above, by class.
    pub classes: [ClassCounters; CLASS_COUNT],
}

/// Where the parts of a board lie, from its first byte.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The first heap's.
    pub heaps: usize,
    /// The pool's ring, and behind it the heaps'.
    pub rings: usize,
    /// Bytes of the whole.
    pub len: usize,
}

impl Places {
    /// For this many nodes, heaps and rings.
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

/// Boards of zeros, which in the product are just memory.
#[cfg(loom)]
mod zeros {
    use super::*;
    use core::array::from_fn;

    fn zero() -> AtomicU64 {
        AtomicU64::new(0)
    }

    #[expect(missing_docs, reason = "told above")]
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
                refusals: zero(),
            }
        }
    }

    #[expect(missing_docs, reason = "told above")]
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
                collapsed: zero(),
                warmer_starts: zero(),
                run_slots: zero(),
                spans: from_fn(|_| zero()),
            }
        }
    }

    #[expect(missing_docs, reason = "told above")]
    impl HeapBoard {
        pub fn new() -> Self {
            Self {
                counters: Counters::default(),
                classes: from_fn(|_| ClassCounters::default()),
            }
        }
    }
}

/// A look at a board.
#[derive(Clone, Copy, Debug)]
pub struct Board<'a> {
    /// What concerns the whole heap.
    pub(crate) header: &'a Header,
    /// All nodes.
    pub(crate) nodes: &'a [NodeBoard],
    /// The heaps that were ever made.
    pub(crate) heaps: &'a [HeapBoard],
    /// The first ring, and the number of rings of the pool and the heaps made.
    rings: (*const Ring, usize),
}

/// Why memory is no board that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It does not begin like one.
    NotABoard,
    /// Its writer was built from other source, with this version (zero-padded).
    OtherVersion([u8; VERSION_BYTES]),
    /// It says that it has more than is there, or than a board ever has.
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

/// How far a reader of events has come, in each ring.
#[derive(Clone, Debug)]
pub struct EventReader {
    seen: [u64; MAX_RINGS],
}

impl Default for EventReader {
    /// From the oldest events that are still there.
    fn default() -> Self {
        Self {
            seen: [0; MAX_RINGS],
        }
    }
}

impl EventReader {
    /// Forgets what was recorded before now.
    pub fn skip_past(&mut self, board: &Board<'_>) {
        for source in 0..board.rings.1.min(MAX_RINGS) {
            self.seen[source] = board.ring(source).head();
        }
    }
}

/// A number for the layout and the meaning of a board: FNV-1a over every name and size.
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
    hash
};

const fn mix(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x100_0000_01b3);
        i += 1;
    }
    hash
}

impl Header {
    /// A heap more was made, and its place on the board is there: `made` in all.
    pub fn heap_made(&self, made: u32) {
        self.heaps.store(u64::from(made), Ordering::Release);
    }

    /// Fills in what does not change; from here on the board can be read.
    pub fn open(&self, [nodes, max_heaps, rings]: [usize; 3], address_space: usize) {
        for (word, bytes) in self.version.iter().zip(VERSION.as_bytes().chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        self.nodes.store(nodes as u64, Ordering::Relaxed);
        self.max_heaps.store(max_heaps as u64, Ordering::Relaxed);
        self.rings.store(rings as u64, Ordering::Relaxed);
        self.address_space
            .store(address_space as u64, Ordering::Relaxed);
        self.layout.store(LAYOUT, Ordering::Relaxed);
        self.magic.store(MAGIC, Ordering::Release);
    }
}

impl<'a> Board<'a> {
    /// The board at an address: this process's, or one that another process publishes.
    ///
    /// # Errors
    /// Why it cannot be read.
    ///
    /// # Safety
    /// `len` bytes from `start`, which is page-aligned, can be read during `'a`, and are written, if at all, by atomic
    /// stores only.
    pub unsafe fn at(start: *const u8, len: usize) -> Result<Self, Unreadable> {
        if len < size_of::<Header>() {
            return Err(Unreadable::TooShort);
        }
        // SAFETY: the caller's promise; a header is atomics, for which any bits are valid.
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
        // SAFETY: both lie within `len`, as was checked; alignment follows from the page's.
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

    fn ring(&self, index: usize) -> &'a Ring {
        assert!(index < self.rings.1);
        // SAFETY: `at` found this many rings within the bytes that can be read, RING_BYTES apart.
        unsafe { &*self.rings.0.byte_add(index * RING_BYTES) }
    }

    /// Records events until this time, in ns of CLOCK_MONOTONIC; 0 ends it.
    ///
    /// # Safety
    /// The board can be written.
    pub unsafe fn trace_until(&self, time: u64) {
        self.header.tracing.store(time, Ordering::Relaxed);
    }

    /// Gives `each` what happened since `reader` last looked. How many events were overwritten before they were read.
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

    /// What the heap holds and has done, as of now.
    pub fn stats(&self) -> super::Stats {
        super::Stats::read(self)
    }
}
