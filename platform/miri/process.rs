//! The process under Miri: a clock that counts, no environment.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use crate::Cpu;

/// Nanoseconds by which the clock advances each time that somebody reads it.
const TICK: u64 = 1000;

static CLOCK: AtomicU64 = AtomicU64::new(TICK);

/// See [`crate::Os::thread_id`]. Miri has no such numbers.
pub fn thread_id() -> u32 {
    0
}

/// See [`crate::Os::current_cpu`].
pub fn current_cpu() -> Cpu {
    Cpu(0)
}

/// See [`crate::Os::total_memory`].
pub fn total_memory() -> u64 {
    8 << 30
}

/// Bytes of available memory.
pub fn available() -> u64 {
    total_memory()
}

/// Bytes that the limits of the process leave: all.
pub fn limits_left() -> u64 {
    u64::MAX
}

/// See [`crate::Os::process_id`].
pub fn id() -> u32 {
    1
}

/// Bytes of the process's resident memory.
pub fn resident() -> u64 {
    0
}

/// See [`crate::Os::now`].
pub fn now() -> u64 {
    CLOCK.fetch_add(TICK, Relaxed)
}

/// See [`crate::Os::recently`].
pub fn recently() -> u64 {
    CLOCK.load(Relaxed)
}

/// See [`crate::Os::thread_time`].
pub fn thread_time() -> u64 {
    now()
}

/// See [`crate::Os::random`]. It differs from call to call, but not from run to run.
pub fn random() -> u64 {
    (now() ^ 0x5851_F42D_4C95_7F2D).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// See [`crate::Os::env`].
pub fn env<R>(_name: &[u8], read: impl FnOnce(Option<&[u8]>) -> R) -> R {
    read(None)
}

/// See [`crate::Os::abort`].
pub fn abort() -> ! {
    std::process::abort()
}
