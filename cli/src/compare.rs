//! `theap compare`: System and theap in each page mode, each run in a child of its own, in
//! interleaved rounds: workloads here, any command in [`crate::commands`].

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use theap_bench::{Column, Params, Series, Workload, interleave};

use crate::commands::Commands;
use crate::pages::PageMode;
use crate::tuning::Tuning;
use crate::{child, pages, report};

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
    /// Short runs: half a minute in all
    #[arg(long)]
    quick: bool,
    /// Also write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    commands: Commands,
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
        let all = if self.workload.is_empty() {
            &Workload::ALL[..]
        } else {
            &self.workload
        };
        let workloads: Vec<(Workload, Params)> = all
            .iter()
            .map(|&workload| (workload, self.tuning.params(workload, self.quick)))
            .collect();
        let sides = self.sides(&workloads)?;

        let progress = report::progress(rounds * sides.len() * workloads.len());
        let mut series = Series::default();
        for (workload, params) in &workloads {
            interleave(rounds, sides.len(), |round, nth| {
                let side = &sides[nth];
                let (name, pages) = (side.allocator, side.pages());
                progress.set_message(format!("{workload}, {name} {pages}, round {}", round + 1));
                let metrics = child::spawn(name, side.mode, *workload, params)
                    .with_context(|| format!("{workload} under {name} ({pages} pages) failed"))?;
                series.push(workload.name(), name, pages, metrics);
                progress.inc(1);
                anyhow::Ok(())
            })?;
        }
        progress.finish_and_clear();
        let system = Column {
            allocator: "system".into(),
            pages: "default".into(),
        };
        let records = series.records();
        report::save(&records, self.json.as_deref())?;
        report::print(&records, &system)
    }

    /// System first, then theap in each page mode.
    fn sides(&self, workloads: &[(Workload, Params)]) -> Result<Vec<Side>> {
        let footprints = workloads
            .iter()
            .map(|(workload, params)| workload.footprint(params));
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
