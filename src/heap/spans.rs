//! The life of a heap's spans: the heap acquires a span, makes it current, keeps it, releases it,
//! and leaves it when the thread ends.
#![allow(unsafe_code)] // Populates spans; a heap is made on its caller's promise.

use super::keeping::Keeping;
use super::{Choice, OwnSupers};
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::geometry::{ClassId, NodeIndex, SLOT, SpanId};
use crate::messages::{Misuse, misuse};
use crate::pool::metadata::ownership::FIRST_HEAP;
use crate::pool::metadata::{SpanMeta, SuperMeta};
use crate::pool::spans::Stage;
use crate::pool::spans::queue::SpanQueue;
use crate::pool::supers::Taker;
use crate::pool::{Arena, SlotRun};
use crate::stats::Counters;
use crate::stats::board::{ClassCounters, HeapBoard};
use crate::stats::events::{EventKind, Tracer};
use theap_platform::Error;

/// Slots by which the number that a heap has told its node may be too large, and half of the number
/// besides.
const SLACK: usize = 8;

/// The spans of one class of a heap.
pub(super) struct HeapClass {
    /// The span that refills take from.
    pub(super) current: Option<SpanId>,
    /// Other spans of the heap, each with a free or a pending block.
    pub(super) partial: SpanQueue,
}

/// The spans that a thread owns. Whoever uses them has the heap's lock (`pool::heap_lock`).
pub struct Heap {
    pub(super) arena: &'static Arena,
    /// The owner word of the heap's spans.
    pub(super) id: u64,
    node: NodeIndex,
    /// Which SuperSlabs the heap takes slots of.
    taker: Taker,
    /// Which blocks of a span are taken next.
    pub choice: Choice,
    pub(super) classes: [HeapClass; CLASS_COUNT],
    /// The classes of which the heap may have spans, by their bits.
    pub(super) used: u64,
    own_supers: OwnSupers,
    /// Bytes that came home to spans of others since the last sweep of such spans.
    pub(super) sent: usize,
    pub(super) keeping: Keeping,
    /// The slots of the heap's wholly free spans, and the number that its node was told of.
    pub free_slots: usize,
    told: usize,
    /// The figures of the heap.
    pub board: &'static HeapBoard,
    /// The counters of what the heap has done.
    pub counters: &'static Counters,
    /// The counters of what the heap has done, by class.
    pub class_counters: &'static [ClassCounters; CLASS_COUNT],
    /// Records what the heap does, while somebody looks.
    pub tracer: Tracer,
}

impl Heap {
    /// A heap without spans. `index` is the arena's number for it.
    ///
    /// # Safety
    /// The arena has made this heap, and nobody else uses it.
    pub unsafe fn new(arena: &'static Arena, index: usize, node: NodeIndex) -> Self {
        // SAFETY: the heap was made, as this function's Safety section asks.
        let board = unsafe { arena.figures().heap(index) };
        Self {
            arena,
            id: FIRST_HEAP + index as u64,
            node,
            taker: Taker::Thread,
            choice: Choice::new(|| arena.os().random()),
            classes: core::array::from_fn(|_| HeapClass {
                current: None,
                partial: SpanQueue::default(),
            }),
            used: 0,
            own_supers: OwnSupers::new(),
            sent: 0,
            keeping: Keeping::new(),
            free_slots: 0,
            told: 0,
            board,
            counters: &board.counters,
            class_counters: &board.classes,
            tracer: arena.figures().heap_tracer(index),
        }
    }

    /// Makes the heap that of a nursery.
    #[cfg(feature = "magazines")]
    pub fn become_nursery(&mut self) {
        self.taker = Taker::Nursery;
    }

    /// The arena that the heap's memory comes from.
    pub fn arena(&self) -> &'static Arena {
        self.arena
    }

    /// The node that the heap takes memory from.
    pub fn node(&self) -> NodeIndex {
        self.node
    }

    /// The bytes that the heap has claimed of the budget.
    pub fn claimed(&self) -> usize {
        self.keeping.claimed()
    }

    /// The slots of wholly free spans that the heap has told its node of.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn told(&self) -> usize {
        self.told
    }

    /// Makes the heap take memory of this node from now on, because a retired heap serves a new
    /// thread, or the heap's thread runs on another node.
    pub fn move_to(&mut self, node: NodeIndex) {
        if node != self.node {
            self.own_supers.forget();
            if self.told != 0 {
                self.tell(0);
            }
        }
        self.node = node;
    }

    /// The metadata of a span. Every span that this room knows came from the pool, a queue of the
    /// heap, or the tables' decode of a block's address.
    #[inline]
    pub(super) fn meta(&self, span: SpanId) -> &'static SpanMeta {
        // SAFETY: spans lie in mapped SuperSlabs.
        unsafe { self.arena.metadata().span(span) }
    }

    /// The metadata of a span's SuperSlab, and the span's first slot there.
    #[inline]
    pub(super) fn super_meta(&self, span: SpanId) -> (&'static SuperMeta, usize) {
        let (super_id, slot) = span.split();
        // SAFETY: as for `meta`.
        (unsafe { self.arena.metadata().of(super_id) }, slot)
    }

    fn class_of(&self, span: SpanId) -> ClassId {
        ClassId::new(usize::from(self.meta(span).class.get()))
    }

    #[inline]
    fn class(&mut self, class: ClassId) -> &mut HeapClass {
        &mut self.classes[class.index()]
    }

    pub(super) fn pop_partial(&mut self, class: ClassId) -> Option<SpanId> {
        let metadata = self.arena.metadata();
        let span = self.class(class).partial.pop(metadata)?;
        self.meta(span).listed.set(false);
        Some(span)
    }

    pub(super) fn push_partial(&mut self, class: ClassId, span: SpanId) {
        let metadata = self.arena.metadata();
        self.meta(span).listed.set(true);
        self.used |= class.bit();
        self.class(class).partial.push(span, metadata);
    }

    /// Finds a span with a free block and makes it the class's current one. With `own_only` the
    /// pool is not asked.
    pub(super) fn span_with_blocks(&mut self, class: ClassId, own_only: bool) -> Option<SpanId> {
        loop {
            if let Some(span) = self.classes[class.index()].current {
                if self.has_blocks(span) {
                    return Some(span);
                }
                self.class(class).current = None;
            }
            let next = if let Some(span) = self.pop_partial(class) {
                self.counters.stage_own.add(1);
                span
            } else if own_only {
                return None;
            } else {
                self.acquire_span(class)?
            };
            self.used |= class.bit();
            self.class(class).current = Some(next);
        }
    }

    /// Whether a span of the heap has a free block, after a look at its pending remote bits. If it
    /// has none, the heap no longer owns the span.
    fn has_blocks(&mut self, span: SpanId) -> bool {
        let meta = self.meta(span);
        if meta.free.get() != 0 {
            return true;
        }
        let begin = self.tracer.begin();
        // Once the owner word is NOBODY, the span may get another class at any moment.
        let class = meta.class.get();
        loop {
            if self.collect_span(span) {
                return true;
            }
            if !meta.shake.disown(self.id) {
                self.counters.spans_disowned.add(1);
                self.board.span_bytes.sub(span_bytes(class));
                let address = self.arena.addresses().address_of(span.slot()) as u64;
                self.tracer
                    .note(begin, EventKind::Disown, class, 0, address);
                return false;
            }
        }
    }

    /// Moves the blocks that other threads freed of a span of the heap into its free bits. Returns
    /// whether there were any.
    pub(super) fn collect_span(&mut self, span: SpanId) -> bool {
        debug_assert_eq!(self.meta(span).shake.owner(), self.id);
        // SAFETY: the heap's methods are called with spans whose owner word is the heap's, and
        // this thread alone uses the heap.
        let any = unsafe { self.arena.spans().collect(span) }
            .unwrap_or_else(|address| misuse(self.arena.os(), Misuse::DoubleFree, address));
        // A wholly free span has no pending block, so the span was none before.
        if any && self.is_free(span) {
            self.count_free(self.meta(span).class.get(), true);
        }
        any
    }

    /// Counts a span that became wholly free, or is so no longer, or leaves the heap.
    #[inline]
    pub(super) fn count_free(&mut self, class: u8, is_free: bool) {
        let slots = CLASSES[usize::from(class)].slots as usize;
        if is_free {
            self.board.kept.add(span_bytes(class));
            self.free_slots += slots;
        } else {
            self.board.kept.sub(span_bytes(class));
            self.free_slots -= slots;
        }
        let free = self.free_slots;
        if free > self.told || self.told > free + free / 2 + SLACK {
            self.tell(free + free / 4 + SLACK / 4);
        }
    }

    /// Tells the node how many slots the heap's wholly free spans have. All of its threads write to
    /// that number, so a heap tells a bit more than it has, and that rarely.
    #[cold]
    fn tell(&mut self, slots: usize) {
        let node = self.arena.node(self.node);
        node.supers().decay().tell(self.told, slots);
        self.told = slots;
    }

    /// Whether the node keeps more than it should.
    fn has_too_much(&self) -> bool {
        self.arena.node(self.node).pages().has_too_much()
    }

    /// Sets the number of free blocks of a span of the heap, which has changed.
    #[inline]
    pub(super) fn set_free_count(&mut self, meta: &SpanMeta, now: u32) {
        let class = meta.class.get();
        let (before, all) = (
            meta.free.get(),
            u32::from(CLASSES[usize::from(class)].blocks),
        );
        meta.free.set(now);
        if before == all {
            self.count_free(class, false);
        } else if now == all {
            self.count_free(class, true);
        }
    }

    /// Makes a span of slots, all of whose blocks are free.
    fn make(&mut self, run: SlotRun, class: ClassId) -> SpanId {
        let number = class.index() as u8;
        self.board.span_bytes.add(span_bytes(number));
        self.count_free(number, true);
        self.arena.spans().make(run, class, self.id)
    }

    /// TBACKEND: takes a span of the class from the pool; the span may turn out to be full. Where
    /// there is no memory, the heap gives the wholly free spans of all its classes back and tries
    /// once more.
    pub(super) fn acquire_span(&mut self, class: ClassId) -> Option<SpanId> {
        if !CLASSES[class.index()].is_whole() {
            self.learn_to_keep(class);
        }
        self.span_of_pool(class).or_else(|| {
            self.collect();
            self.span_of_pool(class)
        })
    }

    /// Notes that the heap needs a span of the pool: it gave one back too early if it gave any.
    pub(super) fn learn_to_keep(&mut self, class: ClassId) {
        let policy = self.arena.policy();
        if policy.learns() {
            self.keeping.took(class, policy.budget());
            self.counters.spans_kept.set(self.keeping.learned());
        }
    }

    fn span_of_pool(&mut self, class: ClassId) -> Option<SpanId> {
        let (arena, id) = (self.arena, self.id);
        let begin = self.tracer.begin();
        if let Some((span, stage)) = arena.spans().take_partial(self.node, class, id) {
            self.meta(span).set_last_owner(id);
            self.board.span_bytes.add(span_bytes(class.index() as u8));
            self.collect_span(span);
            self.count(stage);
            self.note(begin, EventKind::Acquire, span, stage as u8);
            return Some(span);
        }
        let slots = CLASSES[class.index()].slots as usize;
        if let Some(run) = self.own_supers.take(arena, class, id, slots) {
            return Some(self.make(run, class));
        }
        let nodes = arena.nodes();
        let (run, stage) = (0..nodes.len()).find_map(|away| {
            let node = &nodes[(self.node.index() + away) % nodes.len()];
            let (run, stage) = node.acquire_slots(slots, 1, self.taker)?;
            Some((run, if away == 0 { stage } else { Stage::Remote }))
        })?;
        self.own_supers.adopt(arena, class, id, run.slot());
        self.count(stage);
        let span = self.make(run, class);
        self.note(begin, EventKind::Acquire, span, stage as u8);
        Some(span)
    }

    /// Records what happened to a span of the heap.
    #[inline]
    pub(super) fn note(&self, begin: u64, kind: EventKind, span: SpanId, stage: u8) {
        if begin != 0 {
            let class = self.meta(span).class.get();
            let address = self.arena.addresses().address_of(span.slot()) as u64;
            self.tracer.note(begin, kind, class, stage, address);
        }
    }

    fn count(&self, stage: Stage) {
        let counters = self.counters;
        match stage {
            Stage::Stash => &counters.stage_stash,
            Stage::Partial => &counters.stage_partial,
            Stage::Empty => &counters.stage_empty,
            Stage::Fresh => &counters.stage_fresh,
            Stage::Prepared => &counters.stage_prepared,
            Stage::Grow => &counters.stage_grow,
            Stage::Remote => &counters.stage_remote,
        }
        .add(1);
    }

    /// Takes spans of the class from the pool until `count` blocks are free in the heap's own, and
    /// touches all of them.
    ///
    /// # Errors
    /// The system's error; the spans taken until then stay.
    pub fn prepare(&mut self, class: ClassId, count: usize) -> Result<(), Error> {
        let mut free = 0;
        if let Some(span) = self.classes[class.index()].current {
            free += self.touch(span)?;
        }
        for _ in 0..self.classes[class.index()].partial.len() {
            if let Some(span) = self.pop_partial(class) {
                self.push_partial(class, span);
                free += self.touch(span)?;
            }
        }
        while free < count {
            let span = self.acquire_span(class).ok_or(Error::NoMemory)?;
            if self.has_blocks(span) {
                self.push_partial(class, span);
                free += self.touch(span)?;
            }
        }
        Ok(())
    }

    /// Makes the kernel provide the memory of one of the heap's spans. Returns the number of the
    /// span's free blocks.
    fn touch(&self, span: SpanId) -> Result<usize, Error> {
        let meta = self.meta(span);
        let address = self.arena.addresses().address_of(span.slot());
        let slots = CLASSES[self.class_of(span).index()].slots as usize;
        // SAFETY: a span's memory is mapped, and populating keeps contents.
        unsafe { self.arena.os().populate(address, slots * SLOT)? };
        Ok(meta.free.get() as usize)
    }

    /// Keeps a span of which a block became free, or gives the span back if it is wholly free and
    /// the class has enough others, or the node keeps too much. The current span stays as it is,
    /// but for where the program has said how much that is.
    pub(super) fn settle(&mut self, span: SpanId) {
        let meta = self.meta(span);
        let class = self.class_of(span);
        let keeps = self.keeping.keeps(class);
        let all_free = self.is_free(span);
        let too_much = all_free && self.has_too_much();
        let (metadata, bounds_all) = (self.arena.metadata(), self.arena.policy().bounds_all());
        let this = self.class(class);
        if this.current == Some(span) {
            if !(too_much && bounds_all) {
                return;
            }
            this.current = None;
        }
        if too_much || all_free && this.partial.len() >= keeps {
            if meta.listed.replace(false) {
                this.partial.remove(span, metadata);
            }
            if !too_much {
                self.keeping.gave(class);
            }
            self.release(span);
        } else if !meta.listed.replace(true) {
            this.partial.push(span, metadata);
            self.used |= class.bit();
        }
    }

    /// Notes a refill, a drain or a run; after a number of them the heap forgets what it no longer
    /// needs. In passing it does a bit for heaps whose threads rest.
    #[inline]
    pub fn note_batch(&mut self) {
        if self.keeping.moved() {
            self.end_period();
        }
        let reclaim = self.arena.reclaim();
        if self.keeping.glances() {
            reclaim.look(self.arena.os().recently());
        }
        if reclaim.is_due() {
            reclaim.pass();
        }
    }

    /// Forgets the learned spans that were not needed for the time of `decay`, and gives as many
    /// wholly free spans back: not more, as `prepare` may have taken others on purpose.
    #[cold]
    fn end_period(&mut self) {
        let policy = self.arena.policy();
        let (now, decay) = (policy.os().recently(), policy.decay());
        if !policy.learns() {
            return;
        }
        let Some(gone) = self.keeping.end_period(now, decay, policy.budget()) else {
            return;
        };
        self.counters.spans_kept.set(self.keeping.learned());
        for (class, mut gone) in ClassId::all().zip(gone) {
            for _ in 0..self.classes[class.index()].partial.len() {
                let listed = self.classes[class.index()].partial.len();
                if gone == 0 || listed <= self.keeping.keeps(class) {
                    break;
                }
                if let Some(span) = self.pop_partial(class) {
                    gone -= u16::from(self.is_free(span));
                    self.settle(span);
                }
            }
        }
    }

    /// Whether all blocks of a span are free.
    pub(super) fn is_free(&self, span: SpanId) -> bool {
        let blocks = CLASSES[self.class_of(span).index()].blocks;
        self.meta(span).free.get() == u32::from(blocks)
    }

    pub(super) fn release(&mut self, span: SpanId) {
        self.counters.spans_released.add(1);
        let begin = self.tracer.begin();
        let class = self.meta(span).class.get();
        debug_assert_eq!(self.meta(span).shake.owner(), self.id);
        self.board.span_bytes.sub(span_bytes(class));
        self.count_free(class, false);
        // SAFETY: the heap's, as in `collect_span`, and all its blocks are free.
        unsafe { self.arena.spans().release(span) };
        let address = self.arena.addresses().address_of(span.slot()) as u64;
        self.tracer
            .note(begin, EventKind::Release, class, 0, address);
    }

    /// Collects the remote frees of all spans, and gives wholly free spans back.
    pub fn collect(&mut self) {
        self.forget();
        self.part_with_spans(true);
    }

    /// Gives the free pages of all spans back to the system. Their bytes.
    pub fn discard(&mut self) -> usize {
        let mut bytes = 0;
        for class in ClassId::all() {
            // SAFETY: the heap's spans are this thread's.
            let discard = |span| unsafe { self.arena.spans().discard(span) };
            bytes += self.classes[class.index()].current.map_or(0, discard);
            for _ in 0..self.classes[class.index()].partial.len() {
                if let Some(span) = self.pop_partial(class) {
                    // SAFETY: as above.
                    bytes += unsafe { self.arena.spans().discard(span) };
                    self.push_partial(class, span);
                }
            }
        }
        bytes
    }

    /// Forgets how many spans the heap has learned to keep.
    pub(super) fn forget(&mut self) {
        self.keeping.clear(self.arena.policy().budget());
        self.counters.spans_kept.set(0);
    }

    /// Whether the heap has no span.
    #[cfg(feature = "magazines")]
    pub fn has_no_span(&self) -> bool {
        self.used == 0
    }

    /// Forgets what the heap's thread has taught. The heap has no span.
    #[cfg(feature = "magazines")]
    pub fn rest(&mut self) {
        self.forget();
    }

    /// Leaves all spans: the slots of wholly free spans go back to the pool, partial spans go to
    /// its lists, and full spans get the owner word NOBODY.
    pub fn retire(&mut self) {
        self.part_with_spans(false);
        self.forget();
        if self.told != 0 {
            self.tell(0);
        }
    }

    fn part_with_spans(&mut self, keep_partial: bool) {
        for class in ClassId::of(core::mem::take(&mut self.used)) {
            let current = self.class(class).current.take();
            let queued = self.class(class).partial.len();
            if let Some(span) = current {
                self.part_with(span, keep_partial);
            }
            for _ in 0..queued {
                let Some(span) = self.pop_partial(class) else {
                    break;
                };
                self.part_with(span, keep_partial);
            }
        }
    }

    fn part_with(&mut self, span: SpanId, keep_partial: bool) {
        let class = self.class_of(span);
        self.collect_span(span);
        if !self.has_blocks(span) {
            return;
        }
        if self.is_free(span) {
            self.release(span);
        } else if keep_partial {
            self.push_partial(class, span);
        } else {
            self.board.span_bytes.sub(span_bytes(class.index() as u8));
            self.meta(span).shake.give_to_pool();
            // SAFETY: the pool's since just now.
            unsafe { self.arena.spans().put_partial(span) };
        }
    }
}

/// Bytes of a span of the class with this number.
#[inline]
pub(super) fn span_bytes(class: u8) -> u64 {
    (CLASSES[usize::from(class)].slots as usize * SLOT) as u64
}

/// The lowest `count` set bits of a word.
pub(super) fn lowest(word: u64, count: usize) -> u64 {
    if word.count_ones() as usize <= count {
        return word;
    }
    let mut rest = word;
    for _ in 0..count {
        rest &= rest - 1;
    }
    word ^ rest
}
