//! A NUMA node's share of the pool: finding free slots, and giving them back.
//!
//! Taking and giving back slots is lock-free: a hint from [`Avail`], then one compare-exchange on the SuperSlab's
//! word. Only growth and huge runs take the node's growth lock (`grow`, `runs`), only lists of partial spans take a
//! class's lock (`partial`).

use super::avail::{self, Avail};
use super::claims::{Claims, POPULATED};
use super::decay::Decay;
use super::grow::Growth;
use super::queue::SpanQueue;
use super::superslab::{SLOTS, SlotWord, Taken};
use super::warmer::Warmer;
use super::{Arena, SLOT, SUPER, SpanId, Stage, kind};
use crate::classes::CLASS_COUNT;
use crate::stats::board::NodeBoard;
use core::sync::atomic::{AtomicUsize, Ordering};
use theap_platform::{Guard, Mutex, PageMode, Rank};

/// Rank of the partial lists' locks; they are never nested.
pub(super) const RANK_PARTIAL: u8 = 2;
/// Rank of the growth lock.
pub(super) const RANK_GROWTH: u8 = 3;
/// Tries after which a taker of a partial span looks elsewhere, and a giver sleeps. A list's lock is held for some tens
/// of ns unless its holder is preempted, and steady state is to have no system call.
pub(super) const TAKER_TRIES: usize = 1 << 10;
const GIVER_TRIES: usize = 1 << 18;
/// SuperSlabs that a search for a run of an odd length looks at before it takes a larger room, or grows.
const SEARCH: usize = 64;

/// A node of the pool.
pub struct Node {
    pub(super) arena: &'static Arena,
    /// Its first SuperSlab in the range, and their number.
    pub(super) first: usize,
    pub(super) supers: usize,
    pub(super) claims: Claims<'static>,
    pub(super) avail: Avail<'static>,
    pub(super) partial: [Mutex<SpanQueue>; CLASS_COUNT],
    pub(super) growth: Mutex<Growth>,
    pub(super) warmer: Warmer,
    pub(super) decay: Decay,
    /// EMPTY slots now.
    pub(super) empty: &'static AtomicUsize,
    /// SuperSlabs mapped now, by `PageMode`.
    pub(super) mapped: &'static [AtomicUsize; PageMode::COUNT],
    /// Where these two lie, and more that is only counted.
    pub(super) board: &'static NodeBoard,
}

/// Adjacent slots, now ACTIVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRun {
    /// The first slot in the range.
    pub slot: usize,
    /// Number of slots.
    pub len: usize,
    /// They read zero.
    pub fresh: bool,
}

impl Node {
    /// A node without memory.
    pub(super) fn new(
        arena: &'static Arena,
        index: usize,
        claims: Claims<'static>,
        avail: Avail<'static>,
    ) -> Self {
        let supers = claims.supers();
        let board = arena.node_board(index);
        if arena.node_count() > 1 {
            let kernel_node = u64::from(arena.kernel_node(index).0);
            board.kernel_node.store(kernel_node, Ordering::Relaxed);
        }
        Self {
            arena,
            first: index * supers,
            supers,
            claims,
            avail,
            partial: core::array::from_fn(|_| Mutex::new(Rank(RANK_PARTIAL), SpanQueue::default())),
            growth: Mutex::new(Rank(RANK_GROWTH), Growth::default()),
            warmer: Warmer::default(),
            decay: Decay::default(),
            empty: &board.empty,
            mapped: &board.mapped,
            board,
        }
    }

    pub(super) fn word(&self, i: usize) -> &'static SlotWord {
        self.arena.word(self.first + i)
    }

    /// Counts what was taken.
    pub(super) fn count_taken(&self, len: usize, warm: u32) {
        if warm == 0 {
            return self.decay.took_cold(len);
        }
        let warm = warm as usize;
        let before = self.empty.fetch_sub(warm, Ordering::Relaxed);
        self.decay.took_warm(before - warm);
    }

    pub(super) fn taken(&self, i: usize, len: usize, taken: Taken) -> SlotRun {
        self.count_taken(len, taken.warm);
        SlotRun {
            slot: (self.first + i) * SLOTS + taken.first,
            len,
            fresh: taken.warm == 0,
        }
    }

    /// Takes up to 32 adjacent slots, the first at a multiple of `align` slots of its SuperSlab. `None` when there
    /// are none and the system gives no more.
    pub fn acquire_slots(&self, len: usize, align: usize) -> Option<(SlotRun, Stage)> {
        if self.take_sweep() {
            self.sweep();
        }
        if let Some(found) = self.find_slots(len, align) {
            return Some(found);
        }
        if self.sweep()
            && let Some(found) = self.find_slots(len, align)
        {
            return Some(found);
        }
        self.grow(len, align)
    }

    /// As `acquire_slots`, among the SuperSlabs that are mapped.
    #[cfg(feature = "shared-pool")]
    pub(super) fn find_slots(&self, len: usize, align: usize) -> Option<(SlotRun, Stage)> {
        if len == 1 && align == 1 {
            let warm = self.search(avail::EMPTY, usize::MAX, |word| word.take_empty());
            if let Some((i, taken)) = warm {
                return Some((self.taken(i, 1, taken), Stage::Empty));
            }
        }
        let take = |word: &SlotWord| word.take_run(len, align);
        let sure = avail::level_for((len + align - 1).min(SLOTS));
        // A room of the next power of two always serves; a smaller one may.
        let found = self.search(sure, usize::MAX, take).or_else(|| {
            if len > 1 {
                self.search(avail::level_for(len / 2 + 1), SEARCH, take)
            } else {
                None
            }
        })?;
        let run = self.taken(found.0, len, found.1);
        Some((run, self.stage_of(found.0, run.fresh)))
    }

    /// Without the shared pool a SuperSlab serves one class of one heap: it is taken as a whole, and the caller gets
    /// the rest of it by [`Node::take_in`].
    #[cfg(not(feature = "shared-pool"))]
    pub(super) fn find_slots(&self, len: usize, _align: usize) -> Option<(SlotRun, Stage)> {
        let (i, taken) = self.search(avail::WHOLE, usize::MAX, |word| word.take_exact(0, SLOTS))?;
        let fresh = taken.warm == 0;
        let run = self.taken(i, len, taken);
        self.arena.super_meta(self.first + i).spans[0]
            .tag
            .store(0, Ordering::Relaxed);
        if len < SLOTS {
            if !fresh {
                self.empty.fetch_add(SLOTS - len, Ordering::Relaxed);
            }
            self.word(i).put_back(len, SLOTS - len, fresh);
        }
        Some((run, self.stage_of(i, fresh)))
    }

    /// Takes `len` slots of one SuperSlab, by its number in the range.
    #[cfg(not(feature = "shared-pool"))]
    pub fn take_in(&self, super_index: usize, len: usize) -> Option<SlotRun> {
        let i = super_index - self.first;
        self.word(i)
            .take_run(len, 1)
            .map(|taken| self.taken(i, len, taken))
    }

    fn stage_of(&self, i: usize, fresh: bool) -> Stage {
        match fresh {
            false => Stage::Empty,
            true if self.claims.has(i, POPULATED) => Stage::Prepared,
            true => Stage::Fresh,
        }
    }

    fn search(
        &self,
        level: usize,
        tries: usize,
        take: impl Fn(&SlotWord) -> Option<Taken>,
    ) -> Option<(usize, Taken)> {
        let mut from = 0;
        for _ in 0..tries {
            let i = self.avail.levels[level].next(from)?;
            if let Some(taken) = take(self.word(i)) {
                return Some((i, taken));
            }
            self.avail.withdraw(i, level, self.word(i));
            from = i + 1;
        }
        None
    }

    /// Gives slots of this node back, of one or several SuperSlabs.
    pub fn release_slots(&self, slot: usize, len: usize) {
        for s in slot..slot + len {
            self.arena.kind(s).store(kind::FREE, Ordering::Relaxed);
        }
        self.empty.fetch_add(len, Ordering::Relaxed);
        for_each_super(slot, len, |super_index, first, part| {
            let i = super_index - self.first;
            let (before, after) = self.word(i).release(first, part);
            self.avail.offer(i, before, after);
            if after.free_count() as usize == SLOTS {
                self.trim(i);
            }
        });
        if self.decay.kept() != 0 || self.has_too_much() {
            self.trim_idle();
        }
    }

    /// Bytes that can be taken without growth.
    pub fn free_bytes(&self) -> usize {
        self.mapped_supers()
            .map(|i| self.word(i).get().free_count() as usize * SLOT)
            .sum()
    }

    /// Bytes mapped in a page mode.
    pub fn mapped_bytes(&self, mode: PageMode) -> u64 {
        (self.mapped[mode as usize].load(Ordering::Relaxed) * SUPER) as u64
    }

    /// Indices within the node of all SuperSlabs that were ever mapped and are not lost.
    pub(super) fn mapped_supers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.claims.frontier()).filter(|&i| self.mode(i).is_some())
    }

    /// The partial list of a class, if its lock is to be had soon.
    pub(super) fn try_list(&self, class: usize, tries: usize) -> Option<Guard<'_, SpanQueue>> {
        self.partial[class].try_lock_often(tries)
    }

    /// Puts a span that is POOL's on the list.
    pub(super) fn push_partial(&self, class: usize, span: SpanId) {
        self.try_list(class, GIVER_TRIES)
            .unwrap_or_else(|| self.partial[class].lock())
            .push(span, self.arena);
    }

    /// Takes every lock of the node, before fork.
    pub(super) fn lock_all(&self) {
        for list in &self.partial {
            list.lock_for_fork();
        }
        self.growth.lock_for_fork();
    }

    /// # Safety
    /// As for `Arena::unlock_all`.
    pub(super) unsafe fn unlock_all(&self) {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            self.growth.force_unlock();
            for list in &self.partial {
                list.force_unlock();
            }
        }
    }
}

/// Splits adjacent slots by SuperSlab: (SuperSlab in the range, first slot in it, number).
pub(super) fn for_each_super(slot: usize, len: usize, mut each: impl FnMut(usize, usize, usize)) {
    let end = slot + len;
    let mut at = slot;
    while at < end {
        let first = at % SLOTS;
        let part = (SLOTS - first).min(end - at);
        each(at / SLOTS, first, part);
        at += part;
    }
}
