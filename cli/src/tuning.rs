//! The options that change a workload's parameters.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::Args;
use theap_bench::{Params, Sizes, Workload};

/// Operations of `--quick` are a full run's divided by this.
const QUICK_DIVISOR: u64 = 4;

/// Bytes of a first touch under `--quick`.
const QUICK_BYTES: usize = 256 << 20;

/// Each applies to every chosen workload that uses it; a workload's own default stands otherwise.
#[derive(Args)]
#[command(
    next_help_heading = "Workload options (each applies to every chosen workload that uses it)"
)]
pub struct Tuning {
    /// Operations of the measured part: allocations and deallocations
    #[arg(long, value_name = "N")]
    ops: Option<u64>,
    /// Block sizes in bytes: one, or an inclusive range
    #[arg(long, value_name = "MIN-MAX", value_parser = parse_sizes)]
    sizes: Option<Sizes>,
    /// Blocks held at once: working set, chunks a thread, burst, ring
    #[arg(long, value_name = "N")]
    slots: Option<usize>,
    /// Bytes that first-touch and growth allocate, for example 512MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    bytes: Option<usize>,
    /// Bytes a second by which growth's heap grows; 0 is as fast as it goes
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
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
    /// CPUs to pin a workload's threads to, in turn [default: growth and pinned-service: the last allowed
    /// ones, others: none]
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

/// Bytes of a size as theap's variables have it: K, M, G and T, or k, m, g and t, are what KiB, MiB, GiB and TiB are.
pub fn parse_bytes(text: &str) -> Result<usize> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: usize = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "m" | "MiB" => 1 << 20,
        "G" | "g" | "GiB" => 1 << 30,
        "T" | "t" | "TiB" => 1 << 40,
        unit => bail!("{unit} is no unit; give B, KiB, MiB, GiB or TiB"),
    };
    number::<usize>(digits)?
        .checked_mul(unit)
        .context("too large")
}

fn number<T: FromStr>(text: &str) -> Result<T> {
    text.trim()
        .parse()
        .ok()
        .with_context(|| format!("{text:?} is no whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_carry_units() {
        assert_eq!(parse_bytes("4096").unwrap(), 4096);
        assert_eq!(parse_bytes("512MiB").unwrap(), 512 << 20);
        for (power, units) in [
            (10, ["K", "k"]),
            (20, ["M", "m"]),
            (30, ["G", "g"]),
            (40, ["T", "t"]),
        ] {
            for unit in units {
                assert_eq!(parse_bytes(&format!("3{unit}")).unwrap(), 3 << power);
            }
        }
        assert!(parse_bytes("5MB").is_err());
        assert!(parse_bytes("MiB").is_err());
        assert!(parse_bytes("99999999999GiB").is_err());
    }

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
