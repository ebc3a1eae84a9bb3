//! Giving the free pages inside of spans back to the system, when the program asks for a purge.
//!
//! A span of which one block is live keeps its slots. Its free bits lie elsewhere, so the pages
//! that hold nothing but free blocks can go and come back as zeros. A hugepage is split for that
//! only if it is sparse: half of its SuperSlab, at least, is free.
#![allow(unsafe_code)] // Purges memory, and looks at the metadata of spans.

use super::Pages;
use crate::classes::CLASSES;
use crate::geometry::{Kind, NodeSuper, SLOT, SLOTS, SUPER, SpanId};
use theap_platform::{PAGE, PageMode};

impl Pages {
    /// Gives back the pages that hold nothing but free blocks of a span, unless they are part of a
    /// hugepage that is in use. Their bytes, whether or not they were resident. With the feature
    /// `valgrind`, which notes in a free block that it is free, these pages stay.
    ///
    /// # Safety
    /// The caller alone owns the span.
    pub unsafe fn discard(&self, span: SpanId) -> usize {
        if cfg!(feature = "valgrind") {
            return 0;
        }
        let (super_id, slot) = span.split();
        let i = self.supers.local(super_id);
        let mode = match self.mode(i) {
            Some(PageMode::Small) => PageMode::Small,
            Some(PageMode::Thp) if self.is_sparse(i) => PageMode::Thp,
            _ => return 0,
        };
        // SAFETY: a span lies in a mapped SuperSlab.
        let (metas, meta) = unsafe {
            let metadata = &self.ground.metadata;
            (metadata.of(super_id), metadata.span(span))
        };
        let class = &CLASSES[usize::from(meta.class.get())];
        let (base, size) = (
            self.ground.addresses.address_of(span.slot()),
            class.size as usize,
        );
        // What was never handed out was never touched.
        let used = usize::from(class.blocks).min(meta.fresh_from.get() as usize);
        let is_free = |block: &usize| metas.free(slot, block / 64).get() >> (block % 64) & 1 == 1;
        let (mut at, mut bytes) = (0, 0);
        while let Some(first) = (at..used).find(is_free) {
            at = (first..used).find(|block| !is_free(block)).unwrap_or(used);
            let start = (base + first * size).next_multiple_of(PAGE);
            let end = (base + at * size) / PAGE * PAGE;
            if start >= end {
                continue;
            }
            // SAFETY: the pages hold free blocks of the span alone, which the caller owns.
            unsafe {
                let dropped = (start - base) / size..(end - base).div_ceil(size);
                self.ground.metadata.forget_uses(span, dropped);
                if self.drop_pages(start, end - start, mode).is_ok() {
                    bytes += end - start;
                }
            }
        }
        if bytes > 0 {
            self.claims.unmark(i);
        }
        bytes
    }

    /// Whether half of a SuperSlab, at least, is free.
    pub(super) fn is_sparse(&self, i: NodeSuper) -> bool {
        self.free_bytes_of(i) >= SUPER / 2
    }

    /// The free bytes of a SuperSlab: its slots, and blocks of its spans. Owners may change that
    /// meanwhile.
    pub(super) fn free_bytes_of(&self, i: NodeSuper) -> usize {
        let id = self.supers.id(i);
        let addresses = &self.ground.addresses;
        let free = (0..SLOTS).map(|at| {
            let slot = id.slot(at);
            match addresses.kind(slot) {
                Kind::Free => SLOT,
                Kind::Class(class) if addresses.distance(slot) == 0 => {
                    // SAFETY: the SuperSlab is mapped.
                    let meta = unsafe { self.ground.metadata.span(slot.span()) };
                    meta.free.get() as usize * CLASSES[class.index()].size as usize
                }
                Kind::Class(_) | Kind::Large | Kind::Huge => 0,
            }
        });
        free.sum()
    }
}
