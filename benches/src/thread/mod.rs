//! Threads of the benchmarks: on which CPU they run, how they wait for each other, and crews that
//! work for a given time.

mod crew;
mod pin;

use std::hint::spin_loop;
use std::thread::{ScopedJoinHandle, yield_now};

pub(crate) use crew::crew;
pub(crate) use pin::{Affinity, pin_by_turn, pin_to};

/// Tries on a full or empty ring before a thread yields its CPU.
const SPINS: u32 = 256;

/// Waits for the thread's end and returns its result; a panic goes on in the caller.
pub(crate) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Waits for the other end of a ring: at first by spinning, later by yielding the CPU. `tries`
/// counts the calls since the last success.
#[inline]
pub(crate) fn wait(tries: &mut u32) {
    *tries += 1;
    if *tries < SPINS {
        spin_loop();
    } else {
        yield_now();
    }
}
