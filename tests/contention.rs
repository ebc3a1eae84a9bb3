//! `lock_stats()` counts waits: many threads that begin and end at once wait for the lock on heaps.
#![cfg(feature = "lock-stats")]
#![allow(unsafe_code)] // Calls the allocator directly.

use std::sync::Barrier;
use std::thread;
use theap::raw;

#[test]
fn waits_are_counted_by_lock() {
    const THREADS: usize = 32;
    let waits = || theap::lock_stats().map(|(_, contention)| contention.waits);
    let names = theap::lock_stats().map(|(name, _)| name);
    assert_eq!(names, ["heaps", "partial", "growth"]);
    // SAFETY: the block is new, and freed once.
    let once = || unsafe { raw::free(raw::alloc(64)) };
    once();
    assert_eq!(waits(), [0, 0, 0], "one thread waits for nobody");
    for _ in 0..1000 {
        let begin = Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    begin.wait();
                    once();
                });
            }
        });
        let [heaps, partial, growth] = theap::lock_stats().map(|(_, contention)| contention);
        if heaps.waits > 0 {
            assert!(heaps.wait_ns > 0);
            assert!(
                [partial, growth]
                    .iter()
                    .all(|lock| (lock.waits == 0) == (lock.wait_ns == 0))
            );
            return;
        }
    }
    panic!("32000 threads never waited for each other");
}
