//! What a heap has that is idle while its thread rests, for a reclaimer ([`crate::pool::reclaim`])
//! that has the heap's lock.
#![allow(unsafe_code)] // Gives free pages of the heap's spans back.

use super::Heap;
use super::spans::span_bytes;
use crate::geometry::{ClassId, SpanId};
use crate::pool::{Look, Scan};

/// Spans that are looked at before the lock is given back.
const SPANS: usize = 8;

impl Heap {
    /// Collects what came home to the heap's spans, and takes the next wholly free one out of the
    /// heap; a thorough look also gives the free pages of the other spans back. It ends after a few
    /// spans, as the heap's thread may wait.
    pub fn take_idle(&mut self, scan: &mut Scan) -> Look {
        let mut spans = SPANS;
        while let Some(class) = scan.class() {
            if scan.thorough && scan.class == 0 && scan.left.is_none() {
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
        let any = self.collect_span(span);
        if self.is_free(span) {
            if current {
                self.classes[class.index()].current = None;
            }
            let bytes = span_bytes(class.index() as u8);
            self.board.span_bytes.sub(bytes);
            self.board.kept.sub(bytes);
            self.counters.spans_reclaimed.add(1);
            self.meta(span).shake.give_to_pool();
            return Some(Look::Took(span));
        }
        if !current {
            self.push_partial(class, span);
        }
        if scan.thorough || any && scan.again {
            // SAFETY: the heap's, whose lock the caller has.
            let bytes = unsafe { self.arena.spans().discard(span) };
            scan.bytes += bytes;
            return (bytes > 0).then_some(Look::More);
        }
        None
    }
}
