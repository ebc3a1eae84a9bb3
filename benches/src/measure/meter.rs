//! Wall time, page faults and context switches of a measured part.
//!
//! Faults are the process's own (`getrusage`), as differences over the measured part; workloads
//! about latency add the measured thread's faults and context switches.
#![allow(unsafe_code)] // getrusage

use std::time::{Duration, Instant};

/// A measurement that is running.
pub(crate) struct Meter {
    faults: Faults,
    start: Instant,
}

/// The time and the faults of a measured part.
pub(crate) struct Reading {
    pub(crate) wall: Duration,
    pub(crate) faults: Faults,
}

/// Page faults of the process.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) minor: u64,
    pub(crate) major: u64,
}

impl Meter {
    /// Begins to measure.
    pub(crate) fn start() -> Self {
        let faults = Faults::now();
        Self {
            faults,
            start: Instant::now(),
        }
    }

    /// Ends the measurement.
    pub(crate) fn stop(self) -> Reading {
        let wall = self.start.elapsed();
        let now = Faults::now();
        let minor = now.minor - self.faults.minor;
        let major = now.major - self.faults.major;
        Reading {
            wall,
            faults: Faults { minor, major },
        }
    }
}

impl Faults {
    fn now() -> Self {
        Self::of(&usage(libc::RUSAGE_SELF))
    }

    fn of(usage: &libc::rusage) -> Self {
        Self {
            minor: usage.ru_minflt as u64,
            major: usage.ru_majflt as u64,
        }
    }
}

/// Faults and context switches of one thread, which may explain its longest time.
#[derive(Clone, Copy)]
pub(crate) struct ThreadUsage {
    pub(crate) faults: Faults,
    /// Times that the thread waited for something.
    pub(crate) voluntary: u64,
    /// Times that another thread, or the host's other work, took the CPU.
    pub(crate) involuntary: u64,
}

impl ThreadUsage {
    /// The calling thread's usage since it started.
    pub(crate) fn now() -> Self {
        let usage = usage(libc::RUSAGE_THREAD);
        Self {
            faults: Faults::of(&usage),
            voluntary: usage.ru_nvcsw as u64,
            involuntary: usage.ru_nivcsw as u64,
        }
    }

    /// The calling thread's usage since `self` was taken.
    pub(crate) fn until_now(self) -> Self {
        let now = Self::now();
        Self {
            faults: Faults {
                minor: now.faults.minor - self.faults.minor,
                major: now.faults.major - self.faults.major,
            },
            voluntary: now.voluntary - self.voluntary,
            involuntary: now.involuntary - self.involuntary,
        }
    }
}

/// The usage of the process or the calling thread: `whose` is `RUSAGE_SELF` or `RUSAGE_THREAD`.
fn usage(whose: libc::c_int) -> libc::rusage {
    // SAFETY: `rusage` is plain integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is live and writable. The callers pass valid constants, so the call cannot
    // fail.
    unsafe { libc::getrusage(whose, &mut usage) };
    usage
}
