//! Spans in between owners: POOL's spans, in CPU stashes and on the node's lists.

use super::node::{Node, TAKER_TRIES};
use super::{Arena, SpanId, Stage, kind};
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::heap::ownership::{FREE, POOL};
use core::sync::atomic::Ordering;

/// Spans of one class that a sweep before growth looks at.
const SWEEP: usize = 16;

impl Arena {
    /// Keeps a span that is POOL's already: in a stash of this CPU, else on its node's list.
    pub fn put_partial(&self, span: SpanId) {
        let class = self.span(span).class.get() as usize;
        let cpu = self.current_cpu().0 as usize;
        let node = self.node_of_slot(span.0 as usize);
        // A stash serves threads of its CPU, and so of its CPU's node.
        if self.node_of_cpu(theap_platform::Cpu(cpu as u32)) != Some(node)
            || !self.stash(cpu, class).put(span)
        {
            self.nodes()[node].push_partial(class, span);
        }
    }

    /// Takes a span of the class for heap `me`: of this CPU's stash, the node's list, another CPU's stash. It may
    /// turn out to be full.
    pub fn take_partial(&self, node: usize, class: usize, me: u64) -> Option<(SpanId, Stage)> {
        let cpu = self.current_cpu().0 as usize;
        let mine = |span: &SpanId| {
            let same = self.node_of_slot(span.0 as usize) == node;
            if !same {
                // The thread has moved since the span was stashed; its list is where its own node looks.
                self.nodes()[self.node_of_slot(span.0 as usize)].push_partial(class, *span);
            }
            same
        };
        let (span, stage) = if let Some(span) = self.stash(cpu, class).take().filter(mine) {
            (span, Stage::Stash)
        } else if let Some(span) = self.nodes()[node].pop_partial(class) {
            (span, Stage::Partial)
        } else {
            let span = (0..self.cpus())
                .filter(|&other| {
                    other != cpu
                        && self.node_of_cpu(theap_platform::Cpu(other as u32)) == Some(node)
                })
                .find_map(|other| self.stash(other, class).take())
                .filter(mine)?;
            (span, Stage::Partial)
        };
        self.span(span).shake.take_from_pool(me);
        Some((span, stage))
    }

    /// Moves what remote frees have set into the free bits of a span that the caller owns; whether there was any.
    ///
    /// # Errors
    /// The address of a block that came home although it was free already.
    pub fn collect(&self, span: SpanId) -> Result<bool, usize> {
        let (super_index, slot) = span.split();
        let (metas, meta) = (self.super_meta(super_index), self.span(span));
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
                let size = CLASSES[meta.class.get() as usize].size as usize;
                Err(self.address_of(span.0 as usize) + index * size)
            }
        }
    }

    /// Gives back the slots of a span whose blocks are all free and that the caller owns.
    pub fn release_span(&self, span: SpanId) {
        let meta = self.span(span);
        let len = meta.slots.get() as usize;
        let node = &self.nodes()[self.node_of_slot(span.0 as usize)];
        node.board.spans[meta.class.get() as usize].fetch_sub(1, Ordering::Relaxed);
        meta.shake.release();
        node.release_slots(span.0 as usize, len);
    }

    /// Turns free slots into a span of the class, owned by heap `me`, all blocks free.
    pub fn make_span(&self, run: super::SlotRun, class: usize, me: u64) -> SpanId {
        let span = SpanId(run.slot as u32);
        for i in 0..run.len {
            self.head(run.slot + i).store(i as u8, Ordering::Relaxed);
            self.kind(run.slot + i)
                .store(kind::FIRST + class as u8, Ordering::Relaxed);
        }
        let (super_index, slot) = span.split();
        let (metas, meta) = (self.super_meta(super_index), self.span(span));
        debug_assert_eq!(meta.shake.owner(), FREE);
        let blocks = u32::from(CLASSES[class].blocks);
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
        meta.fresh_from.set(if run.fresh { 0 } else { blocks });
        meta.slots.set(run.len as u32);
        meta.class.set(class as u8);
        meta.listed.set(false);
        meta.set_last_owner(me);
        #[cfg(feature = "hardened")]
        self.forget_lives(span, class);
        meta.shake.claim(me);
        self.nodes()[self.node_of_slot(run.slot)].board.spans[class]
            .fetch_add(1, Ordering::Relaxed);
        span
    }
}

impl Node {
    pub(super) fn pop_partial(&self, class: usize) -> Option<SpanId> {
        let mut list = self.try_list(class, TAKER_TRIES)?;
        if list.is_empty() {
            None
        } else {
            list.pop(self.arena)
        }
    }

    /// Before growth: spans of the lists and stashes whose blocks have all come home by remote frees are released.
    /// Bounded. True if any was.
    pub(super) fn sweep(&self) -> bool {
        let mut any = false;
        for class in 0..CLASS_COUNT {
            let listed = self.partial[class].lock().len().min(SWEEP);
            for _ in 0..listed {
                let Some(span) = self.pop_partial(class) else {
                    break;
                };
                any |= self.release_or_keep(span);
            }
        }
        any
    }

    /// As `sweep`, for everything that the node has, stashes included.
    pub fn sweep_all(&self) {
        for class in 0..CLASS_COUNT {
            for cpu in 0..self.arena.cpus() {
                while let Some(span) = self.arena.stash(cpu, class).take() {
                    self.arena.nodes()[self.arena.node_of_slot(span.0 as usize)]
                        .push_partial(class, span);
                }
            }
            let listed = self.partial[class].lock().len();
            for _ in 0..listed {
                let Some(span) = self.pop_partial(class) else {
                    break;
                };
                self.release_or_keep(span);
            }
        }
    }

    /// Collects a span taken from a list, which nobody else can find while its owner is POOL and it is on no list.
    fn release_or_keep(&self, span: SpanId) -> bool {
        let meta = self.arena.span(span);
        debug_assert_eq!(meta.shake.owner(), POOL);
        let class = meta.class.get() as usize;
        if let Err(address) = self.arena.collect(span) {
            crate::fatal::misuse(self.arena.os, crate::fatal::Misuse::DoubleFree, address);
        }
        if meta.free.get() == u32::from(CLASSES[class].blocks) {
            self.arena.release_span(span);
            return true;
        }
        self.push_partial(class, span);
        false
    }
}
