//! Spans without an owner, and how a span comes to be and ends.
#![allow(unsafe_code)] // Leans on who owns a span.

use super::stash::Stash;
use super::stashed::Stashed;
use super::{NodeLists, Stage};
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::geometry::{ClassId, Kind, NodeIndex, SLOT, SpanId};
use crate::pool::addresses::SlotRun;
use crate::pool::ground::Ground;
use crate::pool::metadata::Rest;
use crate::pool::metadata::ownership::FREE;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use theap_platform::Cpu;

/// The spans of a heap: the stashes of its CPUs, and the lists of its nodes.
pub struct Spans {
    ground: Ground,
    /// CLASS_COUNT stashes for each CPU.
    stashes: &'static [Stash],
    /// For each class, which CPUs have spans in theirs.
    stashed: &'static [AtomicU64],
    lists: &'static [NodeLists],
    /// Blocks have come home to spans of others.
    sent: AtomicBool,
}

impl Spans {
    /// Empty stashes, `CLASS_COUNT` for each CPU, with their bits, before the lists of all nodes.
    pub fn new(
        ground: Ground,
        (stashes, stashed): (&'static [Stash], &'static [AtomicU64]),
        lists: &'static [NodeLists],
    ) -> Self {
        debug_assert_eq!(stashes.len(), ground.affinity.cpus() * CLASS_COUNT);
        Self {
            ground,
            stashes,
            stashed,
            lists,
            sent: AtomicBool::new(false),
        }
    }

    /// The lists of the node that a span belongs to.
    #[inline]
    fn lists_of(&self, span: SpanId) -> &'static NodeLists {
        &self.lists[self.ground.addresses.node_of(span.slot()).index()]
    }

    /// The stash of a class on a CPU; CPUs beyond those possible at start share those of others.
    fn stash(&self, cpu: usize, class: ClassId) -> &'static Stash {
        let cpu = cpu % self.ground.affinity.cpus();
        &self.stashes[cpu * CLASS_COUNT + class.index()]
    }

    /// Which stashes of a class have spans.
    fn stashed(&self, class: ClassId) -> Stashed<'static> {
        let words = Stashed::words(self.ground.affinity.cpus());
        Stashed::new(&self.stashed[class.index() * words..][..words])
    }

    /// Puts a span into the stash of a CPU. Returns false if every place is taken.
    fn put_stashed(&self, cpu: usize, class: ClassId, span: SpanId) -> bool {
        let put = self.stash(cpu, class).put(span);
        if put {
            self.stashed(class).note(cpu % self.ground.affinity.cpus());
        }
        put
    }

    /// Keeps a span: in a stash of this CPU, else on the list of its node.
    ///
    /// # Safety
    /// The span is the pool's, and the caller has made it so just now.
    pub unsafe fn put_partial(&self, span: SpanId) {
        // SAFETY: a span lies in a mapped SuperSlab.
        let class = unsafe { self.ground.metadata.span(span) }.class.get();
        let class = ClassId::new(usize::from(class));
        let cpu = self.ground.affinity.current_cpu();
        let node = self.ground.addresses.node_of(span.slot());
        // A stash serves threads of its CPU, and so of its CPU's node.
        if self.ground.affinity.node_of_cpu(cpu) != Some(node)
            || !self.put_stashed(cpu.0 as usize, class, span)
        {
            // SAFETY: the pool's, as this function's Safety section has it, and in no stash.
            unsafe { self.lists[node.index()].push(class, span) };
        }
    }

    /// Takes a span of the class for heap `me`: of this CPU's stash, the node's list, another CPU's
    /// stash. The span may turn out to be full.
    pub fn take_partial(
        &self,
        node: NodeIndex,
        class: ClassId,
        me: u64,
    ) -> Option<(SpanId, Stage)> {
        let affinity = self.ground.affinity;
        let cpu = affinity.current_cpu().0 as usize;
        let mine = |span: &SpanId| {
            let same = self.ground.addresses.node_of(span.slot()) == node;
            if !same {
                // The thread has moved since the span was stashed; its list is where its own node
                // looks.
                // SAFETY: taken from a stash of the class.
                unsafe { self.lists_of(*span).push(class, *span) };
            }
            same
        };
        let (span, stage) = if let Some(span) = self.stash(cpu, class).take().filter(mine) {
            (span, Stage::Stash)
        } else if let Some(span) = self.lists[node.index()].pop(class) {
            (span, Stage::Partial)
        } else {
            let wanted =
                |other| other != cpu && affinity.node_of_cpu(Cpu(other as u32)) == Some(node);
            let take = |other| self.stash(other, class).take();
            let span = self.stashed(class).find(wanted, take).filter(mine)?;
            (span, Stage::Partial)
        };
        // SAFETY: a span lies in a mapped SuperSlab.
        let meta = unsafe { self.ground.metadata.span(span) };
        meta.shake.take_from_pool(me);
        meta.set_rest(Rest::Unseen);
        Some((span, stage))
    }

    /// Moves what remote frees have set into the free bits of a span. Returns whether there were
    /// any.
    ///
    /// # Errors
    /// The address of a block that came home although it was free already.
    ///
    /// # Safety
    /// The caller alone owns the span.
    #[inline]
    pub unsafe fn collect(&self, span: SpanId) -> Result<bool, usize> {
        // SAFETY: this function's own Safety section.
        unsafe { collect(&self.ground, span) }
    }

    /// Gives back the slots of a span.
    ///
    /// # Safety
    /// The caller alone owns the span, of which all blocks are free.
    pub unsafe fn release(&self, span: SpanId) {
        // SAFETY: this function's own Safety section.
        unsafe { self.lists_of(span).release(span) };
    }

    /// Gives back the pages that hold nothing but free blocks of a span. Their bytes.
    ///
    /// # Safety
    /// The caller alone owns the span.
    pub unsafe fn discard(&self, span: SpanId) -> usize {
        // SAFETY: this function's own Safety section.
        unsafe { self.lists_of(span).discard(span) }
    }

    /// Turns slots into a span of the class, owned by heap `me`, all blocks free.
    pub fn make(&self, run: SlotRun, class: ClassId, me: u64) -> SpanId {
        let Ground {
            addresses,
            metadata,
            ..
        } = &self.ground;
        let span = run.slot().span();
        addresses.dress(&run, Kind::Class(class));
        let (super_id, slot) = span.split();
        // SAFETY: ACTIVE slots lie in a mapped SuperSlab.
        let (metas, meta) = unsafe { (metadata.of(super_id), metadata.span(span)) };
        debug_assert_eq!(meta.shake.owner(), FREE);
        let blocks = u32::from(CLASSES[class.index()].blocks);
        let full = (blocks / 64) as usize;
        for index in 0..full {
            metas.free(slot, index).set(!0);
        }
        let mut words = full;
        if blocks % 64 != 0 {
            metas.free(slot, full).set((1 << (blocks % 64)) - 1);
            words += 1;
        }
        meta.summary
            .set(if words == 64 { !0 } else { (1 << words) - 1 });
        meta.free.set(blocks);
        meta.fresh_from.set(if run.is_fresh() { 0 } else { blocks });
        meta.slots.set(run.len() as u32);
        meta.class.set(class.index() as u8);
        meta.listed.set(false);
        meta.set_rest(Rest::Unseen);
        meta.set_last_owner(me);
        // SAFETY: the span's slots are this thread's.
        unsafe { metadata.forget_lives(span, class) };
        meta.shake.claim(me);
        self.lists_of(span).count(class, 1);
        span
    }

    /// The lists of all nodes.
    pub fn lists(&self) -> &'static [NodeLists] {
        self.lists
    }

    /// Moves all stashed spans to the lists of their nodes.
    pub fn empty_stashes(&self) {
        ClassId::all().for_each(|class| self.empty_stashes_of(class));
    }

    /// Moves the stashed spans of a class to the lists of their nodes.
    pub fn empty_stashes_of(&self, class: ClassId) {
        let take = |cpu| self.stash(cpu, class).take();
        while let Some(span) = self.stashed(class).find(|_| true, take) {
            // SAFETY: taken from a stash of the class.
            unsafe { self.lists_of(span).push(class, span) };
        }
    }

    /// Puts a span on the list of its node that others have not used for a while: not into a stash,
    /// whose spans are used next.
    ///
    /// # Safety
    /// The conditions of `put_partial`.
    pub unsafe fn put_idle(&self, span: SpanId) {
        // SAFETY: a span lies in a mapped SuperSlab.
        let class = unsafe { self.ground.metadata.span(span) }.class.get();
        // SAFETY: this function's own Safety section.
        unsafe {
            self.lists_of(span)
                .push(ClassId::new(usize::from(class)), span)
        };
    }

    /// Gives back the slots of a span that was idle for long.
    ///
    /// # Safety
    /// The conditions of `release`.
    pub unsafe fn release_idle(&self, span: SpanId) {
        // SAFETY: this function's own Safety section.
        unsafe { self.lists_of(span).release_idle(span) };
    }

    /// Looks at the oldest spans of a list, for as many as `bytes` are: blocks have come home to
    /// spans like these. `span` is on the node of the list.
    pub fn sweep_like(&self, span: SpanId, class: ClassId, bytes: usize) {
        let one = CLASSES[class.index()].slots as usize * SLOT;
        if !self.sent.load(Ordering::Relaxed) {
            self.sent.store(true, Ordering::Relaxed);
        }
        self.lists_of(span).sweep_oldest(class, bytes.div_ceil(one));
    }

    /// Whether so many blocks have come home to spans of others, since this was asked last, that
    /// some of these were swept.
    pub fn take_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed) && self.sent.swap(false, Ordering::Relaxed)
    }

    /// Calls `each` with every stashed span, for checks.
    #[cfg(any(test, debug_assertions))]
    pub fn each_stashed(&self, mut each: impl FnMut(ClassId, SpanId)) {
        for (at, stash) in self.stashes.iter().enumerate() {
            let class = ClassId::new(at % CLASS_COUNT);
            stash.spans().for_each(|span| {
                assert!(
                    self.stashed(class).has(at / CLASS_COUNT),
                    "{span:?} is not noted"
                );
                each(class, span);
            });
        }
    }
}

/// Moves what remote frees have set into the free bits of a span; see [`Spans::collect`].
///
/// # Errors
/// The address of a block that came home although it was free already.
///
/// # Safety
/// The caller alone owns the span.
pub unsafe fn collect(ground: &Ground, span: SpanId) -> Result<bool, usize> {
    let (super_id, slot) = span.split();
    // SAFETY: a span lies in a mapped SuperSlab.
    let (metas, meta) = unsafe { (ground.metadata.of(super_id), ground.metadata.span(span)) };
    let mut twice = None;
    let any = meta.shake.collect(
        |index| metas.remote(slot, index),
        |index, bits| {
            let word = metas.free(slot, index);
            if word.get() & bits != 0 {
                twice = Some(index * 64 + (word.get() & bits).trailing_zeros() as usize);
            }
            word.set(word.get() | bits);
            meta.summary.set(meta.summary.get() | 1 << index);
            meta.free.set(meta.free.get() + bits.count_ones());
        },
    );
    match twice {
        None => Ok(any),
        Some(index) => {
            let size = CLASSES[usize::from(meta.class.get())].size as usize;
            Err(ground.addresses.address_of(span.slot()) + index * size)
        }
    }
}
