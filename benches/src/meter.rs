//! What is measured around and inside a workload.
//!
//! Faults are the process's own (`getrusage`), as differences over the measured part; workloads about
//! latency add those of the measured thread, with its context switches. Peak memory
//! is VmHWM plus HugetlbPages: hugetlb pages are not part of a process's RSS, so a reading of
//! VmHWM alone would call them free.
#![allow(unsafe_code)] // getrusage

use std::time::{Duration, Instant};

use crate::Error;

/// Running measurement.
pub(crate) struct Meter {
    faults: Faults,
    start: Instant,
}

/// What a [`Meter`] saw.
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
    pub(crate) fn start() -> Self {
        let faults = Faults::now();
        Self {
            faults,
            start: Instant::now(),
        }
    }

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

/// What happened to one thread: what may explain its longest time.
#[derive(Clone, Copy)]
pub(crate) struct ThreadUsage {
    pub(crate) faults: Faults,
    /// The thread waited for something.
    pub(crate) voluntary: u64,
    /// Another thread, or the host's other work, took the CPU.
    pub(crate) involuntary: u64,
}

impl ThreadUsage {
    /// The calling thread's, since it started.
    pub(crate) fn now() -> Self {
        let usage = usage(libc::RUSAGE_THREAD);
        Self {
            faults: Faults::of(&usage),
            voluntary: usage.ru_nvcsw as u64,
            involuntary: usage.ru_nivcsw as u64,
        }
    }

    /// The calling thread's since `self`.
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

fn usage(whose: libc::c_int) -> libc::rusage {
    // SAFETY: `rusage` is plain integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is live and writable; callers pass constants that are valid, so it cannot fail.
    unsafe { libc::getrusage(whose, &mut usage) };
    usage
}

/// Has the kernel kill this process if it has not ended after `seconds`.
pub(crate) fn end_after(seconds: u32) {
    // SAFETY: no precondition; nobody handles the signal, so it ends the process.
    unsafe { libc::alarm(seconds) };
}

/// The process's peak memory so far in bytes, hugetlb pages of this moment included.
pub(crate) fn peak_memory() -> Result<u64, Error> {
    let status = procfs::process::Process::myself()
        .and_then(|process| process.status())
        .map_err(|error| Error::Setup(format!("cannot read /proc/self/status: {error}")))?;
    let kib = status.vmhwm.unwrap_or(0) + status.hugetlbpages.unwrap_or(0);
    Ok(kib * 1024)
}
