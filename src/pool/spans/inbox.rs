//! The inbox of a list: spans for a list whose lock somebody else has.
//!
//! A thread that gives a span to a list must not wait for the list's lock: its holder may be off
//! its CPU for milliseconds. Where the lock is not free at once, the span goes to the inbox,
//! without a lock, and whoever has the lock next moves all of the inbox to the list.
//!
//! ```text
//! push:  next of the span := head;  head := the span, if head is as it was, else again
//! drain: head := NIL;  each span of the chain that was there goes to the list
//! ```
//!
//! A span in an inbox is the pool's, as one on the list. Until it is in, its links are those of the
//! thread that pushes it; from then on they are the lock holder's, who alone drains. The chain is
//! only ever taken as a whole, so it does not matter if a span was taken and is back: what `push`
//! has found as the head is the head whenever the exchange succeeds, and so is what lies behind it.
//!
//! No span is lost there: everything that takes from the list, counts it or checks it has the lock,
//! and drains first.

use super::queue::{Links, NIL, SpanQueue};
use crate::geometry::SpanId;
use crate::sync::{AtomicU32, Ordering};

/// The spans on their way to a list, the last one first.
#[derive(Debug)]
pub struct Inbox {
    head: AtomicU32,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            head: AtomicU32::new(NIL),
        }
    }
}

impl Inbox {
    /// Puts a span in that is the pool's, and of which only the caller knows.
    pub fn push(&self, span: SpanId, links: &impl Links) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            links.set_next(span, head);
            let put =
                self.head
                    .compare_exchange_weak(head, span.0, Ordering::Release, Ordering::Relaxed);
            match put {
                Ok(_) => return,
                Err(other) => head = other,
            }
        }
    }

    /// Moves all spans to the list. The caller has the list's lock.
    #[inline]
    pub fn drain(&self, list: &mut SpanQueue, links: &impl Links) {
        if self.head.load(Ordering::Relaxed) != NIL {
            self.drain_all(list, links);
        }
    }

    #[cold]
    fn drain_all(&self, list: &mut SpanQueue, links: &impl Links) {
        let mut at = self.head.swap(NIL, Ordering::Acquire);
        while at != NIL {
            let (next, _) = links.links(SpanId(at));
            list.push(SpanId(at), links);
            at = next;
        }
    }
}
