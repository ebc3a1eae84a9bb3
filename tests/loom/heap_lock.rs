//! The lock on a heap: its owner's steps against a reclaimer.

use crate::{explore, join};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use theap::pool::heap_lock::HeapLock;

/// A heap and its lock. The owner counts its steps, and a reclaimer takes them.
struct Locked {
    lock: HeapLock,
    heap: UnsafeCell<(u32, u32)>,
}

impl Locked {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lock: HeapLock::default(),
            heap: UnsafeCell::new((0, 0)),
        })
    }

    /// Does what `Handle::step` does.
    fn step(&self) {
        assert!(self.lock.enter(|_, _| thread::yield_now()), "no step nests");
        self.heap.with_mut(|heap| unsafe { (*heap).0 += 1 });
        self.lock.leave();
    }

    /// Does what `Handle::last_step` does.
    fn last_step(&self) {
        assert!(self.lock.enter(|_, _| thread::yield_now()), "no step nests");
        self.heap.with_mut(|heap| unsafe { (*heap).0 += 1 });
        self.lock.leave_closed();
    }

    /// Does what `Reclaim::look_into` does. Whether it has got the lock.
    fn reclaim(&self) -> bool {
        let Some(steps) = self.lock.steps() else {
            return false;
        };
        let got = self.lock.try_reclaim(steps);
        if got {
            self.heap.with_mut(|heap| unsafe { (*heap).1 += 1 });
            self.lock.end_reclaim(steps, |_| {});
        }
        got
    }
}

/// Each step and each reclaim has the heap alone, and sees what was done to it before.
#[test]
pub fn a_reclaimer_comes_between_steps() {
    explore(|| {
        let this = Locked::new();
        this.step();
        let owner = {
            let this = this.clone();
            thread::spawn(move || {
                this.step();
                this.step();
                0
            })
        };
        let reclaimer = {
            let this = this.clone();
            thread::spawn(move || u32::from(this.reclaim()) + u32::from(this.reclaim()))
        };
        let [_, got] = join([owner, reclaimer]);
        this.step();
        this.heap
            .with(|heap| unsafe { assert_eq!(*heap, (4, got)) });
    });
}

/// A heap that no thread has is nobody's, and its next thread sees what reclaimers did before.
#[test]
pub fn a_closed_heap_is_left_alone() {
    explore(|| {
        let this = Locked::new();
        assert!(!this.reclaim(), "never used");
        this.step();
        let owner = {
            let this = this.clone();
            thread::spawn(move || {
                this.last_step();
                // The memory of a retired heap may go.
                this.heap.with_mut(|heap| unsafe { (*heap).0 = 0 });
                this.step();
                false
            })
        };
        let reclaimer = {
            let this = this.clone();
            thread::spawn(move || this.reclaim())
        };
        join([owner, reclaimer]);
    });
}
