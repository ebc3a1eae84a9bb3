//! Waiting for a word in memory to change, by the futex calls of the kernel.

use core::sync::atomic::AtomicU32;

use rustix::thread::futex::{self, Flags, Timespec};

/// Sleeps while `word` has `value`: until [`wake`], or for `ns` nanoseconds at most. A signal and a
/// spurious wake-up end the sleep too, so the caller must look at the word again.
pub fn wait(word: &AtomicU32, value: u32, ns: Option<u64>) {
    let timeout = ns.map(|ns| Timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as _,
    });
    let _ = futex::wait(word, Flags::PRIVATE, value, timeout.as_ref());
}

/// Wakes a thread of this process that sleeps on the word.
pub fn wake(word: &AtomicU32) {
    // The call fails only for an invalid address, which a reference is not.
    let _ = futex::wake(word, Flags::PRIVATE, 1);
}
