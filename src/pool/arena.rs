//! The address range and where everything about an address is found.
//!
//! ```text
//!  address - base:   | node part | SuperSlab (2 MiB)        | slot (64 KiB) | offset |
//!                      >> part     >> 21                      >> 16
//! ```
//!
//! One reservation holds the blocks; a second one the metadata: dense tables (a byte or a word for each slot or
//! SuperSlab), the board with all numbers, then the heaps, then a [`SuperMeta`] for each SuperSlab. The dense tables
//! and the board's beginning are accessible from the start and take memory where they are touched; the rest is committed as heaps and SuperSlabs come to be. The arena
//! itself lies at the front of the metadata, so that nothing is needed before it.

use super::avail::{Avail, Bitmap, LEVELS};
use super::board::{BOARDS_AT_ONCE, RANK_EVENTS};
use super::budget::{Budget, SHARE};
use super::claims::Claims;
use super::heaps::HeapIds;
use super::meta::SuperMeta;
use super::node::Node;
use super::stash::Stash;
use super::superslab::SlotWord;
use super::{SLOT, SUPER};
use crate::classes::CLASS_COUNT;
use crate::config::{Config, Numa, Pages};
use crate::fatal::{self, Saying};
use crate::gate::Gate;
use crate::stats::board::{Header, HeapBoard, MAX_HEAPS, MAX_RINGS, Places};
use crate::stats::ring::Ring;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use core::sync::atomic::{AtomicBool, AtomicU8};
use theap_platform::{Error, HUGE, HUGE_1G, Mutex, Os, PAGE, Rank, Shared, Topology};

/// Rank of the lock on heap ids; first of all.
pub(super) const RANK_HEAPS: u8 = 1;
/// A range is never smaller, nor does the reservation go below it.
const LEAST: usize = 64 << 20;

/// Everything a process (or a test) allocates from. Lives at the front of its own metadata and is never moved.
pub struct Arena {
    /// The operating system.
    pub os: Os,
    /// Options, environment included.
    pub config: Config,
    /// Which front serves which class.
    pub gate: Gate,
    /// Whether magazines' capacities may change.
    learns: AtomicBool,
    /// What they and heaps' spans may take.
    pub budget: Budget,
    /// What the classic front's links are XORed with.
    pub secret: usize,
    base: usize,
    len: usize,
    part_shift: u32,
    pub(super) node_count: usize,
    nodes: *const Node,
    kinds: *const AtomicU8,
    heads: *const AtomicU8,
    words: *const SlotWord,
    pub(super) metas: *const SuperMeta,
    /// What was done for each 2 MiB of `metas`; see `commit_metas`.
    pub(super) meta_states: *const AtomicU8,
    stashes: *const Stash,
    pub(super) cpus: usize,
    pub(super) topology: Topology,
    /// For each CPU that the topology does not know: its node plus one once a thread was found on it, or 0.
    pub(super) learned: *const AtomicU8,
    pub(super) heaps: Mutex<HeapIds>,
    pub(super) heap_links: *const AtomicU32,
    pub(super) heap_memory: usize,
    pub(super) heap_bytes: usize,
    pub(super) max_heaps: usize,
    pub(super) board: *const Header,
    pub(super) board_len: usize,
    pub(super) heap_boards: *const HeapBoard,
    /// The file that the board is, if it is published.
    pub(super) published: Shared,
    /// The first ring, and their number: 0 if the board is not published.
    pub(super) rings: usize,
    pub(super) ring_count: usize,
    /// The pool's ring, if it was opened (there may be none): who holds the lock may write it.
    pub(super) events: Mutex<Option<Option<&'static Ring>>>,
    /// Which messages were given: each once a process.
    said: AtomicU32,
    /// Forks so far.
    pub(super) forks: AtomicU32,
    /// This process was forked from the one that made the arena.
    child: AtomicBool,
    /// The system must not be asked for anything.
    sealed: AtomicBool,
}

// SAFETY: the pointers lead to tables of atomics, to metadata whose every field says who may touch it, and to nodes,
// which are immutable but for their atomics and locks.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

/// Carves tables out of the metadata.
struct Carver {
    at: usize,
}

impl Carver {
    fn take(&mut self, bytes: usize, align: usize) -> usize {
        let at = self.at.next_multiple_of(align);
        self.at = at + bytes;
        at
    }
}

/// Offsets of the tables in the metadata of a range of `len` bytes.
struct Layout {
    nodes: usize,
    stashes: usize,
    learned: usize,
    kinds: usize,
    heads: usize,
    modes: usize,
    words: usize,
    bitmaps: usize,
    heap_links: usize,
    /// First, with the part that is committed with the dense tables at its front.
    board: usize,
    heap_boards: usize,
    rings: usize,
    ring_count: usize,
    board_len: usize,
    dense: usize,
    heaps: usize,
    max_heaps: usize,
    metas: usize,
    meta_states: usize,
    total: usize,
}

impl Layout {
    fn new(len: usize, nodes: usize, cpus: usize, heap_bytes: usize, publish: bool) -> Self {
        let node_count = nodes;
        let (slots, supers) = (len / SLOT, len / SUPER);
        let max_heaps = supers.clamp(256, MAX_HEAPS);
        let mut carver = Carver { at: 0 };
        carver.take(size_of::<Arena>(), 64);
        let nodes = carver.take(nodes * size_of::<Node>(), 64);
        let stashes = carver.take(cpus * CLASS_COUNT * size_of::<Stash>(), 64);
        let learned = carver.take(cpus, 64);
        let modes = carver.take(supers, 64);
        let heap_links = carver.take(max_heaps * 4, 64);
        let metas_len = (supers * size_of::<SuperMeta>()).next_multiple_of(HUGE);
        let meta_states = carver.take(metas_len / HUGE, 64);
        let bitmaps = carver.take(LEVELS * Self::bitmap_words(supers) * 8, 64);
        let words = carver.take(supers * 8, PAGE);
        let kinds = carver.take(slots, PAGE);
        let heads = carver.take(slots, PAGE);
        let ring_count = if publish {
            MAX_RINGS.min(max_heaps + 1)
        } else {
            0
        };
        let places = Places::new(node_count, max_heaps, ring_count);
        let board = carver.take(places.len, PAGE);
        let heap_boards = board + places.heaps;
        let rings = board + places.rings;
        let dense = heap_boards + BOARDS_AT_ONCE.min(max_heaps) * size_of::<HeapBoard>();
        let heaps = carver.take(max_heaps * heap_bytes, PAGE);
        let metas = carver.take(metas_len, HUGE);
        let total = carver.take(0, PAGE);
        Self {
            nodes,
            stashes,
            learned,
            kinds,
            heads,
            modes,
            words,
            bitmaps,
            heap_links,
            board,
            heap_boards,
            rings,
            ring_count,
            board_len: places.len,
            dense,
            heaps,
            max_heaps,
            metas,
            meta_states,
            total,
        }
    }

    /// Words of one level's bitmap and summary for all nodes. A part is at least 64 SuperSlabs' share rounded up.
    fn bitmap_words(supers: usize) -> usize {
        let words = supers.div_ceil(64) + 64;
        words + words.div_ceil(64) + 64
    }
}

impl Arena {
    /// Reserves a range and its metadata. `heap_bytes` (a multiple of the page) is what a heap's memory takes.
    ///
    /// # Errors
    /// What the system answered when it refused even the smallest range.
    pub fn create(os: Os, mut config: Config, heap_bytes: usize) -> Result<&'static Arena, Error> {
        let topology = os.topology();
        let node_count = match config.numa {
            Numa::Local if cfg!(feature = "numa") => topology.nodes(),
            _ => 1,
        };
        let wanted = match config.address_space {
            0 => (os.total_memory() as usize)
                .saturating_mul(4)
                .clamp(64 << 30, 1 << 45),
            bytes => bytes.clamp(LEAST, 1 << 46),
        };
        let mut len = wanted.next_power_of_two();
        loop {
            let cpus = topology.cpus().max(1);
            let layout = Layout::new(len, node_count, cpus, heap_bytes, config.publish);
            let align = match config.pages {
                Pages::Hugetlb1g => HUGE_1G,
                _ => SUPER,
            };
            let reserved = Self::reserve(os, len, align, layout.total);
            let may_publish = reserved.is_ok();
            let made = reserved.and_then(|(base, meta)| {
                let topology = topology.clone();
                // SAFETY: `meta` is a fresh reservation of `layout.total` bytes.
                unsafe {
                    Self::lay_out(
                        os, config, topology, node_count, base, len, meta, &layout, heap_bytes,
                    )
                }
            });
            match made {
                Ok(arena) => return Ok(arena),
                // A heap that nobody can look at is better than none.
                Err(_) if may_publish && config.publish => config.publish = false,
                Err(_) if len > LEAST => len /= 2,
                Err(error) => return Err(error),
            }
        }
    }

    fn reserve(os: Os, len: usize, align: usize, meta_len: usize) -> Result<(usize, usize), Error> {
        let base = os.reserve(len, align)?;
        os.reserve(meta_len, HUGE)
            .map(|meta| (base, meta))
            .inspect_err(|_| {
                // SAFETY: reserved above, not used yet.
                unsafe { os.unreserve(base, len) };
            })
    }

    /// # Safety
    /// `meta` is a reservation of `layout.total` bytes that nobody uses yet.
    #[expect(clippy::too_many_arguments, reason = "the second half of `create`")]
    unsafe fn lay_out(
        os: Os,
        config: Config,
        topology: Topology,
        node_count: usize,
        base: usize,
        len: usize,
        meta: usize,
        layout: &Layout,
        heap_bytes: usize,
    ) -> Result<&'static Arena, Error> {
        // SAFETY: both are parts of the reservation, the dense one its front.
        let prepared = unsafe {
            super::board::publish(os, &config, meta + layout.board, layout.board_len)
                .and_then(|published| os.commit(meta, layout.dense).map(|()| published))
        };
        let published = match prepared {
            Ok(published) => published,
            Err(error) => {
                // SAFETY: nothing refers to the two reservations yet. One that may be somebody else's in part stays.
                unsafe {
                    if error != Error::Lost {
                        os.unreserve(meta, layout.total);
                    }
                    os.unreserve(base, len);
                }
                return Err(error);
            }
        };
        let part_shift = (len / node_count.next_power_of_two()).trailing_zeros();
        let cpus = topology.cpus().max(1);
        let arena = Arena {
            os,
            config,
            gate: Gate::new(config.front, config.classes),
            learns: AtomicBool::new(config.learn),
            budget: Budget::new(match config.budget {
                0 => os.total_memory().min(len as u64) as usize / SHARE,
                bytes => bytes,
            }),
            secret: os.random() as usize,
            base,
            len,
            part_shift,
            node_count,
            nodes: (meta + layout.nodes) as *const Node,
            kinds: (meta + layout.kinds) as *const AtomicU8,
            heads: (meta + layout.heads) as *const AtomicU8,
            words: (meta + layout.words) as *const SlotWord,
            metas: (meta + layout.metas) as *const SuperMeta,
            meta_states: (meta + layout.meta_states) as *const AtomicU8,
            stashes: (meta + layout.stashes) as *const Stash,
            cpus,
            topology,
            learned: (meta + layout.learned) as *const AtomicU8,
            heaps: Mutex::new(Rank(RANK_HEAPS), HeapIds::default()),
            heap_links: (meta + layout.heap_links) as *const AtomicU32,
            heap_memory: meta + layout.heaps,
            heap_bytes,
            max_heaps: layout.max_heaps,
            board: (meta + layout.board) as *const Header,
            board_len: layout.board_len,
            heap_boards: (meta + layout.heap_boards) as *const HeapBoard,
            ring_count: if published.is_some() {
                layout.ring_count
            } else {
                0
            },
            rings: meta + layout.rings,
            published,
            events: Mutex::new(Rank(RANK_EVENTS), None),
            said: AtomicU32::new(0),
            forks: AtomicU32::new(0),
            child: AtomicBool::new(false),
            sealed: AtomicBool::new(false),
        };
        arena.lock_memory(meta, layout.dense);
        let place = meta as *mut Arena;
        // SAFETY: the arena's place is the first thing in the dense part, and nobody else knows of it.
        let arena = unsafe {
            place.write(arena);
            &*place
        };
        let supers = (1 << part_shift) / SUPER;
        let mut bitmaps = Carver {
            at: meta + layout.bitmaps,
        };
        for index in 0..node_count {
            let modes = (meta + layout.modes + index * supers) as *const AtomicU8;
            // SAFETY: the table has a byte for each SuperSlab of each node, is zero, and lives with the arena.
            let modes = unsafe { core::slice::from_raw_parts(modes, supers) };
            let node = Node::new(
                arena,
                index,
                Claims::new(modes),
                Self::carve_avail(&mut bitmaps, supers),
            );
            // SAFETY: `nodes` has room for `node_count` nodes and is not read yet.
            unsafe { arena.nodes.cast_mut().add(index).write(node) };
        }
        arena.open_board();
        Ok(arena)
    }

    fn carve_avail(carver: &mut Carver, supers: usize) -> Avail<'static> {
        let mut words = |count: usize| {
            let at = carver.take(count * 8, 8) as *const AtomicU64;
            // SAFETY: the bitmaps' share of the dense part was sized for this, is zero, and lives with the arena.
            unsafe { core::slice::from_raw_parts(at, count) }
        };
        let count = supers.div_ceil(64);
        Avail {
            levels: core::array::from_fn(|_| Bitmap {
                words: words(count),
                summary: words(count.div_ceil(64)),
            }),
        }
    }

    /// Gives everything back to the system.
    ///
    /// # Safety
    /// Nobody uses the arena, a heap of it or a block of it any more.
    #[cfg(test)]
    pub unsafe fn destroy(&'static self) {
        let (os, base, len) = (self.os, self.base, self.len);
        let meta = core::ptr::from_ref(self) as usize;
        let meta_len = Layout::new(
            len,
            self.node_count,
            self.cpus,
            self.heap_bytes,
            self.config.publish,
        )
        .total;
        // SAFETY: the two reservations of `create`; the caller vouches that nothing refers to them.
        unsafe {
            os.unreserve(base, len);
            os.unreserve(meta, meta_len);
        }
    }

    /// The first address, and the bytes of the range.
    pub fn range(&self) -> (usize, usize) {
        (self.base, self.len)
    }

    /// Whether the address lies in the range.
    #[inline]
    pub fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.base) < self.len
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.node_count
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        // SAFETY: `create` wrote `node_count` nodes before it gave the arena away.
        unsafe { core::slice::from_raw_parts(self.nodes, self.node_count) }
    }

    /// The node whose part of the range the slot is in.
    pub fn node_of_slot(&self, slot: usize) -> usize {
        (slot * SLOT) >> self.part_shift
    }

    /// First address and bytes of a node's part.
    pub fn part(&self, node: usize) -> (usize, usize) {
        (self.base + (node << self.part_shift), 1 << self.part_shift)
    }

    /// The slot of an address in the range.
    #[inline]
    pub fn slot_of(&self, address: usize) -> usize {
        (address - self.base) / SLOT
    }

    /// The first address of a slot.
    #[inline]
    pub fn address_of(&self, slot: usize) -> usize {
        self.base + slot * SLOT
    }

    /// The class byte of a slot.
    #[inline]
    pub fn kind(&self, slot: usize) -> &AtomicU8 {
        debug_assert!(slot < self.len / SLOT);
        // SAFETY: the table has a byte for each slot of the range.
        unsafe { &*self.kinds.add(slot) }
    }

    /// Distance of a slot to its span's first one, at most 255.
    #[inline]
    pub fn head(&self, slot: usize) -> &AtomicU8 {
        debug_assert!(slot < self.len / SLOT);
        // SAFETY: the table has a byte for each slot of the range.
        unsafe { &*self.heads.add(slot) }
    }

    /// The states of a SuperSlab's slots.
    #[inline]
    pub fn word(&self, super_index: usize) -> &SlotWord {
        debug_assert!(super_index < self.len / SUPER);
        // SAFETY: the table has a word for each SuperSlab of the range.
        unsafe { &*self.words.add(super_index) }
    }

    /// Locks memory that was committed or mapped just now, if the options say so. A refusal costs the guarantee only,
    /// and is reported once.
    pub fn lock_memory(&self, address: usize, len: usize) {
        if self.config.lock
            // SAFETY: the caller's memory, committed or mapped.
            && let Err(error) = unsafe { self.os.lock(address, len) }
            && self.first_to_say(Saying::Unlocked)
        {
            fatal::not_locked(self.os, len, error);
        }
    }

    /// The class bytes of all slots from a node's first one.
    pub fn kinds_of_node(&self, node: usize) -> *const AtomicU8 {
        // SAFETY: a node's part lies in the range.
        unsafe { self.kinds.add((node << self.part_shift) / SLOT) }
    }

    /// The stash of a class on a CPU; CPUs beyond those possible at start share.
    pub fn stash(&self, cpu: usize, class: usize) -> &Stash {
        // SAFETY: the table has CLASS_COUNT stashes for each of `cpus` CPUs.
        unsafe { &*self.stashes.add((cpu % self.cpus) * CLASS_COUNT + class) }
    }

    /// Number of CPUs that have stashes.
    pub fn cpus(&self) -> usize {
        self.cpus
    }

    /// True for the first caller of a process that has this to say, if messages are on.
    pub fn first_to_say(&self, what: Saying) -> bool {
        let bit = 1 << what as u32;
        self.config.messages
            && !self.is_sealed()
            && self.said.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Notes that this is a forked child. The caller holds all locks.
    pub fn set_child(&self) {
        self.child.store(true, Ordering::Relaxed);
        self.nodes().iter().for_each(Node::forget_warmer);
    }

    /// Whether this is a forked child.
    pub fn is_child(&self) -> bool {
        self.child.load(Ordering::Relaxed)
    }

    /// Forbids or allows asking the system for anything.
    pub fn set_sealed(&self, on: bool) {
        if on {
            self.nodes().iter().for_each(Node::park_warmer);
        }
        self.sealed.store(on, Ordering::SeqCst);
        theap_platform::spin_only(on);
        if !on {
            self.nodes().iter().for_each(Node::unpark_warmer);
        }
    }

    /// Lets magazines' capacities change, or freezes them.
    pub fn set_learning(&self, on: bool) {
        self.learns.store(on, Ordering::Relaxed);
    }

    /// Whether magazines' capacities may change. Those of a sealed heap may not: it takes no memory.
    pub fn learns(&self) -> bool {
        self.learns.load(Ordering::Relaxed) && !self.is_sealed()
    }

    /// After how many nanoseconds without need memory is given back, and what was learned is forgotten.
    pub fn decay(&self) -> u64 {
        self.config.decay.saturating_mul(1_000_000)
    }

    /// Whether what would need the system must be refused.
    #[inline]
    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Relaxed)
    }

    /// As `is_sealed`, counting a refusal.
    pub fn refuses(&self) -> bool {
        let sealed = self.is_sealed();
        if sealed {
            self.header().refusals.fetch_add(1, Ordering::Relaxed);
        }
        sealed
    }

    /// Takes every lock, before fork.
    pub fn lock_all(&self) {
        self.nodes().iter().for_each(Node::lock_warmer);
        core::mem::forget(self.heaps.lock());
        for node in self.nodes() {
            node.lock_all();
        }
        self.events.lock_for_fork();
    }

    /// Frees the locks that `lock_all` took, in the parent or in the child.
    ///
    /// # Safety
    /// This thread (or in a child, the thread that forked) called `lock_all` before.
    pub unsafe fn unlock_all(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.events.force_unlock() };
        for node in self.nodes() {
            // SAFETY: the caller's promise.
            unsafe { node.unlock_all() };
        }
        // SAFETY: the caller's promise.
        unsafe { self.heaps.force_unlock() };
        // SAFETY: the caller's promise.
        self.nodes()
            .iter()
            .for_each(|node| unsafe { node.unlock_warmer() });
    }
}
