//! The parameters of a workload.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::steps::Sizes;
use crate::thread::pin_to;

/// The parameters of one run. [`Workload::defaults`](super::Workload::defaults) gives each workload
/// its own.
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
        pin_to(self.cpus[nth % self.cpus.len()])
    }
}
