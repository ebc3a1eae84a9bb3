//! What must hold at any moment at which no thread is inside the allocator. Tests ask after every step.

use super::meta::WORDS;
use super::{Arena, SLOTS, SpanId, kind};
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::heap::ownership::{FREE, NOBODY, POOL, RUN};
use core::sync::atomic::Ordering;

impl Arena {
    /// Panics unless tables, words and spans agree.
    pub fn check(&self) {
        for node in self.nodes() {
            assert_eq!(node.claims.holes(), node.claims.count_holes(), "holes");
            let (mut empty, mut in_use) = (0, 0);
            for i in node.mapped_supers() {
                let first = (node.first + i) * SLOTS;
                let slots = node.word(i).get();
                empty += slots.empty_count() as usize;
                in_use += u64::from(slots.active_count());
                let active = (0..SLOTS)
                    .filter(|s| self.kind(first + s).load(Ordering::Relaxed) != kind::FREE);
                assert_eq!(
                    active.count(),
                    slots.active_count() as usize,
                    "SuperSlab {i}"
                );
                for slot in first..first + SLOTS {
                    self.check_slot(slot);
                }
            }
            assert_eq!(empty, node.empty.load(Ordering::Relaxed), "EMPTY slots");
            let spans = node.board.spans.iter().zip(&CLASSES);
            let counted = spans
                .map(|(spans, class)| spans.load(Ordering::Relaxed) * u64::from(class.slots))
                .sum::<u64>();
            let runs = node.board.run_slots.load(Ordering::Relaxed);
            assert_eq!(in_use, counted + runs, "slots of spans and runs");
        }
    }

    fn check_slot(&self, slot: usize) {
        let what = self.kind(slot).load(Ordering::Relaxed);
        let head = usize::from(self.head(slot).load(Ordering::Relaxed));
        let span = SpanId(slot as u32);
        let owner = self.span(span).shake.owner();
        match what {
            kind::FREE => assert_eq!(owner, FREE),
            kind::LARGE | kind::HUGE => assert_eq!(owner, if head == 0 { RUN } else { FREE }),
            _ if head != 0 => assert_eq!(owner, FREE, "slots inside a span have no owner"),
            what => self.check_span(span, usize::from(what - kind::FIRST), owner),
        }
    }

    /// `blocks = free + set remote bits + handed out`, each in one place.
    fn check_span(&self, span: SpanId, class: usize, owner: u64) {
        let (super_index, slot) = span.split();
        let (metas, meta) = (self.super_meta(super_index), self.span(span));
        assert!(class < CLASS_COUNT && usize::from(meta.class.get()) == class);
        assert!(owner != FREE && owner != RUN);
        let (mut free, mut remote) = (0, 0);
        for index in 0..WORDS.min(usize::from(CLASSES[class].blocks).div_ceil(64)) {
            let word = metas.free(slot, index).get();
            let sent = metas.remote(slot, index).load(Ordering::Relaxed);
            assert_eq!(word & sent, 0, "a block is free twice");
            assert_eq!(meta.summary.get() >> index & 1 == 1, word != 0, "summary");
            free += word.count_ones();
            remote += sent.count_ones();
        }
        assert_eq!(free, meta.free.get());
        assert!(free + remote <= u32::from(CLASSES[class].blocks));
        match owner {
            NOBODY => assert!(free == 0 && remote == 0, "nobody's span has free blocks"),
            POOL => assert!(free + remote > 0),
            _ => {}
        }
    }
}
