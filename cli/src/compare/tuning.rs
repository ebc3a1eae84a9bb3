//! The options that change the parameters of a workload.

use anyhow::Result;
use clap::Args;
use theap_bench::{Params, Sizes, Workload};

use crate::arguments::{bytes, number};

/// Operations of a full run are divided by this for `--quick`.
const QUICK_DIVISOR: u64 = 4;

/// Bytes that first-touch and growth allocate with `--quick`.
const QUICK_BYTES: usize = 256 << 20;

/// Options of workloads. Each applies to every chosen workload that uses it; without the option the
/// workload's own default holds.
#[derive(Args)]
#[command(
    next_help_heading = "Workload options (each applies to every chosen workload that uses it)"
)]
pub struct Tuning {
    /// Operations of the measured part, allocations and deallocations together
    #[arg(long, value_name = "N")]
    ops: Option<u64>,
    /// Block sizes in bytes: one, or an inclusive range
    #[arg(long, value_name = "MIN-MAX", value_parser = parse_sizes)]
    sizes: Option<Sizes>,
    /// Blocks that are live at once: the working set, the chunks of a thread, the burst, or the
    /// ring
    #[arg(long, value_name = "N")]
    slots: Option<usize>,
    /// Bytes that first-touch and growth allocate, for example 512MiB
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    bytes: Option<usize>,
    /// Bytes a second by which the heap of growth grows; 0 is as fast as it can
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    growth_rate: Option<usize>,
    /// Requests that pinned-service serves
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Requests a second of pinned-service
    #[arg(long, value_name = "N")]
    request_rate: Option<u64>,
    /// Threads of larson
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Times that a thread of larson replaces its chunks before a new thread takes over
    #[arg(long, value_name = "N")]
    handover: Option<u64>,
    /// Seed of the random numbers
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// CPUs to pin a workload's threads to, in turn [default: the last allowed CPUs for growth and
    /// pinned-service, none for others]
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    pin: Vec<usize>,
}

impl Tuning {
    /// The parameters that `workload` is to run with.
    pub fn params(&self, workload: Workload, quick: bool) -> Params {
        let mut params = workload.defaults();
        if quick {
            params.ops = (params.ops / QUICK_DIVISOR).max(1);
            params.requests = (params.requests / QUICK_DIVISOR).max(1);
            params.bytes = QUICK_BYTES;
        }
        params.ops = self.ops.unwrap_or(params.ops);
        params.sizes = self.sizes.unwrap_or(params.sizes);
        params.slots = self.slots.unwrap_or(params.slots);
        params.bytes = self.bytes.unwrap_or(params.bytes);
        params.growth_rate = self
            .growth_rate
            .map_or(params.growth_rate, |rate| rate as u64);
        params.requests = self.requests.unwrap_or(params.requests);
        params.request_rate = self.request_rate.unwrap_or(params.request_rate);
        params.threads = self.threads.unwrap_or(params.threads);
        params.rounds = self.handover.unwrap_or(params.rounds);
        params.seed = self.seed.unwrap_or(params.seed);
        params.cpus.clone_from(&self.pin);
        params
    }
}

fn parse_sizes(text: &str) -> Result<Sizes> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    Ok(Sizes::new(number(min)?, number(max)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_one_or_a_range() {
        assert_eq!(parse_sizes("128").unwrap(), Sizes::new(128, 128).unwrap());
        assert_eq!(
            parse_sizes("16-1024").unwrap(),
            Sizes::new(16, 1024).unwrap()
        );
        for bad in ["0-8", "9-8", "-", "", "16-2000000000"] {
            assert!(parse_sizes(bad).is_err(), "{bad}");
        }
    }
}
