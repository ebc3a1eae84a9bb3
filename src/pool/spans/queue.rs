//! A first-in-first-out queue of spans, linked through their metadata.
//!
//! It serves the node's partial lists (under their lock) and a heap's own partial spans (owner
//! only). First in, first out lets a span gather freed blocks before it is used again. Only the
//! span's owner writes its links: the heap, or, while the pool owns the span, the thread that holds
//! the list's lock.

use crate::geometry::SpanId;

/// The link that leads to no span.
pub const NIL: u32 = u32::MAX;

/// The links of spans, wherever they are.
pub trait Links {
    /// The spans after and before `span`.
    fn links(&self, span: SpanId) -> (u32, u32);
    /// Sets the span after `span`.
    fn set_next(&self, span: SpanId, next: u32);
    /// Sets the span before `span`.
    fn set_prev(&self, span: SpanId, prev: u32);
}

/// The queue. Invariant: `head` is NIL exactly if `tail` is, exactly if `len` is 0.
#[derive(Debug)]
pub struct SpanQueue {
    head: u32,
    tail: u32,
    len: u32,
}

impl Default for SpanQueue {
    fn default() -> Self {
        Self {
            head: NIL,
            tail: NIL,
            len: 0,
        }
    }
}

impl SpanQueue {
    /// The number of spans.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no span.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a span that is in no queue.
    pub fn push(&mut self, span: SpanId, links: &impl Links) {
        links.set_next(span, NIL);
        links.set_prev(span, self.tail);
        if self.tail == NIL {
            self.head = span.0;
        } else {
            links.set_next(SpanId(self.tail), span.0);
        }
        self.tail = span.0;
        self.len += 1;
    }

    /// Removes the oldest span.
    pub fn pop(&mut self, links: &impl Links) -> Option<SpanId> {
        if self.head == NIL {
            return None;
        }
        let span = SpanId(self.head);
        self.remove(span, links);
        Some(span)
    }

    /// Removes a span that is in this queue.
    pub fn remove(&mut self, span: SpanId, links: &impl Links) {
        let (next, prev) = links.links(span);
        if prev == NIL {
            self.head = next;
        } else {
            links.set_next(SpanId(prev), next);
        }
        if next == NIL {
            self.tail = prev;
        } else {
            links.set_prev(SpanId(next), prev);
        }
        self.len -= 1;
    }

    /// Whether both chains of links go through `len` spans. `each` is called with every span.
    #[cfg(any(test, debug_assertions))]
    pub fn is_linked(&self, links: &impl Links, mut each: impl FnMut(SpanId)) -> bool {
        let (mut at, mut before) = (self.head, NIL);
        for _ in 0..self.len {
            if at == NIL || links.links(SpanId(at)).1 != before {
                return false;
            }
            each(SpanId(at));
            before = at;
            at = links.links(SpanId(at)).0;
        }
        at == NIL && before == self.tail
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::RefCell;

    struct Table(RefCell<Vec<(u32, u32)>>);

    impl Links for Table {
        fn links(&self, span: SpanId) -> (u32, u32) {
            self.0.borrow()[span.0 as usize]
        }
        fn set_next(&self, span: SpanId, next: u32) {
            self.0.borrow_mut()[span.0 as usize].0 = next;
        }
        fn set_prev(&self, span: SpanId, prev: u32) {
            self.0.borrow_mut()[span.0 as usize].1 = prev;
        }
    }

    #[test]
    fn first_in_first_out_with_removal() {
        let table = Table(RefCell::new(vec![(0, 0); 8]));
        let mut queue = SpanQueue::default();
        for i in 0..8 {
            queue.push(SpanId(i), &table);
        }
        for i in [0, 3, 7] {
            queue.remove(SpanId(i), &table);
        }
        let rest: Vec<_> = core::iter::from_fn(|| queue.pop(&table))
            .map(|s| s.0)
            .collect();
        assert_eq!(rest, [1, 2, 4, 5, 6]);
        assert!(queue.is_empty());
        assert_eq!(queue.pop(&table), None);
    }
}
