//! One run of a workload in a process of its own, so that the faults and the memory are that run's
//! alone.
//!
//! The protocol: the parent passes the parameters as JSON and theap's options in the environment.
//! The child prints one JSON object ([`Reply`]) on standard output and exits with 0, or says on
//! standard error what failed and exits with 1. The child fails unless the run proves whose memory
//! it used, and that this memory was on the pages that the parent asked for.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use theap_bench::{Latency, Metric, Params, Workload, contender};

use super::resident::{self, Resident};
use crate::launch::settings::Setting;
use crate::pages::{self, PageMode};

/// Run one workload on one allocator in this process and print its metrics as JSON.
#[derive(Args)]
pub struct Child {
    /// The contender's name
    #[arg(long)]
    allocator: String,
    /// The workload's name
    #[arg(long)]
    workload: Workload,
    /// The page mode that the run must have had; it is asked for in the environment
    #[arg(long)]
    pages: Option<PageMode>,
    /// Parameters as JSON; the workload's defaults if left out
    #[arg(long, value_parser = parse_params)]
    params: Option<Params>,
}

/// The answer that a child prints.
#[derive(Serialize, Deserialize)]
struct Reply {
    metrics: Vec<Metric>,
    latencies: Vec<Latency>,
}

/// The run that a child is to make.
pub struct Order<'a> {
    /// A build of this program; `None` is the one that runs.
    pub program: Option<&'a Path>,
    pub allocator: &'a str,
    pub mode: Option<PageMode>,
    /// theap's options, apart from the page mode.
    pub settings: &'a [Setting],
    pub workload: Workload,
    pub params: &'a Params,
    /// Whether the child's resident memory is sampled while it runs.
    pub sampled: bool,
}

/// The results of a run.
pub struct Run {
    pub metrics: Vec<Metric>,
    pub latencies: Vec<Latency>,
    /// The child's resident memory over time; empty if it was not sampled.
    pub memory: Resident,
}

impl Child {
    pub fn run(self) -> Result<()> {
        let entry = contender(&self.allocator)
            .with_context(|| format!("this build has no allocator named {}", self.allocator))?;
        let params = self.params.unwrap_or_else(|| self.workload.defaults());
        let outcome = (entry.run)(self.workload, &params)?;
        self.pages.map_or(Ok(()), PageMode::verify)?;
        let mut metrics = outcome.metrics();
        if self.workload == Workload::AllClasses && self.allocator == "theap" {
            metrics.push(superslabs());
        }
        println!(
            "{}",
            serde_json::to_string(&Reply {
                metrics,
                latencies: outcome.latencies().to_vec(),
            })?
        );
        Ok(())
    }
}

/// Has a child process carry out the order.
///
/// # Errors
/// Fails if the child does not start or fails itself; the error carries what it said.
pub fn spawn(order: &Order) -> Result<Run> {
    let mut command = command(order)?;
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().context("cannot start a child process")?;
    let (output, memory) = if order.sampled {
        resident::sample(child)
    } else {
        (child.wait_with_output(), Resident::default())
    };
    let output = output.context("cannot wait for the child process")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        let said = said.strip_prefix("error: ").unwrap_or(said);
        if let Some(signal) = output.status.signal() {
            bail!("the child was killed by signal {signal}; it said: {said}");
        }
        bail!("{said}");
    }
    let reply: Reply = serde_json::from_slice(&output.stdout)
        .map_err(|error| anyhow!("the child's answer is not understood: {error}"))?;
    Ok(Run {
        metrics: reply.metrics,
        latencies: reply.latencies,
        memory,
    })
}

/// The command that carries out the order.
///
/// # Errors
/// Fails if this program's own file is not found.
pub fn command(order: &Order) -> Result<Command> {
    let program = match order.program {
        Some(program) => program.into(),
        None => env::current_exe().context("cannot find this program")?,
    };
    let mut command = Command::new(program);
    command
        .args(["child", "--allocator", order.allocator])
        .args(["--workload", order.workload.name(), "--params"])
        .arg(serde_json::to_string(order.params)?);
    match order.mode {
        Some(mode) => command
            .env(pages::VARIABLE, mode.name())
            .args(["--pages", mode.name()]),
        None => command.env_remove(pages::VARIABLE),
    };
    command.envs(order.settings.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// SuperSlabs that theap has mapped in this process.
fn superslabs() -> Metric {
    Metric {
        metric: "superslabs".into(),
        unit: "".into(),
        value: (theap::stats().mapped() >> 21) as f64,
    }
}

fn parse_params(json: &str) -> Result<Params, serde_json::Error> {
    serde_json::from_str(json)
}
