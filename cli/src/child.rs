//! One run of a workload in a process of its own, so that faults and memory are that run's alone.
//!
//! Protocol: the parent passes the parameters as JSON and theap's page mode in the environment;
//! the child prints one JSON object ([`Reply`]) on standard output and exits 0, or says on
//! standard error why not and exits 1. It fails unless the run proved whose memory it used, and
//! that it was of the page mode asked for.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use theap_bench::{Metric, Params, Workload, contender};

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

/// What a child prints.
#[derive(Serialize, Deserialize)]
struct Reply {
    metrics: Vec<Metric>,
}

impl Child {
    pub fn run(self) -> Result<()> {
        let entry = contender(&self.allocator)
            .with_context(|| format!("this build has no allocator named {}", self.allocator))?;
        let params = self.params.unwrap_or_else(|| self.workload.defaults());
        let outcome = (entry.run)(self.workload, &params)?;
        self.pages.map_or(Ok(()), PageMode::verify)?;
        println!(
            "{}",
            serde_json::to_string(&Reply {
                metrics: outcome.metrics()
            })?
        );
        Ok(())
    }
}

/// Runs `workload` on `allocator` in a child process and returns its metrics.
///
/// # Errors
/// Fails if the child does not start or fails itself; the error carries what it said.
pub fn spawn(
    allocator: &str,
    mode: Option<PageMode>,
    workload: Workload,
    params: &Params,
) -> Result<Vec<Metric>> {
    let mut command = Command::new(env::current_exe().context("cannot find this program")?);
    command
        .args([
            "child",
            "--allocator",
            allocator,
            "--workload",
            workload.name(),
            "--params",
        ])
        .arg(serde_json::to_string(params)?);
    match mode {
        Some(mode) => command
            .env(pages::VARIABLE, mode.name())
            .args(["--pages", mode.name()]),
        None => command.env_remove(pages::VARIABLE),
    };
    let output = command.output().context("cannot start a child process")?;
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
    Ok(reply.metrics)
}

fn parse_params(json: &str) -> Result<Params, serde_json::Error> {
    serde_json::from_str(json)
}
