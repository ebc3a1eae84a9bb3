//! Locks of a process that spins instead of sleeping, under real-time priorities: a thread that
//! waits for a lock must not keep the thread that holds it from running.
#![allow(unsafe_code, missing_docs)] // Priorities and CPUs of threads.

use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use theap_platform::{Mutex, Rank, spin_only};

/// Makes the calling thread one of SCHED_FIFO with this priority.
fn set_priority(priority: i32) -> io::Result<()> {
    let parameter = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the parameter is live; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The CPU on which the calling thread runs.
fn this_cpu() -> usize {
    // SAFETY: the call has no precondition.
    unsafe { libc::sched_getcpu() as usize }
}

/// Pins the calling thread to a CPU.
fn pin(cpu: usize) {
    // SAFETY: zero is a set of no CPUs; the CPU is a number that the kernel gave; the set is live.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        let size = size_of::<libc::cpu_set_t>();
        assert_eq!(libc::sched_setaffinity(0, size, &set), 0);
    }
}

/// The longest wait for a lock, in nanoseconds, of a thread with a high priority that a holder with
/// a low one shares a CPU with. `None` if the system does not allow such priorities.
fn longest_wait(rounds: u32) -> Option<u64> {
    let (lock, cpu) = (Mutex::new(Rank::Unranked, 0_u32), this_cpu());
    let (held, barrier) = (AtomicBool::new(false), Barrier::new(2));
    let (allowed, longest) = (AtomicBool::new(true), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(cpu);
            allowed.fetch_and(set_priority(1).is_ok(), SeqCst);
            barrier.wait();
            for _ in 0..if allowed.load(SeqCst) { rounds } else { 0 } {
                let mut count = lock.lock();
                held.store(true, SeqCst);
                // The waiter, with its higher priority, takes the CPU in here.
                let end = Instant::now() + Duration::from_millis(2);
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
                *count += 1;
                drop(count);
                while held.load(SeqCst) {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        });
        scope.spawn(|| {
            pin(cpu);
            allowed.fetch_and(set_priority(2).is_ok(), SeqCst);
            barrier.wait();
            for round in 0..if allowed.load(SeqCst) { rounds } else { 0 } {
                while !held.load(SeqCst) {
                    std::thread::sleep(Duration::from_micros(50));
                }
                let begun = Instant::now();
                let count = lock.lock();
                longest.fetch_max(begun.elapsed().as_nanos() as u64, SeqCst);
                assert_eq!(
                    *count,
                    round + 1,
                    "the lock was had before its holder gave it back"
                );
                drop(count);
                held.store(false, SeqCst);
            }
        });
    });
    allowed.into_inner().then(|| longest.into_inner())
}

/// Without naps the waiter would spin for ever (or until the kernel throttles real-time threads,
/// which takes most of a second, if it does at all).
#[test]
fn a_waiter_with_a_higher_priority_lets_the_holder_run() {
    for spins in [true, false] {
        spin_only(spins);
        let Some(longest) = longest_wait(20) else {
            eprintln!("skipped: real-time priorities (the system does not allow SCHED_FIFO)");
            return;
        };
        println!("spin_only({spins}): waited for {longest} ns at most");
        assert!(longest < 200_000_000, "waited for {longest} ns");
    }
    spin_only(false);
}
