//! The inbox of a list: spans that are given to the list while somebody has its lock.

use crate::{explore, join};
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;
use theap::geometry::SpanId;
use theap::pool::spans::inbox::Inbox;
use theap::pool::spans::queue::{Links, NIL, SpanQueue};

/// A list with its lock and its inbox, and the links of three spans, which belong to the thread
/// that has the span, or to the lock.
struct Listed {
    list: Mutex<SpanQueue>,
    inbox: Inbox,
    links: [UnsafeCell<(u32, u32)>; 3],
}

impl Links for Listed {
    fn links(&self, span: SpanId) -> (u32, u32) {
        self.links[span.0 as usize].with(|l| unsafe { *l })
    }
    fn set_next(&self, span: SpanId, next: u32) {
        self.links[span.0 as usize].with_mut(|l| unsafe { (*l).0 = next });
    }
    fn set_prev(&self, span: SpanId, prev: u32) {
        self.links[span.0 as usize].with_mut(|l| unsafe { (*l).1 = prev });
    }
}

impl Listed {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            list: Mutex::new(SpanQueue::default()),
            inbox: Inbox::default(),
            links: [(); 3].map(|()| UnsafeCell::new((NIL, NIL))),
        })
    }

    /// Does what `NodeLists::push` does.
    fn push(&self, span: u32) {
        match self.list.try_lock() {
            Ok(mut list) => {
                self.inbox.drain(&mut list, self);
                list.push(SpanId(span), self);
            }
            Err(_) => self.inbox.push(SpanId(span), self),
        }
    }

    /// Does what `NodeLists::pop` does.
    fn pop(&self) -> Option<u32> {
        let mut list = self.list.lock().unwrap();
        self.inbox.drain(&mut list, self);
        list.pop(self).map(|span| span.0)
    }

    /// Checks that each span below `spans` was either taken or is left, once.
    fn check(&self, taken: impl IntoIterator<Item = Option<u32>>, spans: u32) {
        let mut all: Vec<u32> = taken.into_iter().flatten().collect();
        // A span that was taken is its taker's.
        for &span in &all {
            self.set_next(SpanId(span), NIL);
        }
        all.extend(core::iter::from_fn(|| self.pop()));
        all.sort_unstable();
        let wanted: Vec<u32> = (0..spans).collect();
        assert_eq!(all, wanted, "a span is lost or twice there");
        assert!(self.list.lock().unwrap().is_empty());
    }
}

/// Two threads give spans while a third has the lock, takes, and gives a span back: it comes to lie
/// where it was.
#[test]
pub fn inbox_loses_no_span() {
    explore(|| {
        let this = Listed::new();
        this.inbox.push(SpanId(0), &*this);
        let givers = [1, 2].map(|span| {
            let this = this.clone();
            thread::spawn(move || this.inbox.push(SpanId(span), &*this))
        });
        let taken = this.pop();
        taken
            .into_iter()
            .for_each(|span| this.inbox.push(SpanId(span), &*this));
        let _ = join(givers);
        this.check([], 3);
    });
}

/// Givers that take the lock where they can, and a taker.
#[test]
pub fn a_list_and_its_inbox_have_one_taker_for_each_span() {
    explore(|| {
        let this = Listed::new();
        let givers = [0, 1].map(|span| {
            let this = this.clone();
            thread::spawn(move || this.push(span))
        });
        let taken = this.pop();
        let _ = join(givers);
        this.check([taken], 2);
    });
}
