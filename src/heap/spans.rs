//! Refill: blocks out of spans. And the life of a heap's spans.

use super::ownership::FIRST_HEAP;
use super::stock::Stock;
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::fatal::{Misuse, misuse};
use crate::pool::queue::{NIL, SpanQueue};
use crate::pool::{Arena, SLOT, SpanId, Stage};
use crate::stats::Counters;
use crate::stats::board::ClassCounters;
use crate::stats::events::{EventKind, Tracer};
use theap_platform::Error;

/// One class of a heap.
pub(super) struct HeapClass {
    /// The span that refills take from, or NIL.
    pub(super) current: u32,
    /// Other spans of the heap, each with a free or a pending block.
    pub(super) partial: SpanQueue,
    /// Without the shared pool: the SuperSlab that the class takes slots from, or NIL.
    #[cfg(not(feature = "shared-pool"))]
    own_super: u32,
}

/// What a thread owns.
pub struct Heap {
    pub(super) arena: &'static Arena,
    /// Owner word of its spans.
    pub(super) id: u64,
    node: usize,
    /// What is left to chance.
    #[cfg(feature = "hardened")]
    pub random: super::random::Random,
    pub(super) classes: [HeapClass; CLASS_COUNT],
    stock: Stock,
    /// What it has done.
    pub counters: &'static Counters,
    /// The same by class.
    pub class_counters: &'static [ClassCounters; CLASS_COUNT],
    /// Records what it does, while somebody looks.
    pub tracer: Tracer,
}

impl Heap {
    /// A heap without spans. `index` is the arena's number for it.
    ///
    /// # Safety
    /// The arena has made this heap, and nobody else uses it.
    pub unsafe fn new(arena: &'static Arena, index: usize, node: usize) -> Self {
        // SAFETY: the caller's promise.
        let board = unsafe { arena.heap_board(index) };
        Self {
            arena,
            id: FIRST_HEAP + index as u64,
            node,
            #[cfg(feature = "hardened")]
            random: super::random::Random::new(arena.os.random()),
            classes: core::array::from_fn(|_| HeapClass {
                current: NIL,
                partial: SpanQueue::default(),
                #[cfg(not(feature = "shared-pool"))]
                own_super: NIL,
            }),
            stock: Stock::new(),
            counters: &board.counters,
            class_counters: &board.classes,
            tracer: arena.heap_tracer(index),
        }
    }

    /// Where the heap's memory comes from.
    pub fn arena(&self) -> &'static Arena {
        self.arena
    }

    /// The node that the heap takes memory from.
    pub fn node(&self) -> usize {
        self.node
    }

    /// What it has claimed of the budget, in bytes.
    pub fn claimed(&self) -> usize {
        self.stock.claimed()
    }

    /// A retired heap serves a new thread, or its own on another node.
    pub fn move_to(&mut self, node: usize) {
        #[cfg(not(feature = "shared-pool"))]
        if node != self.node {
            self.classes
                .iter_mut()
                .for_each(|class| class.own_super = NIL);
        }
        self.node = node;
    }

    /// Takes up to `want` blocks of the class and writes them below `end`, so that a stack whose top is `end` pops
    /// them in address order. Fewer, but at least one, if the heap's own spans have no more. Their number; 0 if there
    /// is no memory.
    ///
    /// # Safety
    /// The `want` places below `end` are the caller's.
    pub unsafe fn take(&mut self, class: usize, end: *mut *mut u8, want: usize) -> usize {
        let begin = self.tracer.begin();
        if self.stock.refilled() {
            self.look();
        }
        let mut got = 0;
        while got < want {
            let Some(span) = self.span_with_blocks(class, got > 0) else {
                break;
            };
            // SAFETY: `want - got` places are left below `end - got`.
            got += unsafe { self.take_from(span, end.sub(got), want - got) };
        }
        self.counters.refills.add(1);
        self.counters.refilled_blocks.add(got as u64);
        self.class_counters[class].refilled_blocks.add(got as u64);
        self.tracer
            .note(begin, EventKind::Refill, class as u8, 0, got as u64);
        got
    }

    /// Takes up to `want` blocks of a span that the heap owns.
    ///
    /// # Safety
    /// As for `take`.
    unsafe fn take_from(&self, span: SpanId, end: *mut *mut u8, want: usize) -> usize {
        let (super_index, slot) = span.split();
        let (metas, meta) = (self.arena.super_meta(super_index), self.arena.span(span));
        let size = CLASSES[meta.class.get() as usize].size as usize;
        let base = self.arena.address_of(span.0 as usize);
        let (mut got, mut last) = (0, 0);
        while got < want && meta.summary.get() != 0 {
            let index = self.choose_word(meta.summary.get());
            let word = metas.free(slot, index);
            let bits = self.choose_blocks(word.get(), want - got);
            let count = bits.count_ones() as usize;
            let first = base + index * 64 * size;
            // SAFETY: `count` places are left below `end - got`.
            unsafe {
                let at = end.sub(got + count);
                if bits == !0 {
                    theap_arch::expand_full(first, size, at);
                } else {
                    theap_arch::expand(bits, first, size, at);
                }
            }
            last = last.max(index * 64 + (63 - bits.leading_zeros() as usize));
            got += count;
            word.set(word.get() & !bits);
            if word.get() == 0 {
                meta.summary.set(meta.summary.get() & !(1 << index));
            }
        }
        meta.free.set(meta.free.get() - got as u32);
        meta.fresh_from
            .set(meta.fresh_from.get().max(last as u32 + 1));
        got
    }

    /// Takes a block that reads zero, if the span at hand has one.
    pub fn take_fresh(&mut self, class: usize) -> Option<*mut u8> {
        let span = self.span_with_blocks(class, false)?;
        let (super_index, slot) = span.split();
        let (metas, meta) = (self.arena.super_meta(super_index), self.arena.span(span));
        let at = meta.fresh_from.get();
        if at >= u32::from(CLASSES[class].blocks) {
            return None;
        }
        let (index, bit) = (at as usize / 64, 1u64 << (at % 64));
        let word = metas.free(slot, index);
        debug_assert!(
            word.get() & bit != 0,
            "a block that was never handed out is free"
        );
        word.set(word.get() & !bit);
        if word.get() == 0 {
            meta.summary.set(meta.summary.get() & !(1 << index));
        }
        meta.free.set(meta.free.get() - 1);
        meta.fresh_from.set(at + 1);
        self.counters.refilled_blocks.add(1);
        self.class_counters[class].refilled_blocks.add(1);
        let address =
            self.arena.address_of(span.0 as usize) + at as usize * CLASSES[class].size as usize;
        Some(address as *mut u8)
    }

    /// A span with a free block, now the class's current one. With `own_only` it does not go to the pool.
    fn span_with_blocks(&mut self, class: usize, own_only: bool) -> Option<SpanId> {
        loop {
            if self.classes[class].current != NIL {
                let span = SpanId(self.classes[class].current);
                if self.has_blocks(span) {
                    return Some(span);
                }
                self.classes[class].current = NIL;
            }
            let next = if let Some(span) = self.classes[class].partial.pop(self.arena) {
                self.arena.span(span).listed.set(false);
                self.counters.stage_own.add(1);
                span
            } else if own_only {
                return None;
            } else {
                self.acquire_span(class)?
            };
            self.classes[class].current = next.0;
        }
    }

    /// Whether a span of the heap has a free block, be it one that came home just now. If not, the heap no longer
    /// owns it.
    fn has_blocks(&mut self, span: SpanId) -> bool {
        let meta = self.arena.span(span);
        if meta.free.get() != 0 {
            return true;
        }
        let begin = self.tracer.begin();
        // Once it is nobody's the span may become anything.
        let class = meta.class.get();
        loop {
            if self.collect_span(span) {
                return true;
            }
            if !meta.shake.disown(self.id) {
                self.counters.spans_disowned.add(1);
                let address = self.arena.address_of(span.0 as usize) as u64;
                self.tracer
                    .note(begin, EventKind::Disown, class, 0, address);
                return false;
            }
        }
    }

    /// Takes home what other threads freed of a span of the heap.
    pub(super) fn collect_span(&self, span: SpanId) -> bool {
        self.arena
            .collect(span)
            .unwrap_or_else(|address| misuse(self.arena.os, Misuse::DoubleFree, address))
    }

    /// TBACKEND: a span of the class from the pool, now the heap's; it may turn out to be full. Where there is no
    /// memory, the heap gives back what it keeps for its other classes and tries once more.
    fn acquire_span(&mut self, class: usize) -> Option<SpanId> {
        if self.arena.learns() {
            self.stock.took(class, &self.arena.budget);
            self.counters.spans_kept.set(self.stock.learned());
        }
        self.span_of_pool(class).or_else(|| {
            self.collect();
            self.span_of_pool(class)
        })
    }

    fn span_of_pool(&mut self, class: usize) -> Option<SpanId> {
        let arena = self.arena;
        let begin = self.tracer.begin();
        if let Some((span, stage)) = arena.take_partial(self.node, class, self.id) {
            arena.span(span).set_last_owner(self.id);
            self.collect_span(span);
            self.count(stage);
            self.note(begin, EventKind::Acquire, span, stage as u8);
            return Some(span);
        }
        let slots = CLASSES[class].slots as usize;
        #[cfg(not(feature = "shared-pool"))]
        if let Some(run) = self.take_in_own_super(class, slots) {
            return Some(arena.make_span(run, class, self.id));
        }
        let nodes = arena.node_count();
        let (run, stage) = (0..nodes).find_map(|away| {
            let (run, stage) = arena.nodes()[(self.node + away) % nodes].acquire_slots(slots, 1)?;
            Some((run, if away == 0 { stage } else { Stage::Remote }))
        })?;
        #[cfg(not(feature = "shared-pool"))]
        self.adopt_super(class, run.slot / crate::pool::SLOTS);
        self.count(stage);
        let span = arena.make_span(run, class, self.id);
        self.note(begin, EventKind::Acquire, span, stage as u8);
        Some(span)
    }

    /// Records what happened to a span of the heap.
    #[inline]
    pub(super) fn note(&self, begin: u64, kind: EventKind, span: SpanId, stage: u8) {
        if begin != 0 {
            let class = self.arena.span(span).class.get();
            let address = self.arena.address_of(span.0 as usize) as u64;
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

    /// Takes spans of the class from the pool until `count` blocks are free in the heap's own, and touches all of them.
    ///
    /// # Errors
    /// What the system answered; the spans taken until then stay.
    pub fn prepare(&mut self, class: usize, count: usize) -> Result<(), Error> {
        let mut free = 0;
        if self.classes[class].current != NIL {
            free += self.touch(SpanId(self.classes[class].current))?;
        }
        for _ in 0..self.classes[class].partial.len() {
            if let Some(span) = self.classes[class].partial.pop(self.arena) {
                self.classes[class].partial.push(span, self.arena);
                free += self.touch(span)?;
            }
        }
        while free < count {
            let span = self.acquire_span(class).ok_or(Error::NoMemory)?;
            if self.has_blocks(span) {
                self.arena.span(span).listed.set(true);
                self.classes[class].partial.push(span, self.arena);
                free += self.touch(span)?;
            }
        }
        Ok(())
    }

    /// Makes the kernel provide the memory of one of the heap's spans. Its free blocks.
    fn touch(&self, span: SpanId) -> Result<usize, Error> {
        let meta = self.arena.span(span);
        let address = self.arena.address_of(span.0 as usize);
        let slots = CLASSES[meta.class.get() as usize].slots as usize;
        // SAFETY: a span's memory is mapped, and populating keeps contents.
        unsafe { self.arena.os.populate(address, slots * SLOT)? };
        Ok(meta.free.get() as usize)
    }

    /// After a block of a span that is not current became free: keeps the span, or gives it back if it is wholly
    /// free and the class has enough others.
    pub(super) fn settle(&mut self, span: SpanId) {
        let meta = self.arena.span(span);
        let class = meta.class.get() as usize;
        if self.classes[class].current == span.0 {
            return;
        }
        let all_free = self.is_free(span);
        let this = &mut self.classes[class];
        if all_free && this.partial.len() >= self.stock.keeps(class) {
            if meta.listed.replace(false) {
                this.partial.remove(span, self.arena);
            }
            self.stock.gave(class);
            self.release(span);
        } else if !meta.listed.replace(true) {
            this.partial.push(span, self.arena);
        }
    }

    /// Forgets what was not needed for a while, and gives so many wholly free spans back: not more, as others may have
    /// been prepared.
    #[cold]
    fn look(&mut self) {
        let arena = self.arena;
        if !arena.learns() {
            return;
        }
        let (now, decay) = (arena.os.recently(), arena.decay());
        let Some(gone) = self.stock.look(now, decay, &arena.budget) else {
            return;
        };
        self.counters.spans_kept.set(self.stock.learned());
        for (class, mut gone) in gone.into_iter().enumerate() {
            for _ in 0..self.classes[class].partial.len() {
                if gone == 0 || self.classes[class].partial.len() <= self.stock.keeps(class) {
                    break;
                }
                if let Some(span) = self.classes[class].partial.pop(arena) {
                    arena.span(span).listed.set(false);
                    gone -= u16::from(self.is_free(span));
                    self.settle(span);
                }
            }
        }
    }

    /// Whether all blocks of a span are free.
    fn is_free(&self, span: SpanId) -> bool {
        let meta = self.arena.span(span);
        meta.free.get() == u32::from(CLASSES[meta.class.get() as usize].blocks)
    }

    fn release(&self, span: SpanId) {
        self.counters.spans_released.add(1);
        let begin = self.tracer.begin();
        let class = self.arena.span(span).class.get();
        self.arena.release_span(span);
        let address = self.arena.address_of(span.0 as usize) as u64;
        self.tracer
            .note(begin, EventKind::Release, class, 0, address);
    }

    /// Takes home what other threads freed of all spans, and gives wholly free spans back.
    pub fn collect(&mut self) {
        self.forget();
        self.part_with_spans(true);
    }

    /// Forgets how many spans it has learned to keep.
    fn forget(&mut self) {
        self.stock.clear(&self.arena.budget);
        self.counters.spans_kept.set(0);
    }

    /// Leaves all spans: the wholly free ones to the pool's slots, partial ones to its lists, full ones to nobody.
    pub fn retire(&mut self) {
        self.part_with_spans(false);
        self.forget();
    }

    fn part_with_spans(&mut self, keep_partial: bool) {
        for class in 0..CLASS_COUNT {
            let current = core::mem::replace(&mut self.classes[class].current, NIL);
            let queued = self.classes[class].partial.len();
            if current != NIL {
                self.part_with(SpanId(current), keep_partial);
            }
            for _ in 0..queued {
                let Some(span) = self.classes[class].partial.pop(self.arena) else {
                    break;
                };
                self.arena.span(span).listed.set(false);
                self.part_with(span, keep_partial);
            }
        }
    }

    fn part_with(&mut self, span: SpanId, keep_partial: bool) {
        let meta = self.arena.span(span);
        let class = meta.class.get() as usize;
        self.collect_span(span);
        if !self.has_blocks(span) {
            return;
        }
        if self.is_free(span) {
            self.release(span);
        } else if keep_partial {
            meta.listed.set(true);
            self.classes[class].partial.push(span, self.arena);
        } else {
            meta.shake.give_to_pool();
            self.arena.put_partial(span);
        }
    }
}

#[cfg(not(feature = "shared-pool"))]
impl Heap {
    /// What the tag of a SuperSlab says if it serves this class of this heap.
    fn tag(&self, class: usize) -> u32 {
        ((self.id as u32) << 8) | class as u32
    }

    fn adopt_super(&mut self, class: usize, super_index: usize) {
        use crate::sync::Ordering::Relaxed;
        self.arena.super_meta(super_index).spans[0]
            .tag
            .store(self.tag(class), Relaxed);
        self.classes[class].own_super = super_index as u32;
    }

    /// Slots of the class's own SuperSlab. It may have become free and somebody else's meanwhile; whoever takes a
    /// whole SuperSlab clears the tag before it offers the rest, so the tag read after the take is the truth.
    fn take_in_own_super(&mut self, class: usize, slots: usize) -> Option<crate::pool::SlotRun> {
        use crate::sync::Ordering::Relaxed;
        let own = self.classes[class].own_super;
        if own == NIL {
            return None;
        }
        let node = &self.arena.nodes()[self.arena.node_of_slot(own as usize * crate::pool::SLOTS)];
        let run = node.take_in(own as usize, slots);
        if let Some(run) = run
            && self.arena.super_meta(own as usize).spans[0]
                .tag
                .load(Relaxed)
                != self.tag(class)
        {
            node.release_slots(run.slot, run.len);
            self.classes[class].own_super = NIL;
            return None;
        }
        run
    }
}

/// Which blocks of a span are taken next: the first ones.
#[cfg(not(feature = "hardened"))]
impl Heap {
    #[inline]
    fn choose_word(&self, summary: u64) -> usize {
        summary.trailing_zeros() as usize
    }

    #[inline]
    fn choose_blocks(&self, word: u64, want: usize) -> u64 {
        lowest(word, want)
    }
}

/// Which blocks of a span are taken next: any.
#[cfg(feature = "hardened")]
impl Heap {
    fn choose_word(&self, summary: u64) -> usize {
        let turn = self.random.below(64) as u32;
        (summary.rotate_right(turn).trailing_zeros() + turn) as usize % 64
    }

    /// A few, so that a refill goes through many words.
    fn choose_blocks(&self, word: u64, want: usize) -> u64 {
        let turn = self.random.below(64) as u32;
        lowest(word.rotate_right(turn), want.min(8)).rotate_left(turn)
    }
}

/// The lowest `count` set bits of a word.
fn lowest(word: u64, count: usize) -> u64 {
    if word.count_ones() as usize <= count {
        return word;
    }
    let mut rest = word;
    for _ in 0..count {
        rest &= rest - 1;
    }
    word ^ rest
}
