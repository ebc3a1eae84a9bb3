//! What a workload can be told.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::Error;

/// An inclusive range of block sizes in bytes; never zero, at most [`Sizes::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(usize, usize)", into = "(usize, usize)")]
pub struct Sizes {
    min: usize,
    max: usize,
}

impl Sizes {
    /// The largest block size that a workload may ask for: 1 GiB.
    pub const MAX: usize = 1 << 30;

    /// Sizes from `min` to `max` bytes.
    ///
    /// # Errors
    /// Fails if the range is empty, holds 0, or passes [`Sizes::MAX`].
    pub fn new(min: usize, max: usize) -> Result<Self, Error> {
        if min == 0 || min > max || max > Self::MAX {
            let limit = Self::MAX;
            return Err(Error::Setup(format!(
                "sizes {min}-{max} are no range of block sizes; give MIN-MAX within 1 to {limit} bytes"
            )));
        }
        Ok(Self { min, max })
    }

    /// The smallest size in bytes.
    pub fn min(self) -> usize {
        self.min
    }

    /// The largest size in bytes.
    pub fn max(self) -> usize {
        self.max
    }
}

impl TryFrom<(usize, usize)> for Sizes {
    type Error = Error;

    fn try_from((min, max): (usize, usize)) -> Result<Self, Error> {
        Self::new(min, max)
    }
}

impl From<Sizes> for (usize, usize) {
    fn from(sizes: Sizes) -> Self {
        (sizes.min, sizes.max)
    }
}

/// The parameters of one run. [`crate::Workload::defaults`] gives each workload its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// Operations (allocations and deallocations) of the measured part; a workload that works in
    /// bytes ignores it.
    pub ops: u64,
    /// Block sizes.
    pub sizes: Sizes,
    /// Blocks that the workload has room for at once: slots, chunks a thread, burst or ring.
    pub slots: usize,
    /// Bytes to allocate in all (first-touch, growth).
    pub bytes: usize,
    /// Bytes a second (growth); 0 is as fast as it goes.
    pub growth_rate: u64,
    /// Requests to serve (pinned-service).
    pub requests: u64,
    /// Requests a second (pinned-service).
    pub request_rate: u64,
    /// Threads at once (larson).
    pub threads: usize,
    /// Times that a thread replaces all of its chunks before it hands them to a new one (larson).
    pub rounds: u64,
    /// Seed of the workload's random numbers.
    pub seed: u64,
    /// CPUs to pin the workload's threads to, in turn; empty pins none, but for growth and
    /// pinned-service: these take the last CPUs that the process may run on.
    pub cpus: Vec<usize>,
}

impl Params {
    /// Fails on parameters that no workload can run with.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (value, name) in [
            (self.ops, "ops"),
            (self.slots as u64, "slots"),
            (self.bytes as u64, "bytes"),
            (self.threads as u64, "threads"),
            (self.requests, "requests"),
            (self.request_rate, "request_rate"),
            (self.rounds, "rounds"),
        ] {
            if value == 0 {
                return Err(Error::Setup(format!("{name} is 0; give at least 1")));
            }
        }
        if u32::try_from(self.slots).is_err() {
            return Err(Error::Setup(format!(
                "{} slots are too many; give below 2^32",
                self.slots
            )));
        }
        Ok(())
    }

    /// Pins the calling thread, the `nth` of the workload, to its CPU of the list.
    pub(crate) fn pin(&self, nth: usize) -> Result<(), Error> {
        if self.cpus.is_empty() {
            return Ok(());
        }
        let cpu = self.cpus[nth % self.cpus.len()];
        // core_affinity panics on numbers that its fixed set of CPUs has no room for.
        let known = cpu < libc::CPU_SETSIZE as usize;
        if known && core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
            return Ok(());
        }
        Err(Error::Setup(format!(
            "cannot pin a thread to CPU {cpu}; pin to one of those in Cpus_allowed_list of /proc/self/status"
        )))
    }
}

/// The CPUs that the calling thread might use before a workload pinned it; it may again when this ends.
pub(crate) struct Affinity(CpuSet);

impl Affinity {
    pub(crate) fn keep() -> Result<Self, Error> {
        sched_getaffinity(None)
            .map(Self)
            .map_err(|error| Error::Setup(format!("cannot tell the allowed CPUs: {error}")))
    }

    /// These CPUs, the last first: interrupts mostly go to the first.
    pub(crate) fn cpus(&self) -> Vec<usize> {
        let all = (0..CpuSet::MAX_CPU).rev();
        all.filter(|&cpu| self.0.is_set(cpu)).collect()
    }
}

impl Drop for Affinity {
    fn drop(&mut self) {
        // It was the affinity before; if the set was narrowed meanwhile, the thread just stays pinned.
        let _ = sched_setaffinity(None, &self.0);
    }
}
