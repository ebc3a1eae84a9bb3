//! A CPU's stash of spans.

use crate::{explore, join};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use theap::geometry::SpanId;
use theap::pool::spans::stash::Stash;
use theap::pool::spans::stashed::Stashed as Bits;
use theap::sync::AtomicU64;

/// A stash, and a cell for each of its spans, which belongs to the thread that has the span.
struct Stashed {
    stash: Stash,
    metas: [UnsafeCell<()>; 2],
}

impl Stashed {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            stash: Stash::new(),
            metas: [(); 2].map(UnsafeCell::new),
        })
    }

    fn put(&self, span: u32) {
        self.metas[span as usize].with_mut(|_| ());
        assert!(self.stash.put(SpanId(span)));
    }

    fn take(&self) -> Option<u32> {
        let span = self.stash.take()?.0;
        self.metas[span as usize].with_mut(|_| ());
        Some(span)
    }

    /// Checks that each span was either taken or is left, once.
    fn check(&self, taken: impl IntoIterator<Item = Option<u32>>) {
        let mut all: Vec<u32> = taken.into_iter().flatten().collect();
        all.extend(core::iter::from_fn(|| self.take()));
        all.sort_unstable();
        assert_eq!(all, [0, 1], "a span is lost or twice there");
    }
}

#[test]
pub fn stash_loses_no_span() {
    explore(|| {
        let this = Stashed::new();
        let putter = {
            let this = this.clone();
            thread::spawn(move || this.put(0))
        };
        this.put(1);
        let taken = this.take();
        putter.join().unwrap();
        this.check([taken]);
    });
}

#[test]
pub fn stash_has_one_taker_for_each_span() {
    explore(|| {
        let this = Stashed::new();
        this.put(0);
        this.put(1);
        let takers = [(); 2].map(|()| {
            let this = this.clone();
            thread::spawn(move || this.take())
        });
        let mine = this.take();
        let [one, two] = join(takers);
        this.check([mine, one, two]);
    });
}

/// A bit that was set for nothing is cleared while a span is put: the span is found all the same,
/// then or later.
#[test]
pub fn a_stash_with_a_span_is_noted() {
    explore(|| {
        let words: &'static [AtomicU64] = Box::leak(Box::new([AtomicU64::new(0)]));
        let (bits, this) = (Bits::new(words), Stashed::new());
        bits.note(0);
        let putter = {
            let this = this.clone();
            thread::spawn(move || {
                this.put(0);
                bits.note(0);
            })
        };
        let first = bits.find(|_| true, |_| this.take());
        putter.join().unwrap();
        let found = first.or_else(|| bits.find(|_| true, |_| this.take()));
        assert_eq!(found, Some(0), "no bit tells of the span");
    });
}
