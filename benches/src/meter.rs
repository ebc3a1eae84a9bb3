//! What is measured around and inside a workload.
//!
//! Faults are the process's own (`getrusage`), as differences over the measured part. Peak memory
//! is VmHWM plus HugetlbPages: hugetlb pages are not part of a process's RSS, so a reading of
//! VmHWM alone would call them free.
#![allow(unsafe_code)] // getrusage

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use quanta::Clock;

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
        // SAFETY: `rusage` is plain integers, for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is live and writable; RUSAGE_SELF is always valid, so it cannot fail.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
        Self {
            minor: usage.ru_minflt as u64,
            major: usage.ru_majflt as u64,
        }
    }
}

/// The process's peak memory so far in bytes, hugetlb pages of this moment included.
pub(crate) fn peak_memory() -> Result<u64, Error> {
    let status = procfs::process::Process::myself()
        .and_then(|process| process.status())
        .map_err(|error| Error::Setup(format!("cannot read /proc/self/status: {error}")))?;
    let kib = status.vmhwm.unwrap_or(0) + status.hugetlbpages.unwrap_or(0);
    Ok(kib * 1024)
}

/// Times of single operations, by the processor's time stamp counter. The samples go to an array
/// that is made and touched beforehand; the histogram is built from it afterwards.
pub(crate) struct Stopwatch {
    clock: Clock,
    samples: Vec<u64>,
}

impl Stopwatch {
    /// A stopwatch with room for `capacity` samples.
    pub(crate) fn new(capacity: usize) -> Self {
        let mut samples = vec![1; capacity];
        samples.clear();
        Self {
            clock: Clock::new(),
            samples,
        }
    }

    /// Runs `work` and records its time; past the capacity it records nothing.
    #[inline(always)]
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = self.clock.raw();
        let result = work();
        let end = self.clock.raw();
        if self.samples.len() < self.samples.capacity() {
            self.samples.push(end.saturating_sub(start));
        }
        result
    }

    /// The recorded times in nanoseconds, to three digits.
    pub(crate) fn histogram(&self) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("three digits are a valid precision");
        for &ticks in &self.samples {
            let nanoseconds = self.clock.delta_as_nanos(0, ticks).max(1);
            histogram
                .record(nanoseconds)
                .expect("a histogram that resizes takes every value");
        }
        histogram
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn the_stopwatch_tells_short_from_long() {
        let mut stopwatch = Stopwatch::new(100);
        for _ in 0..99 {
            stopwatch.time(|| ());
        }
        stopwatch.time(|| sleep(Duration::from_millis(2)));
        stopwatch.time(|| sleep(Duration::from_millis(1)));
        let histogram = stopwatch.histogram();
        assert_eq!(histogram.len(), 100);
        assert!(histogram.value_at_quantile(0.5) < 100_000);
        assert!((2_000_000..500_000_000).contains(&histogram.max()));
    }
}
