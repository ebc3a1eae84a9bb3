//! Spans that are one block: those of the classes above 256 KiB.
//!
//! Such a span has no second block that could come home meanwhile, so it needs no handshake: who
//! hands the block out leaves the span to nobody, and whoever frees the block, in whatever thread,
//! is the span's owner from then on. A heap keeps as many of them as it has learned to, as with any
//! span, but it learns so only from bursts that its thread's magazine has learned before: threads
//! that use large blocks of many sizes at random would each keep the most of each class that were
//! ever free at once. Nothing of them ever is on a list of the pool.
#![allow(unsafe_code)] // Writes addresses of blocks through a raw destination.

use super::Heap;
use super::spans::span_bytes;
use crate::geometry::{ClassId, SpanId};
use crate::messages::{Misuse, misuse};

/// Blocks that a miss asks for if the magazine has learned bursts.
const BURST: usize = 8;

impl Heap {
    /// Does what `take` does, for a class whose blocks are spans.
    ///
    /// # Safety
    /// The `want` places below `end` are the caller's.
    pub(super) unsafe fn take_whole(
        &mut self,
        class: ClassId,
        end: *mut *mut u8,
        want: usize,
    ) -> usize {
        let mut got = 0;
        while got < want
            && let Some(span) = self.free_span(class, got > 0, want >= BURST)
        {
            got += 1;
            // SAFETY: one of `want` places, as this function's Safety section has it.
            unsafe { end.sub(got).write(self.hand_out(span)) };
        }
        got
    }

    /// The address of a block that reads zero, if the span that the heap would use next does. The
    /// class's blocks are spans.
    #[cfg_attr(
        any(feature = "hardened", feature = "valgrind"),
        allow(dead_code, reason = "every block is cleared there")
    )]
    pub(super) fn take_whole_fresh(&mut self, class: ClassId) -> Option<*mut u8> {
        let span = self.free_span(class, false, false)?;
        if self.meta(span).fresh_from.get() > 0 {
            self.push_partial(class, span);
            return None;
        }
        Some(self.hand_out(span))
    }

    /// A span that the heap keeps, or with `own_only` false one of the pool, of which the heap
    /// `learns`.
    fn free_span(&mut self, class: ClassId, own_only: bool, learns: bool) -> Option<SpanId> {
        if let Some(span) = self.pop_partial(class) {
            self.counters.stage_own.add(1);
            return Some(span);
        }
        if own_only {
            return None;
        }
        if learns {
            self.learn_to_keep(class);
        }
        self.acquire_span(class)
    }

    /// Leaves a span of the heap to nobody, as its block is handed out. The block's address.
    fn hand_out(&mut self, span: SpanId) -> *mut u8 {
        let ((metas, slot), meta) = (self.super_meta(span), self.meta(span));
        metas.free(slot, 0).set(0);
        meta.summary.set(0);
        meta.fresh_from.set(1);
        self.set_free_count(meta, 0);
        self.board.span_bytes.sub(span_bytes(meta.class.get()));
        meta.shake.hand_out();
        self.arena.addresses().address_of(span.slot()) as *mut u8
    }

    /// Takes a span over whose block is freed at `address`. The heap keeps it or gives it back, as
    /// if it had been the heap's before.
    pub(super) fn take_back(&mut self, span: SpanId, address: usize) {
        if self.arena.addresses().address_of(span.slot()) != address {
            misuse(self.arena.os(), Misuse::NotABlock, address);
        }
        let ((metas, slot), meta) = (self.super_meta(span), self.meta(span));
        if !meta.shake.retake(self.id) {
            misuse(self.arena.os(), Misuse::DoubleFree, address);
        }
        self.board.span_bytes.add(span_bytes(meta.class.get()));
        metas.free(slot, 0).set(1);
        meta.summary.set(1);
        meta.set_last_owner(self.id);
        self.set_free_count(meta, 1);
        if self.arena.addresses().node_of(span.slot()) == self.node() {
            self.settle(span);
        } else {
            self.release(span);
        }
    }
}
