//! Timing of single operations, and waiting for moments, with the time stamp counter.

use super::{Latency, Tsc};
use crate::error::Error;

/// The shortest time that this host's clock can tell, in nanoseconds. Every measured time includes
/// it.
///
/// # Errors
/// Fails where the processor's counter does not run evenly.
pub fn clock_resolution() -> Result<u64, Error> {
    Ok(Tsc::calibrate()?.resolution())
}

/// Waits on the CPU for moments of the clock, and records how long each turn of the waiting loop
/// took. So it records what the machine does to a thread that does nothing, which is the floor of
/// the times that are measured beside it.
pub(crate) struct Idler {
    tsc: Tsc,
    latency: Latency,
}

impl Idler {
    /// An idler that reads this clock.
    pub(crate) fn new(tsc: Tsc) -> Self {
        Self {
            tsc,
            latency: Latency::new("idle"),
        }
    }

    /// Returns the first reading of the clock at or after `due`.
    #[inline(always)]
    pub(crate) fn wait_until(&mut self, due: u64) -> u64 {
        let mut now = self.tsc.start();
        while now < due {
            let next = self.tsc.start();
            self.latency.record(self.tsc.nanos(next.wrapping_sub(now)));
            now = next;
        }
        now
    }

    /// The recorded times.
    pub(crate) fn latency(self) -> Latency {
        self.latency
    }
}

/// Times single operations into a [`Latency`].
pub(crate) struct Stopwatch {
    tsc: Tsc,
    latency: Latency,
}

impl Stopwatch {
    /// A stopwatch for operations that are named `what` in reports.
    ///
    /// # Errors
    /// Fails where the processor's counter does not run evenly.
    pub(crate) fn new(what: &'static str) -> Result<Self, Error> {
        Ok(Self {
            tsc: Tsc::calibrate()?,
            latency: Latency::new(what),
        })
    }

    /// Runs `work` and records its time.
    #[inline(always)]
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = self.tsc.start();
        let result = work();
        let end = self.tsc.stop();
        self.latency.record(self.tsc.nanos(end.wrapping_sub(start)));
        result
    }

    /// The clock that it measures with.
    pub(crate) fn tsc(&self) -> Tsc {
        self.tsc
    }

    /// The recorded times.
    pub(crate) fn latency(self) -> Latency {
        self.latency
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_stopwatch_tells_short_from_long() {
        let mut stopwatch = Stopwatch::new("work").unwrap();
        for _ in 0..99 {
            stopwatch.time(|| ());
        }
        stopwatch.time(|| sleep(Duration::from_millis(2)));
        let latency = stopwatch.latency();
        assert_eq!(latency.count(), 100);
        assert!(latency.quantile(0.5) < 100_000);
        assert!((2_000_000..500_000_000).contains(&latency.max()));
    }
}
