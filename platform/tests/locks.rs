//! The locks.
#![allow(unsafe_code, missing_docs)] // Locks in zeroed memory and around forks.

use std::mem::{self, MaybeUninit};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use theap_platform::{Mutex, Rank, RawMutex};

#[test]
fn four_threads_exclude_each_other() {
    static COUNT: Mutex<u64> = Mutex::new(Rank::Heaps, 0);
    const ROUNDS: u64 = 50_000;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    *COUNT.lock() += 1;
                }
            });
        }
    });
    assert_eq!(*COUNT.lock(), 4 * ROUNDS);
}

#[test]
fn waiting_threads_sleep_and_are_woken() {
    let mutex = RawMutex::new();
    let entered = AtomicBool::new(false);
    mutex.lock();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                mutex.lock();
                assert!(!entered.swap(true, SeqCst));
                std::thread::sleep(Duration::from_millis(5));
                entered.store(false, SeqCst);
                // SAFETY: this thread took the lock above.
                unsafe { mutex.unlock() };
            });
        }
        std::thread::sleep(Duration::from_millis(30));
        assert!(!mutex.try_lock());
        // SAFETY: this thread took the lock before it started the others.
        unsafe { mutex.unlock() };
    });
    assert!(mutex.try_lock());
}

#[test]
fn zeroed_memory_is_an_unlocked_mutex() {
    // SAFETY: all-zero memory is an unlocked mutex, as `Mutex` promises, and a `u32`.
    let mutex: Mutex<u32> = unsafe { MaybeUninit::zeroed().assume_init() };
    *mutex.lock() = 5;
    let guard = mutex.try_lock().unwrap();
    assert!(mutex.try_lock().is_none());
    assert_eq!(*guard, 5);
    drop(guard);
    assert!(mutex.try_lock().is_some());
}

#[test]
fn locks_held_over_a_fork_are_released_without_guards() {
    let nodes = [Mutex::new(Rank::Partial, 0), Mutex::new(Rank::Partial, 0)];
    nodes.iter().for_each(Mutex::lock_for_fork);
    assert!(nodes[0].try_lock().is_none() && nodes[1].try_lock().is_none());
    // SAFETY: this thread took both locks above, without guards.
    nodes.iter().for_each(|node| unsafe { node.force_unlock() });
    mem::forget(nodes[0].lock());
    // SAFETY: this thread took the lock above and has forgotten the guard.
    unsafe { nodes[0].force_unlock() };
    drop(nodes[1].lock());
}

#[test]
fn ranks_may_rise_and_be_released_in_any_order() {
    let (outer, inner, free) = (
        Mutex::new(Rank::Heaps, ()),
        Mutex::new(Rank::Events, ()),
        Mutex::new(Rank::Unranked, ()),
    );
    let first = outer.lock();
    let second = inner.lock();
    let third = free.lock();
    drop(first);
    drop(second);
    drop(outer.lock());
    drop(third);
}

#[cfg(debug_assertions)]
#[test]
fn a_wrong_order_aborts_with_a_message() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    const ROLE: &str = "THEAP_TEST_LOW_RANK";
    let lows = [Rank::Growth, Rank::Partial, Rank::Heaps];
    if let Ok(low) = std::env::var(ROLE) {
        let low = lows.into_iter().find(|rank| rank.name() == low).unwrap();
        let (high, low) = (Mutex::new(Rank::Growth, ()), Mutex::new(low, ()));
        let _high = high.lock();
        let _low = low.lock();
        return;
    }
    for low in lows.map(Rank::name) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([
            "--exact",
            "a_wrong_order_aborts_with_a_message",
            "--nocapture",
        ]);
        let output = child.env(ROLE, low).output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGABRT));
        let expected = format!(
            "theap: lock order: a thread takes the lock \"{low}\" while it holds \"growth\"\n"
        );
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    }
}
