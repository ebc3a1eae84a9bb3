//! The lists of partial spans of a node, one a class, each behind a lock of its own.
#![allow(unsafe_code)] // Leans on who owns a span; frees locks by force, after fork.

use super::inbox::Inbox;
use super::queue::SpanQueue;
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::geometry::{ClassId, Kind, SLOTS, SpanId};
use crate::messages::{Misuse, misuse};
use crate::pool::addresses::SlotRun;
use crate::pool::ground::Ground;
use crate::pool::metadata::Rest;
use crate::pool::metadata::ownership::{POOL, RUN};
use crate::pool::pages::Pages;
use crate::pool::supers::PARTS;
use crate::stats::board::NodeBoard;
use core::sync::atomic::Ordering;
use theap_platform::{Guard, Mutex, Rank};

/// Tries after which a taker of a partial span looks elsewhere: some µs. A list's lock is held for
/// some tens of ns unless its holder is preempted, and then for long.
const TAKER_TRIES: usize = 1 << 7;
/// Spans of one class that a sweep before growth looks at.
const SWEEP: usize = 16;

/// The partial spans of a node, and how spans become slots again.
pub struct NodeLists {
    ground: Ground,
    pages: &'static Pages,
    lists: [Mutex<SpanQueue>; CLASS_COUNT],
    /// The spans that are on their way to a list.
    inboxes: [Inbox; CLASS_COUNT],
    board: &'static NodeBoard,
}

impl NodeLists {
    /// Empty lists of the node with these pages and figures.
    pub fn new(ground: Ground, pages: &'static Pages, board: &'static NodeBoard) -> Self {
        Self {
            ground,
            pages,
            lists: core::array::from_fn(|_| Mutex::new(Rank::Partial, SpanQueue::default())),
            inboxes: core::array::from_fn(|_| Inbox::default()),
            board,
        }
    }

    /// The list of a class, with what was on its way there.
    #[cfg(any(test, debug_assertions))]
    fn list(&self, class: ClassId) -> Guard<'_, SpanQueue> {
        self.received(class, self.lists[class.index()].lock())
    }

    /// The list of a class, if its lock can be had soon, with what was on its way there.
    fn try_list(&self, class: ClassId, tries: usize) -> Option<Guard<'_, SpanQueue>> {
        let list = self.lists[class.index()].try_lock_often(tries)?;
        Some(self.received(class, list))
    }

    fn received<'a>(&self, class: ClassId, mut list: Guard<'a, SpanQueue>) -> Guard<'a, SpanQueue> {
        self.inboxes[class.index()].drain(&mut list, &self.ground.metadata);
        list
    }

    /// Puts a span on its list, or on its way there if somebody else has the list's lock. Never
    /// waits.
    ///
    /// # Safety
    /// The span is of the class and the pool's, and the caller has taken it from its list or stash,
    /// or given it to the pool just now.
    pub unsafe fn push(&self, class: ClassId, span: SpanId) {
        match self.try_list(class, 1) {
            Some(mut list) => list.push(span, &self.ground.metadata),
            None => self.inboxes[class.index()].push(span, &self.ground.metadata),
        }
    }

    /// Takes the oldest span of a list; `None` if it is empty, or if others have its lock for long.
    pub fn pop(&self, class: ClassId) -> Option<SpanId> {
        let mut list = self.try_list(class, TAKER_TRIES)?;
        if list.is_empty() {
            None
        } else {
            list.pop(&self.ground.metadata)
        }
    }

    /// The number of spans on a list, or 0 if others have its lock for long.
    pub fn len(&self, class: ClassId) -> usize {
        let list = self.try_list(class, TAKER_TRIES);
        list.map_or(0, |list| list.len())
    }

    /// Releases, before growth, the spans of the lists whose blocks have all come home by remote
    /// frees. Looks at a bounded number of spans. Returns whether any was released.
    pub fn sweep(&self) -> bool {
        let mut any = false;
        for class in ClassId::all() {
            any |= self.sweep_class(class, self.len(class).min(SWEEP));
        }
        any
    }

    /// Releases spans of all lists whose blocks have all come home, whatever their number.
    pub fn sweep_all(&self) {
        for class in ClassId::all() {
            self.sweep_class(class, self.len(class));
        }
    }

    /// Looks at up to `count` of the oldest spans of a list, and releases those whose blocks have
    /// all come home. They go back as if they were needed at once.
    pub fn sweep_oldest(&self, class: ClassId, count: usize) {
        self.sweep_class(class, count);
    }

    /// For a reclaimer, in a part of `decay` whose number modulo 256 is `part`: releases the oldest
    /// span if its blocks have all come home, and gives its free pages back if it was first seen
    /// here a `decay` ago. The bytes of these pages; `None` if there is no span.
    pub fn sweep_idle(&self, class: ClassId, part: u8) -> Option<usize> {
        let span = self.pop(class)?;
        // SAFETY: taken from the list just now; what is not released is the pool's still.
        unsafe {
            let meta = self.ground.metadata.span(span);
            let any = self.collect(span);
            let rest = meta.rest();
            if self.is_free(class, span) {
                if rest == Rest::Long && !any {
                    self.release_idle(span);
                } else {
                    let since = part.wrapping_sub(meta.sent_in.load(Ordering::Relaxed));
                    let slots = meta.slots.get() as usize;
                    self.release(span);
                    self.pages.supers().decay().were_free(slots, since.into());
                }
                return Some(0);
            }
            let is_over = |since| usize::from(part.wrapping_sub(since)) >= PARTS;
            let (rest, discards) = match rest {
                Rest::Unseen => (Rest::SeenIn(part), false),
                Rest::SeenIn(since) if is_over(since) => (Rest::Long, true),
                Rest::SeenIn(_) => (rest, false),
                Rest::Long => (rest, any),
            };
            meta.set_rest(rest);
            let bytes = if discards { self.discard(span) } else { 0 };
            self.push(class, span);
            Some(bytes)
        }
    }

    /// Does what `sweep_all` does, and gives the free pages of the other spans back. Their bytes.
    pub fn discard_all(&self) -> usize {
        let mut bytes = 0;
        for class in ClassId::all() {
            for _ in 0..self.len(class) {
                let Some(span) = self.pop(class) else {
                    break;
                };
                // SAFETY: taken from the list just now; what is not released is the pool's still.
                unsafe {
                    if !self.release_if_free(class, span) {
                        bytes += self.discard(span);
                        self.push(class, span);
                    }
                }
            }
        }
        bytes
    }

    /// Gives back the pages that hold nothing but free blocks of a span. Their bytes.
    ///
    /// # Safety
    /// The caller alone owns the span.
    pub unsafe fn discard(&self, span: SpanId) -> usize {
        // SAFETY: this function's own Safety section.
        unsafe { self.pages.discard(span) }
    }

    fn sweep_class(&self, class: ClassId, count: usize) -> bool {
        let mut any = false;
        for _ in 0..count {
            let Some(span) = self.pop(class) else {
                break;
            };
            // SAFETY: taken from the list just now; what is not released is the pool's still.
            unsafe {
                match self.release_if_free(class, span) {
                    true => any = true,
                    false => self.push(class, span),
                }
            }
        }
        any
    }

    /// Collects a span, and releases it if its blocks are all free. No other thread can find it
    /// while its owner word is POOL and it is on no list.
    ///
    /// # Safety
    /// The caller has taken the span from the list of the class.
    unsafe fn release_if_free(&self, class: ClassId, span: SpanId) -> bool {
        // SAFETY: this function's own Safety section.
        unsafe {
            self.collect(span);
            let is_free = self.is_free(class, span);
            if is_free {
                self.release(span);
            }
            is_free
        }
    }

    /// Moves what came home to a span into its free bits. Whether there was anything.
    ///
    /// # Safety
    /// The caller has taken the span from a list.
    unsafe fn collect(&self, span: SpanId) -> bool {
        // SAFETY: spans on lists are of mapped SuperSlabs, and this one is the caller's alone, as
        // this function's Safety section has it.
        unsafe {
            debug_assert_eq!(self.ground.metadata.span(span).shake.owner(), POOL);
            super::table::collect(&self.ground, span)
        }
        .unwrap_or_else(|address| misuse(self.ground.policy.os(), Misuse::DoubleFree, address))
    }

    /// Whether all blocks of a span are free.
    ///
    /// # Safety
    /// The caller has taken the span from the list of the class.
    unsafe fn is_free(&self, class: ClassId, span: SpanId) -> bool {
        // SAFETY: as in `collect`.
        let free = unsafe { self.ground.metadata.span(span) }.free.get();
        free == u32::from(CLASSES[class.index()].blocks)
    }

    /// Gives back the slots of a span.
    ///
    /// # Safety
    /// The caller alone owns the span, of which all blocks are free.
    pub unsafe fn release(&self, span: SpanId) {
        // SAFETY: this function's own Safety section.
        let run = unsafe { self.end(span) };
        self.pages.release_slots(run);
    }

    /// Gives back the slots of a span that was idle for long, or that will be used at once.
    ///
    /// # Safety
    /// The conditions of `release`.
    pub unsafe fn release_idle(&self, span: SpanId) {
        // SAFETY: this function's own Safety section.
        let run = unsafe { self.end(span) };
        self.pages.release_idle(run);
    }

    /// Ends a span. Its slots, which are the caller's.
    ///
    /// # Safety
    /// The conditions of `release`.
    unsafe fn end(&self, span: SpanId) -> SlotRun {
        // SAFETY: a span lies in a mapped SuperSlab. Its owner holds its slots until here, as this
        // function's Safety section has it.
        unsafe {
            let meta = self.ground.metadata.span(span);
            self.count(ClassId::new(usize::from(meta.class.get())), -1);
            let len = meta.slots.get() as usize;
            meta.shake.release();
            SlotRun::held(span.slot(), len, false)
        }
    }

    /// The pages of the node.
    pub fn pages(&self) -> &'static Pages {
        self.pages
    }

    /// Counts spans of the class that came to be or ended.
    pub fn count(&self, class: ClassId, change: i64) {
        self.board.spans[class.index()].fetch_add(change as u64, Ordering::Relaxed);
    }

    /// Counts slots of runs that came to be or ended.
    pub fn count_run(&self, was: usize, is: usize) {
        let change = (is as u64).wrapping_sub(was as u64);
        self.board.run_slots.fetch_add(change, Ordering::Relaxed);
    }

    /// Takes the locks of all lists, before fork.
    pub fn lock(&self) {
        for list in &self.lists {
            list.lock_for_fork();
        }
    }

    /// Frees the locks that `lock` took, in the parent or in the child.
    ///
    /// # Safety
    /// This thread (or in a child, the thread that forked) called `lock` before.
    pub unsafe fn unlock(&self) {
        for list in &self.lists {
            // SAFETY: this thread holds the lock, as this function's Safety section asks.
            unsafe { list.force_unlock() };
        }
    }

    /// Calls `each` with every list, for checks.
    #[cfg(any(test, debug_assertions))]
    pub fn each_list(&self, mut each: impl FnMut(ClassId, &SpanQueue)) {
        for class in ClassId::all() {
            each(class, &self.list(class));
        }
    }

    /// The slots of spans and runs that are counted on the board.
    #[cfg(any(test, debug_assertions))]
    pub fn counted_slots(&self) -> u64 {
        let spans = self.board.spans.iter().zip(&CLASSES);
        let slots = spans
            .map(|(spans, class)| spans.load(Ordering::Relaxed) * u64::from(class.slots))
            .sum::<u64>();
        slots + self.board.run_slots.load(Ordering::Relaxed)
    }

    /// Counts the node's spans and the slots of its runs anew. Nobody else is inside the allocator.
    pub fn recount(&self) {
        let (mut spans, mut run_slots) = ([0; CLASS_COUNT], 0);
        let Ground {
            addresses,
            metadata,
            ..
        } = self.ground;
        for i in self.pages.mapped_supers() {
            let id = self.pages.supers().id(i);
            let heads = (0..SLOTS)
                .map(|at| id.slot(at))
                .filter(|&slot| addresses.distance(slot) == 0);
            for slot in heads {
                match addresses.kind(slot) {
                    Kind::Free => {}
                    Kind::Class(class) => spans[class.index()] += 1,
                    Kind::Large | Kind::Huge => {
                        // SAFETY: the SuperSlab is mapped.
                        let meta = unsafe { metadata.span(slot.span()) };
                        // A shelved run is nobody's.
                        if meta.shake.owner() == RUN {
                            run_slots += u64::from(meta.slots.get());
                        }
                    }
                }
            }
        }
        self.board.run_slots.store(run_slots, Ordering::Relaxed);
        for (count, spans) in self.board.spans.iter().zip(spans) {
            count.store(spans, Ordering::Relaxed);
        }
    }
}
