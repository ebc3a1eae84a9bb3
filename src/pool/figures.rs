//! The figures of a heap: the place of the [board](crate::stats::board) in the metadata, its
//! publication, and the ring in which the pool records its events.
#![allow(unsafe_code)] // The board is found by address.

use super::policy::Policy;
use crate::config::Config;
use crate::geometry::NodeIndex;
use crate::messages;
use crate::stats::board::{
    self, Board, Header, HeapBoard, MAX_RINGS, NodeBoard, Places, RING_BYTES,
};
use crate::stats::events::{EventKind, Tracer};
use crate::stats::ring::Ring;
use crate::sync::Ordering;
use theap_platform::{Error, Mutex, Os, PAGE, Rank, Shared};

/// Heaps whose places on the board are committed together: whole pages.
pub const BOARDS_AT_ONCE: usize = 4;
/// Tries to get the lock of the pool's ring, which is held for some 10 ns.
const TRIES: usize = 1 << 10;
const _: () = assert!((BOARDS_AT_ONCE * size_of::<HeapBoard>()).is_multiple_of(PAGE));

/// The board of a heap, and the pool's tracer.
pub struct Figures {
    policy: &'static Policy,
    board: *const Header,
    len: usize,
    nodes: usize,
    max_heaps: usize,
    /// The addresses of the heap.
    memory: board::Extent,
    /// Rings on the board: 0 if it is not published.
    ring_count: usize,
    /// The file that the board is, if it is published.
    published: Shared,
    /// The pool's ring, if it was opened; there may be none. The holder of the lock may write to
    /// the ring.
    events: Mutex<Option<Option<&'static Ring>>>,
}

// SAFETY: the pointer leads to atomics that live as long as the heap.
unsafe impl Send for Figures {}
// SAFETY: as for Send.
unsafe impl Sync for Figures {}

/// The extent of a board, and the number of heaps and rings on it.
#[derive(Clone, Copy)]
pub struct Extent {
    /// The address of the board, on a page.
    pub address: usize,
    /// The number of nodes that there are places for.
    pub nodes: usize,
    /// The number of heaps that there are places for.
    pub max_heaps: usize,
    /// The number of rings that there are places for.
    pub rings: usize,
}

impl Extent {
    /// The rings of a board with places for `max_heaps` heaps: none if it is not published.
    pub fn rings_for(max_heaps: usize, publish: bool) -> usize {
        if publish {
            MAX_RINGS.min(max_heaps + 1)
        } else {
            0
        }
    }

    fn places(&self) -> Places {
        Places::new(self.nodes, self.max_heaps, self.rings)
    }

    /// Bytes of the board.
    pub fn len(&self) -> usize {
        self.places().len
    }

    /// Bytes at the front of the board that are committed from the start: the header, the nodes,
    /// and the first heaps.
    pub fn open_from_start(&self) -> usize {
        self.places().heaps + BOARDS_AT_ONCE.min(self.max_heaps) * size_of::<HeapBoard>()
    }
}

impl Extent {
    /// The figures of the whole heap.
    ///
    /// # Safety
    /// The front of the board is committed, zero before, and lives as long as the heap.
    pub unsafe fn header(&self) -> &'static Header {
        // SAFETY: the board begins with the header, which is committed, as this function's Safety
        // section asks; zero is valid.
        unsafe { &*(self.address as *const Header) }
    }
}

/// Makes the board a file that others can read, if the options say so. Going without is reported,
/// and is no error.
///
/// # Errors
/// [`Error::Lost`] if the addresses went to a foreign mapping.
///
/// # Safety
/// The board's range is reserved, and not committed yet.
pub unsafe fn publish(os: Os, config: &Config, extent: Extent) -> Result<Shared, Error> {
    if !config.publish {
        return Ok(Shared::none());
    }
    // SAFETY: a reserved range, as this function's Safety section asks.
    match unsafe { os.share(extent.address, extent.len()) } {
        Err(Error::Lost) => Err(Error::Lost),
        Err(why) => {
            if config.messages {
                messages::not_published(os, why);
            }
            Ok(Shared::none())
        }
        shared => shared,
    }
}

impl Figures {
    /// The figures on a board, whose header is filled in. `published` is what [`publish`] answered
    /// for it, `memory` are the addresses of the heap.
    ///
    /// # Safety
    /// The board's range lives as long as the heap, is the heap's, zero, and committed up to
    /// [`Extent::open_from_start`].
    pub unsafe fn open(
        policy: &'static Policy,
        extent: Extent,
        published: Shared,
        memory: board::Extent,
    ) -> Self {
        let ring_count = if published.is_some() { extent.rings } else { 0 };
        let figures = Self {
            policy,
            board: extent.address as *const Header,
            len: extent.len(),
            nodes: extent.nodes,
            max_heaps: extent.max_heaps,
            memory,
            ring_count,
            published,
            events: Mutex::new(Rank::Events, None),
        };
        let header = figures.header();
        let counts = [figures.nodes, figures.max_heaps, ring_count];
        header.open(counts, memory);
        if policy.config().trace && ring_count > 0 {
            header.tracing.store(u64::MAX, Ordering::Relaxed);
        }
        figures
    }

    /// The figures of the whole heap.
    pub fn header(&self) -> &'static Header {
        // SAFETY: the board begins with the header, is committed and lives as long as the heap
        // (`open`); zero is valid.
        unsafe { &*self.board }
    }

    /// The figures of a node.
    pub fn node(&self, node: NodeIndex) -> &'static NodeBoard {
        debug_assert!(node.index() < self.nodes);
        // SAFETY: the nodes' figures follow the header, in the part that `open` found committed;
        // zero is valid.
        unsafe { &*self.board.add(1).cast::<NodeBoard>().add(node.index()) }
    }

    fn heap_place(&self, index: usize) -> *const HeapBoard {
        let heaps = Places::new(self.nodes, self.max_heaps, 0).heaps;
        ((self.board as usize + heaps) as *const HeapBoard).wrapping_add(index)
    }

    /// The figures of a heap.
    ///
    /// # Safety
    /// The heap was made: `commit_heap` has succeeded for its index.
    pub unsafe fn heap(&self, index: usize) -> &'static HeapBoard {
        // SAFETY: the heap's place is committed, as this function's Safety section asks; zero is
        // valid.
        unsafe { &*self.heap_place(index) }
    }

    /// Makes the place of heap `index` on the board accessible; several at a time, as each is a
    /// system call. Heaps are made in the order of their indices.
    ///
    /// # Errors
    /// The system's error.
    pub fn commit_heap(&self, index: usize) -> Result<(), Error> {
        if !index.is_multiple_of(BOARDS_AT_ONCE) || index == 0 {
            return Ok(());
        }
        let count = BOARDS_AT_ONCE.min(self.max_heaps - index);
        let at = self.heap_place(index) as usize;
        let bytes = count * size_of::<HeapBoard>();
        // SAFETY: the places of the heaps are a part of the board, which is the heap's. A board
        // that was to be published was reserved as a whole.
        unsafe {
            if self.policy.config().publish {
                self.policy.os().commit(at, bytes)?;
                self.policy.lock_memory(at, bytes);
                self.policy.count_metadata(bytes);
                return Ok(());
            }
            self.policy.open(at, bytes)
        }
    }

    /// All figures.
    pub fn board(&self) -> Option<Board<'static>> {
        // SAFETY: the board lives as long as the heap; what is read of it is committed.
        unsafe { Board::at(self.board.cast(), self.len) }.ok()
    }

    /// The addresses of the heap, which the header tells others.
    pub fn extent(&self) -> board::Extent {
        self.memory
    }

    /// Touches the figures of the whole heap, of the `made` heaps and of the next ones.
    ///
    /// # Errors
    /// The system's error.
    pub fn touch(&self, made: usize) -> Result<(), Error> {
        let heaps = made.max(1).next_multiple_of(BOARDS_AT_ONCE);
        let len = Places::new(self.nodes, heaps.min(self.max_heaps), 0).len;
        // SAFETY: committed, as heaps' places are BOARDS_AT_ONCE at a time; populating keeps
        // contents.
        unsafe { self.policy.os().populate(self.board as usize, len) }
    }

    /// Commits a ring, once, and returns it. Ring 0 is the pool's, ring `i + 1` heap `i`'s. Only
    /// the first heaps have one, and only if the board is published.
    fn open_ring(&self, index: usize) -> Option<&'static Ring> {
        if index >= self.ring_count {
            return None;
        }
        let rings = Places::new(self.nodes, self.max_heaps, self.ring_count).rings;
        let at = self.board as usize + rings + index * RING_BYTES;
        // SAFETY: a part of the board, which is the heap's; once committed it stays so, and zero is
        // an empty ring.
        unsafe {
            self.policy.os().commit(at, RING_BYTES).ok()?;
            self.policy.count_metadata(RING_BYTES);
            Some(&*(at as *const Ring))
        }
    }

    /// The tracer that records the events of a heap that was made.
    pub fn heap_tracer(&self, heap: usize) -> Tracer {
        Tracer::new(self.policy.os(), self.header(), self.open_ring(heap + 1))
    }

    /// The time at which an event of the pool begins, or 0 if nobody looks at events.
    #[inline]
    pub fn begin_event(&self) -> u64 {
        Tracer::new(self.policy.os(), self.header(), None).begin()
    }

    /// Records an event that began at `begin`, unless that is 0. Never waits for the warmer, which
    /// may be off its CPU with the lock: then the event is dropped.
    #[inline]
    pub fn note_event(&self, begin: u64, kind: EventKind, pages: u8, value: usize) {
        if begin != 0 {
            let try_again = |_| {
                core::hint::spin_loop();
                self.events.try_lock()
            };
            let Some(mut ring) = (0..TRIES).find_map(try_again) else {
                return;
            };
            let ring = *ring.get_or_insert_with(|| self.open_ring(0));
            let tracer = Tracer::new(self.policy.os(), self.header(), ring);
            tracer.note(begin, kind, pages, 0, value as u64);
        }
    }

    /// Does something and records it as an event of the pool.
    pub fn recorded<T>(
        &self,
        kind: EventKind,
        pages: u8,
        value: usize,
        what: impl FnOnce() -> T,
    ) -> T {
        let begin = self.begin_event();
        let done = what();
        self.note_event(begin, kind, pages, value);
        done
    }

    /// In a forked child: gives the child a published board of its own, on which the figures of the
    /// `made` heaps go on from the parent's. True if that was done; the figures of nodes must be
    /// counted anew then.
    ///
    /// Until then the board is the parent's, which runs on: what the child must be able to rely on
    /// is taken from what is the child's alone.
    ///
    /// # Safety
    /// The caller is the thread that forked, and holds all locks of the heap.
    pub unsafe fn publish_again(&self, made: u32) -> bool {
        if !self.published.is_some() {
            return false;
        }
        let used = Places::new(self.nodes, made as usize, 0).len;
        let board = self.board as usize;
        // SAFETY: the range that `publish` shared; the places of all heaps made are committed.
        let own = unsafe {
            let os = self.policy.os();
            os.share_anew(&self.published, board, self.len, used)
        };
        if own {
            self.header().heap_made(made);
        }
        own
    }

    /// In a forked child, after `publish_again`, whose answer is `own`: forgets the threads of the
    /// `made` heaps, which have not survived, unless the board is the parent's still.
    ///
    /// # Safety
    /// `made` heaps were made, and no other thread of this process runs.
    pub unsafe fn forget_threads(&self, made: u32, own: bool) {
        if own || !self.published.is_some() {
            for index in 0..made as usize {
                // SAFETY: this function's own Safety section.
                unsafe { self.heap(index) }
                    .thread
                    .store(0, Ordering::Relaxed);
            }
        }
    }

    /// Takes the lock of the pool's ring, before fork.
    pub fn lock(&self) {
        self.events.lock_for_fork();
    }

    /// Frees the lock that `lock` took, in the parent or in the child.
    ///
    /// # Safety
    /// This thread (or in a child, the thread that forked) called `lock` before.
    pub unsafe fn unlock(&self) {
        // SAFETY: this thread holds the lock, as this function's Safety section asks.
        unsafe { self.events.force_unlock() };
    }
}
