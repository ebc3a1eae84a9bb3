//! Refill: a heap takes blocks out of its spans.
#![allow(unsafe_code)] // Writes addresses of blocks through a raw destination.

use super::Heap;
use crate::classes::CLASSES;
use crate::geometry::{ClassId, SpanId};
use crate::stats::events::EventKind;

impl Heap {
    /// Takes up to `want` blocks of the class and writes them below `end`, so that a stack whose
    /// top is `end` pops them in address order. If the heap's own spans have fewer, it takes those,
    /// but at least one block. Returns the number of blocks; 0 if there is no memory.
    ///
    /// # Safety
    /// The `want` places below `end` are the caller's.
    pub unsafe fn take(&mut self, class: ClassId, end: *mut *mut u8, want: usize) -> usize {
        let begin = self.tracer.begin();
        self.note_batch();
        // SAFETY: this function's own Safety section.
        let got = unsafe {
            if CLASSES[class.index()].is_whole() {
                self.take_whole(class, end, want)
            } else {
                self.take_of_several(class, end, want)
            }
        };
        self.counters.refills.add(1);
        self.counters.refilled_blocks.add(got as u64);
        let counters = &self.class_counters[class.index()];
        counters.refilled_blocks.add(got as u64);
        let class = class.index() as u8;
        self.tracer
            .note(begin, EventKind::Refill, class, 0, got as u64);
        got
    }

    /// Does what `take` does, for a class whose spans have several blocks.
    ///
    /// # Safety
    /// The `want` places below `end` are the caller's.
    unsafe fn take_of_several(&mut self, class: ClassId, end: *mut *mut u8, want: usize) -> usize {
        let mut got = 0;
        while got < want
            && let Some(span) = self.span_with_blocks(class, got > 0)
        {
            // SAFETY: `want - got` places are left below `end - got`, of those that this function's
            // Safety section asks for.
            got += unsafe { self.take_from(span, end.sub(got), want - got) };
        }
        got
    }

    /// Takes up to `want` blocks of a span that the heap owns.
    ///
    /// # Safety
    /// The `want` places below `end` are the caller's.
    unsafe fn take_from(&mut self, span: SpanId, end: *mut *mut u8, want: usize) -> usize {
        let ((metas, slot), meta) = (self.super_meta(span), self.meta(span));
        let size = CLASSES[usize::from(meta.class.get())].size as usize;
        let base = self.arena.addresses().address_of(span.slot());
        let (mut got, mut last) = (0, 0);
        while got < want && meta.summary.get() != 0 {
            let index = self.choice.word(meta.summary.get());
            let word = metas.free(slot, index);
            let bits = self.choice.blocks(word.get(), want - got);
            let count = bits.count_ones() as usize;
            let first = base + index * 64 * size;
            // SAFETY: `count` places are left below `end - got`, of those that this function's
            // Safety section asks for.
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
        self.set_free_count(meta, meta.free.get() - got as u32);
        meta.fresh_from
            .set(meta.fresh_from.get().max(last as u32 + 1));
        got
    }

    /// Takes a block that reads zero, if the span that would serve next has one.
    #[cfg_attr(
        any(feature = "hardened", feature = "valgrind"),
        allow(dead_code, reason = "every block is cleared there")
    )]
    pub fn take_fresh(&mut self, class: ClassId) -> Option<*mut u8> {
        let block = if CLASSES[class.index()].is_whole() {
            self.take_whole_fresh(class)
        } else {
            self.take_fresh_of_several(class)
        };
        if block.is_some() {
            self.counters.refilled_blocks.add(1);
            self.class_counters[class.index()].refilled_blocks.add(1);
        }
        block
    }

    #[cfg_attr(
        any(feature = "hardened", feature = "valgrind"),
        allow(dead_code, reason = "every block is cleared there")
    )]
    fn take_fresh_of_several(&mut self, class: ClassId) -> Option<*mut u8> {
        let span = self.span_with_blocks(class, false)?;
        let ((metas, slot), meta) = (self.super_meta(span), self.meta(span));
        let (at, info) = (meta.fresh_from.get(), &CLASSES[class.index()]);
        if at >= u32::from(info.blocks) {
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
        self.set_free_count(meta, meta.free.get() - 1);
        meta.fresh_from.set(at + 1);
        let base = self.arena.addresses().address_of(span.slot());
        Some((base + at as usize * info.size as usize) as *mut u8)
    }
}
