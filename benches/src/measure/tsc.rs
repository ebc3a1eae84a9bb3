//! The processor's time stamp counter as a clock for single operations.
//!
//! A reading costs some nanoseconds and never enters the kernel. `lfence` keeps the processor from
//! reading the counter before earlier work is done, or from starting later work before it is read:
//! [`Tsc::start`] and [`Tsc::stop`] bracket what lies between them and nothing else. The counter is
//! calibrated against `CLOCK_MONOTONIC` ([`Instant`]) and refused if it does not run evenly.
#![allow(unsafe_code)] // the counter's instructions

use std::arch::x86_64::{__rdtscp, _mm_lfence, _rdtsc};
use std::time::{Duration, Instant};

use crate::error::Error;

/// Time over which the counter is compared with the system's clock, twice.
const WINDOW: Duration = Duration::from_millis(5);

/// Tries to read both clocks at the same moment; the closest pair counts.
const TRIES: usize = 32;

/// Fixed point of [`Tsc::nanos`]: exact to 2^-32 of a nanosecond a tick.
const SHIFT: u32 = 32;

/// A calibrated counter.
#[derive(Clone, Copy)]
pub(crate) struct Tsc {
    /// Nanoseconds a tick, times 2^[`SHIFT`].
    scale: u64,
}

impl Tsc {
    /// Compares the counter with the system's clock; takes about 10 ms.
    ///
    /// # Errors
    /// Fails if two windows differ by more than a hundredth: the counter stops or changes its pace.
    pub(crate) fn calibrate() -> Result<Self, Error> {
        let first = pair();
        let middle = pair_after(first.0 + WINDOW);
        let last = pair_after(middle.0 + WINDOW);
        let (one, two) = (tick(first, middle), tick(middle, last));
        let both = tick(first, last);
        let even = both.is_finite() && both > 0.0 && (one - two).abs() < both / 100.0;
        if !even {
            return Err(Error::Setup(format!(
                "the time stamp counter does not run evenly ({one} and {two} ns a tick); run where it is invariant"
            )));
        }
        Ok(Self {
            scale: (both * (1u64 << SHIFT) as f64) as u64,
        })
    }

    /// The counter before the work to be timed.
    #[inline(always)]
    pub(crate) fn start(self) -> u64 {
        // SAFETY: every x86_64 has both instructions (SSE2 is part of it); they touch no memory.
        unsafe {
            _mm_lfence();
            let ticks = _rdtsc();
            _mm_lfence();
            ticks
        }
    }

    /// The counter after the timed work.
    #[inline(always)]
    pub(crate) fn stop(self) -> u64 {
        let mut cpu = 0;
        // SAFETY: `cpu` is live and writable. Every x86_64 of the last fifteen years has RDTSCP;
        // where it is missing, the processor stops the process with SIGILL.
        unsafe {
            let ticks = __rdtscp(&mut cpu);
            _mm_lfence();
            ticks
        }
    }

    /// Converts ticks to nanoseconds.
    #[inline(always)]
    pub(crate) fn nanos(self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.scale)) >> SHIFT) as u64
    }

    /// Converts nanoseconds to ticks.
    pub(crate) fn ticks(self, nanos: f64) -> f64 {
        nanos * (1u64 << SHIFT) as f64 / self.scale as f64
    }

    /// The time in nanoseconds that an empty piece of work takes: no shorter time can be told.
    pub(crate) fn resolution(self) -> u64 {
        let spans = (0..1000).map(|_| {
            let start = self.start();
            self.stop().saturating_sub(start)
        });
        self.nanos(spans.min().unwrap_or(0))
    }
}

/// Both clocks at nearly the same moment.
fn pair() -> (Instant, u64) {
    let read = |_| {
        // SAFETY: every x86_64 has the instruction; it touches no memory.
        let (before, now, after) = unsafe { (_rdtsc(), Instant::now(), _rdtsc()) };
        let span = after.saturating_sub(before);
        (span, (now, before + span / 2))
    };
    let closest = (0..TRIES).map(read).min_by_key(|&(span, _)| span);
    closest.expect("there is at least one try").1
}

fn pair_after(moment: Instant) -> (Instant, u64) {
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
    pair()
}

/// Nanoseconds a tick between two pairs.
fn tick(from: (Instant, u64), to: (Instant, u64)) -> f64 {
    (to.0 - from.0).as_nanos() as f64 / to.1.wrapping_sub(from.1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_agrees_with_the_systems_clock() {
        let tsc = Tsc::calibrate().unwrap();
        let (clock, from) = (Instant::now(), tsc.start());
        std::thread::sleep(Duration::from_millis(20));
        let (passed, to) = (clock.elapsed().as_nanos() as f64, tsc.stop());
        let measured = tsc.nanos(to - from) as f64;
        assert!(
            (measured / passed - 1.0).abs() < 0.05,
            "{measured} of {passed} ns"
        );
        assert!((tsc.ticks(measured) / (to - from) as f64 - 1.0).abs() < 0.001);
        assert!(tsc.resolution() < 1000);
    }
}
