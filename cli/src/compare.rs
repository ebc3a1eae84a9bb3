//! `theap compare`: System and theap in each page mode, each run in a child of its own, in
//! interleaved rounds: workloads here, any command in [`crate::commands`].

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use theap_bench::{Column, Params, Workload, interleave};

use crate::child::{self, Order};
use crate::commands::Commands;
use crate::findings::Collector;
use crate::pages::PageMode;
use crate::settings::{Setting, setting};
use crate::tuning::Tuning;
use crate::{html, pages, report};

/// Rounds of a full run.
const ROUNDS: usize = 5;

/// Rounds of `--quick`.
const QUICK_ROUNDS: usize = 3;

/// Compare theap in each page mode with System
///
/// Runs each workload under System and under theap in each page mode that this host can serve,
/// every run in a process of its own, in interleaved rounds. Prints median [min–max] of each
/// metric, and theap's median as a multiple of System's: below 1 theap takes less.
/// Peak RSS includes hugetlb pages, which the kernel does not count there.
///
/// With a command after -- runs that command instead, as often as there are rounds and
/// allocators, with no input and its output discarded. How it ends must be the same each time.
/// Faults and times include the descendants that it waited for.
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
    /// Also write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write a page with curves and charts to this file
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    html: Option<PathBuf>,
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    commands: Commands,
}

/// A workload with what it is run with.
struct Job {
    workload: Workload,
    params: Params,
    /// theap's options for it, besides the page mode.
    settings: Vec<Setting>,
}

/// An allocator, and for theap its page mode.
struct Side {
    allocator: &'static str,
    mode: Option<PageMode>,
}

impl Side {
    fn pages(&self) -> &'static str {
        self.mode.map_or("default", PageMode::name)
    }
}

impl Compare {
    pub fn run(self) -> Result<()> {
        let default_rounds = if self.quick { QUICK_ROUNDS } else { ROUNDS };
        let rounds = self.rounds.map_or(default_rounds, usize::from);
        if self.commands.given() {
            // How much the command needs is not known.
            let modes = pages::choose(&self.pages, 0)?;
            let asked = !self.pages.is_empty();
            return self
                .commands
                .run(&modes, asked, rounds, self.json.as_deref());
        }
        let jobs = self.jobs()?;
        let sides = self.sides(&jobs)?;

        let progress = report::progress(rounds * sides.len() * jobs.len());
        let mut collector = Collector::default();
        for job in &jobs {
            interleave(rounds, sides.len(), |round, nth| {
                let side = &sides[nth];
                let (workload, name, pages) = (job.workload, side.allocator, side.pages());
                progress.set_message(format!("{workload}, {name} {pages}, round {}", round + 1));
                let order = Order {
                    program: None,
                    allocator: name,
                    mode: side.mode,
                    settings: &job.settings,
                    workload,
                    params: &job.params,
                    // Only once: to look takes a little of the other CPU's time.
                    watched: workload.is_service() && round == 0,
                };
                let run = child::spawn(&order)
                    .with_context(|| format!("{workload} under {name} ({pages} pages) failed"))?;
                collector.push(workload.name(), name, pages, run);
                progress.inc(1);
                anyhow::Ok(())
            })?;
        }
        progress.finish_and_clear();
        let system = Column {
            allocator: "system".into(),
            pages: "default".into(),
        };
        let findings = collector.findings();
        report::save(&findings, self.json.as_deref())?;
        if let Some(path) = &self.html {
            html::write(&findings, path)?;
        }
        report::print(&findings.records, &system)
    }

    /// The workloads to run. One about an option that this theap does not have is left out, or an
    /// error if it was asked for.
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
        let theap = modes.into_iter().map(|mode| Side {
            allocator: "theap",
            mode: Some(mode),
        });
        Ok([Side {
            allocator: "system",
            mode: None,
        }]
        .into_iter()
        .chain(theap)
        .collect())
    }
}
