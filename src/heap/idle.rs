//! What a heap has that others could use while its thread rests, for a reclaimer
//! ([`crate::pool::Scan`]) that has the heap's lock.
#![allow(unsafe_code)] // Gives free pages of the heap's spans back.

use super::Heap;
use super::spans::span_bytes;
use crate::classes::CLASSES;
use crate::geometry::{ClassId, SpanId};
use crate::pool::metadata::Rest;
use crate::pool::{Look, Scan};

/// Spans that are looked at before the lock is given back.
const SPANS: usize = 8;

impl Heap {
    /// Collects what came home to the heap's spans, and takes the next one out of the heap that
    /// others could use. It ends after a few spans, as the heap's thread may wait.
    pub fn take_idle(&mut self, scan: &mut Scan) -> Look {
        let mut spans = SPANS;
        while let Some(class) = scan.class() {
            if scan.long && scan.class == 0 && scan.left.is_none() {
                self.forget();
            }
            let (current, span) = match scan.left {
                None => {
                    let this = &self.classes[class.index()];
                    scan.left = Some(this.partial.len());
                    (true, this.current)
                }
                Some(0) => {
                    scan.next_class();
                    continue;
                }
                Some(left) => {
                    scan.left = Some(left - 1);
                    (false, self.pop_partial(class))
                }
            };
            let Some(span) = span else {
                continue;
            };
            if let Some(look) = self.look_at(class, span, current, scan) {
                return look;
            }
            spans -= 1;
            if spans == 0 {
                return Look::More;
            }
        }
        Look::Done
    }

    /// Looks at a span, the class's current one or one that was taken from the queue. An answer
    /// ends this look.
    fn look_at(
        &mut self,
        class: ClassId,
        span: SpanId,
        current: bool,
        scan: &mut Scan,
    ) -> Option<Look> {
        self.collect_span(span);
        let (meta, info) = (self.meta(span), &CLASSES[class.index()]);
        let (free, blocks) = (meta.free.get(), u32::from(info.blocks));
        let enough = if scan.long { 1 } else { blocks.div_ceil(2) };
        if free < enough {
            if !current {
                self.push_partial(class, span);
            }
            return None;
        }
        if current {
            self.classes[class.index()].current = None;
        }
        let bytes = span_bytes(class.index() as u8);
        self.board.span_bytes.sub(bytes);
        self.counters.spans_reclaimed.add(1);
        if free == blocks {
            self.count_free(class.index() as u8, false);
            self.keeping.lost(class, self.arena.policy().budget());
            self.counters.spans_kept.set(self.keeping.learned());
            meta.shake.give_to_pool();
            return Some(Look::Free(span));
        }
        if scan.long {
            // SAFETY: the heap's, whose lock the caller has.
            scan.bytes += unsafe { self.arena.spans().discard(span) };
        }
        meta.set_rest(if scan.long {
            Rest::Long
        } else {
            Rest::SeenIn(scan.since)
        });
        meta.shake.give_to_pool();
        Some(Look::Partial(span))
    }
}
