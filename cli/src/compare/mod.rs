//! `theap compare`: System and theap in each page mode, in interleaved rounds. Every run is a
//! process of its own. What is run are the workloads of this program (this file), or any command
//! ([`command`]).

mod command;
mod comparison;
mod figures;
mod findings;
mod html;
mod report;
mod side;
mod tuning;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use theap_bench::{Params, Workload, interleave};

use command::CommandOptions;
use findings::{Collector, Findings};
use side::Side;
use tuning::Tuning;

use crate::launch::settings::{Setting, setting};
use crate::measure::child::{self, Order};
use crate::measure::progress;
use crate::pages::{self, PageMode};

/// Rounds of a full run.
const ROUNDS: usize = 5;

/// Rounds of `--quick`.
const QUICK_ROUNDS: usize = 3;

/// Compare theap in each page mode with System
///
/// Runs each workload under System and under theap in each page mode that this host can serve,
/// every run in a process of its own, in interleaved rounds. Prints the median [min–max] of each
/// metric, and theap's median as a multiple of System's: below 1 theap takes less.
/// The peak RSS includes hugetlb pages, which the kernel leaves out of its own figure.
///
/// With a command after -- theap runs that command instead of workloads, once for each round and
/// allocator, without input, and discards its output. The command must end in the same way each
/// time. Its faults and times include those of the descendants that it waited for.
#[derive(Args)]
pub struct Compare {
    /// Workloads to run [default: all of them]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    workload: Vec<Workload>,
    /// Page modes of theap [default: small, thp and hugetlb, as far as this host can serve them]
    #[arg(long, value_name = "MODE", value_delimiter = ',')]
    pages: Vec<PageMode>,
    /// Rounds [default: 5, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Short runs: a minute in all
    #[arg(long)]
    quick: bool,
    /// Also write the figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write a page with curves and charts to this file
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    html: Option<PathBuf>,
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    command: CommandOptions,
}

/// A workload, its parameters and its settings.
struct Job {
    workload: Workload,
    params: Params,
    /// theap's options for it, besides the page mode.
    settings: Vec<Setting>,
}

impl Compare {
    pub fn run(self) -> Result<()> {
        let default_rounds = if self.quick { QUICK_ROUNDS } else { ROUNDS };
        let rounds = self.rounds.map_or(default_rounds, usize::from);
        if self.command.given() {
            // Nobody knows how much memory the command needs.
            let modes = pages::choose(&self.pages, 0)?;
            let asked = !self.pages.is_empty();
            return self
                .command
                .run(&modes, asked, rounds, self.json.as_deref());
        }
        let jobs = self.jobs()?;
        let sides = self.sides(&jobs)?;
        let findings = measure(&jobs, &sides, rounds)?;
        report::save(&findings, self.json.as_deref())?;
        if let Some(path) = &self.html {
            html::write(&findings, path)?;
        }
        report::print(&findings.records, &sides[0].column())
    }

    /// The workloads to run. A workload about an option that this theap does not have is left out,
    /// or an error if the user asked for it.
    fn jobs(&self) -> Result<Vec<Job>> {
        let asked = !self.workload.is_empty();
        let all = if asked {
            &self.workload[..]
        } else {
            &Workload::ALL
        };
        let mut jobs = Vec::new();
        for &workload in all {
            let wanted = workload.setting().into_iter();
            match wanted.map(|(name, value)| setting(name, value)).collect() {
                Ok(settings) => jobs.push(Job {
                    workload,
                    params: self.tuning.params(workload, self.quick),
                    settings,
                }),
                Err(error) if asked => bail!("{workload} cannot run: {error:#}"),
                Err(error) => eprintln!("note: without {workload}: {error:#}"),
            }
        }
        Ok(jobs)
    }

    /// System first, then theap in each page mode.
    fn sides(&self, jobs: &[Job]) -> Result<Vec<Side>> {
        let footprints = jobs.iter().map(|job| job.workload.footprint(&job.params));
        let modes = pages::choose(&self.pages, footprints.max().unwrap_or(0))?;
        let theap = modes.into_iter().map(|mode| Side::new("theap", Some(mode)));
        let system = Side::new("system", None);
        Ok([system].into_iter().chain(theap).collect())
    }
}

/// Runs each workload on each side, in interleaved rounds.
fn measure(jobs: &[Job], sides: &[Side], rounds: usize) -> Result<Findings> {
    let progress = progress::steps(rounds * sides.len() * jobs.len());
    let mut collector = Collector::default();
    for job in jobs {
        let workload = job.workload;
        interleave(rounds, sides.len(), |round, nth| {
            let side = &sides[nth];
            let (name, pages) = (&*side.allocator, side.pages());
            progress.set_message(format!("{workload}, {name} {pages}, round {}", round + 1));
            let order = Order {
                program: None,
                allocator: name,
                mode: side.mode,
                settings: &job.settings,
                workload,
                params: &job.params,
                // In one round only: sampling takes a little of the other CPU's time.
                sampled: workload.is_service() && round == 0,
            };
            let run = child::spawn(&order)
                .with_context(|| format!("{workload} under {} failed", side.title()))?;
            collector.push(workload.name(), name, pages, run);
            progress.inc(1);
            anyhow::Ok(())
        })?;
    }
    progress.finish_and_clear();
    Ok(collector.findings())
}
