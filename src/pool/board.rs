//! The arena's board: where in the metadata the numbers lie, and how it is published.

use super::node::Node;
use super::{Arena, SLOTS, SpanId, kind};
use crate::classes::CLASS_COUNT;
use crate::config::Config;
use crate::fatal;
use crate::stats::board::{Board, Header, HeapBoard, NodeBoard, Places, RING_BYTES};
use crate::stats::events::{EventKind, Tracer};
use crate::stats::ring::Ring;
use crate::sync::Ordering;
use theap_platform::{Error, Os, PAGE, PageMode, Shared};

/// Heaps whose places on the board are committed together: whole pages.
pub(super) const BOARDS_AT_ONCE: usize = 16;
/// Looks at a lock that is held for some 10 ns.
const TRIES: usize = 1 << 10;
/// Rank of the lock on the pool's ring; last of all.
pub(super) const RANK_EVENTS: u8 = 40;
const _: () = assert!((BOARDS_AT_ONCE * size_of::<HeapBoard>()).is_multiple_of(PAGE));

/// Makes the board a file that others can read, if the options say so. Going without is said, and no error.
///
/// # Errors
/// The addresses were lost.
///
/// # Safety
/// The range is the board's place in a reservation, not committed yet.
pub(super) unsafe fn publish(
    os: Os,
    config: &Config,
    board: usize,
    len: usize,
) -> Result<Shared, Error> {
    if !config.publish {
        return Ok(Shared::none());
    }
    // SAFETY: the caller's promise.
    match unsafe { os.share(board, len) } {
        Err(Error::Lost) => Err(Error::Lost),
        Err(why) => {
            if config.messages {
                fatal::not_published(os, why);
            }
            Ok(Shared::none())
        }
        shared => shared,
    }
}

impl Arena {
    /// The numbers of the whole heap.
    pub fn header(&self) -> &'static Header {
        // SAFETY: the board begins in the dense part of the metadata; zero is valid.
        unsafe { &*self.board }
    }

    /// A node's numbers.
    pub(super) fn node_board(&self, node: usize) -> &'static NodeBoard {
        debug_assert!(node < self.node_count);
        // SAFETY: the nodes' numbers follow the header, in the dense part; zero is valid.
        unsafe { &*self.board.add(1).cast::<NodeBoard>().add(node) }
    }

    /// A heap's numbers.
    ///
    /// # Safety
    /// The heap was made.
    pub unsafe fn heap_board(&self, index: usize) -> &'static HeapBoard {
        // SAFETY: a heap is made after its place on the board is committed; zero is valid.
        unsafe { &*self.heap_boards.add(index) }
    }

    /// Makes the place of heap `index` on the board accessible; several at a time, as each is a system call.
    pub(super) fn commit_heap_board(&self, index: usize) -> Result<(), Error> {
        if !index.is_multiple_of(BOARDS_AT_ONCE) || index == 0 {
            return Ok(());
        }
        let count = BOARDS_AT_ONCE.min(self.max_heaps - index);
        let at = self.heap_boards as usize + index * size_of::<HeapBoard>();
        let bytes = count * size_of::<HeapBoard>();
        // SAFETY: a part of the metadata reservation.
        unsafe { self.os.commit(at, bytes) }?;
        self.lock_memory(at, bytes);
        Ok(())
    }

    /// The part of the board that is accessible, heaps to come included: address and bytes, whole pages.
    fn open_part(&self) -> (usize, usize) {
        let heaps = self.heaps_made().max(1).next_multiple_of(BOARDS_AT_ONCE);
        let places = Places::new(self.node_count, heaps.min(self.max_heaps), 0);
        (self.board as usize, places.len)
    }

    /// All numbers.
    pub fn board(&self) -> Option<Board<'static>> {
        // SAFETY: the board is the arena's and lives as long; what is read of it is committed.
        unsafe { Board::at(self.board.cast(), self.board_len) }.ok()
    }

    /// Touches the numbers of the whole heap, of all heaps made and of the next ones.
    ///
    /// # Errors
    /// What the system answered.
    pub fn touch_board(&self) -> Result<(), Error> {
        let (start, len) = self.open_part();
        // SAFETY: committed; populating keeps contents.
        unsafe { self.os.populate(start, len) }
    }

    /// Fills in the header.
    pub(super) fn open_board(&self) {
        let counts = [self.node_count, self.max_heaps, self.ring_count];
        let header = self.header();
        header.open(counts, self.range().1);
        if self.config.trace && self.ring_count > 0 {
            header.tracing.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// Ring 0 is the pool's, ring `i + 1` heap `i`'s. The first heaps have one, if the board is published. Commits it,
    /// once.
    fn open_ring(&self, index: usize) -> Option<&'static Ring> {
        if index >= self.ring_count {
            return None;
        }
        let at = self.rings + index * RING_BYTES;
        // SAFETY: a part of the board; once committed it stays so, and zero is an empty ring.
        unsafe {
            self.os.commit(at, RING_BYTES).ok()?;
            Some(&*(at as *const Ring))
        }
    }

    /// What records the events of a heap that was made.
    pub fn heap_tracer(&self, heap: usize) -> Tracer {
        Tracer::new(self.os, self.header(), self.open_ring(heap + 1))
    }

    /// Before something that the pool may record: when it begins, or 0 if nobody looks.
    #[inline]
    pub(super) fn begin_event(&self) -> u64 {
        Tracer::new(self.os, self.header(), None).begin()
    }

    /// Records what began at `begin`, unless that is 0. Never waits for the warmer, which may be off its CPU with the
    /// lock: then the event is dropped.
    #[inline]
    pub(super) fn note_event(&self, begin: u64, kind: EventKind, pages: u8, value: usize) {
        if begin != 0 {
            let look = |_| {
                core::hint::spin_loop();
                self.events.try_lock()
            };
            let Some(mut ring) = (0..TRIES).find_map(look) else {
                return;
            };
            let ring = *ring.get_or_insert_with(|| self.open_ring(0));
            let tracer = Tracer::new(self.os, self.header(), ring);
            tracer.note(begin, kind, pages, 0, value as u64);
        }
    }

    /// As `Os::populate`, recorded.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn populate(&self, address: usize, len: usize) -> Result<(), Error> {
        let begin = self.begin_event();
        // SAFETY: the caller's promise.
        let done = unsafe { self.os.populate(address, len) };
        self.note_event(begin, EventKind::Populate, 0, len);
        done
    }

    /// As `Os::purge`, recorded.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn purge(
        &self,
        address: usize,
        len: usize,
        mode: PageMode,
    ) -> Result<(), Error> {
        let begin = self.begin_event();
        // SAFETY: the caller's promise.
        let done = unsafe { self.os.purge(address, len) };
        self.note_event(begin, EventKind::Purge, mode as u8, len);
        done
    }

    /// In a forked child: gives the child a published board of its own. The numbers go on from the parent's.
    ///
    /// Until then the board is the parent's, which runs on: what the child must be able to rely on is taken from what
    /// is the child's alone.
    ///
    /// # Safety
    /// The thread that forked, which called `lock_all` before and not `unlock_all` since.
    pub unsafe fn publish_again(&self) {
        if !self.published.is_some() {
            return;
        }
        // SAFETY: the caller's promise.
        let made = unsafe { self.heaps.held() }.made;
        let used = Places::new(self.node_count, made as usize, 0).len;
        let board = self.board as usize;
        // SAFETY: the range that `publish` shared; the places of all heaps made are committed.
        let own = unsafe {
            self.os
                .share_anew(&self.published, board, self.board_len, used)
        };
        if own {
            self.header().heap_made(made);
            self.nodes().iter().for_each(Node::recount);
        }
    }
}

impl Node {
    /// Counts anew what the node has, by its tables and words. Nobody else is inside the allocator.
    fn recount(&self) {
        let (mut empty, mut run_slots) = (0, 0);
        let mut mapped = [0; PageMode::COUNT];
        let mut spans = [0; CLASS_COUNT];
        for i in self.mapped_supers() {
            if let Some(mode) = self.mode(i) {
                mapped[mode as usize] += 1;
            }
            empty += self.word(i).get().empty_count() as usize;
            let first = (self.first + i) * SLOTS;
            for slot in first..first + SLOTS {
                let starts = self.arena.head(slot).load(Ordering::Relaxed) == 0;
                match self.arena.kind(slot).load(Ordering::Relaxed) {
                    kind::LARGE | kind::HUGE if starts => {
                        run_slots += u64::from(self.arena.span(SpanId(slot as u32)).slots.get());
                    }
                    kind::FREE | kind::LARGE | kind::HUGE => {}
                    what if starts => spans[usize::from(what - kind::FIRST)] += 1,
                    _ => {}
                }
            }
        }
        self.empty.store(empty, Ordering::Relaxed);
        self.board.run_slots.store(run_slots, Ordering::Relaxed);
        for (count, mapped) in self.mapped.iter().zip(mapped) {
            count.store(mapped, Ordering::Relaxed);
        }
        for (count, spans) in self.board.spans.iter().zip(spans) {
            count.store(spans, Ordering::Relaxed);
        }
    }
}
