//! `theap bench`: the rows of the benchmark suite on libraries that are preloaded into a program.
//! The program calls `malloc` and `free` as C programs do, so no call tells the size that it frees.
//!
//! Every run is a process of its own. It fails unless the loader of that very process has bound
//! `malloc` and its like to the library, and glibc's own count shows that glibc did not serve the
//! blocks.

mod sides;

use std::alloc::System;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;
use theap_bench::Preloaded;
use theap_bench::row::{Budget, chosen};
use theap_bench::suite::{Mode, Output, Suite, host};

use crate::doctor;
use crate::launch::peer::{self, Peer};
use crate::measure::progress;

/// The rounds of a full run, and the milliseconds of each row.
const FULL: (u16, u64) = (5, 200);
/// The rounds and milliseconds of `--quick`.
const QUICK: (u16, u64) = (2, 40);

/// Measure theap and other allocators row by row, preloaded as into a C program
///
/// Runs each row under System, under libtheap.so and under each peer, every run in a process of its
/// own, in interleaved rounds. Prints medians [smallest–largest], theap's median as a multiple of
/// the best peer's (marked *), geometric means, and which of the project's goals are met. On rows
/// about memory theap is on small pages, as its peers are.
///
/// A full run takes about half an hour, a quick run two: it leaves out the rows that wait 13 s for
/// memory to be given back, unless --rows names them. A run that was interrupted goes on with
/// --resume.
#[derive(Args)]
pub struct Bench {
    /// Another allocator's library, for example jemalloc=/usr/lib/x86_64-linux-gnu/libjemalloc.so.2
    /// [default: mimalloc, jemalloc, tcmalloc and tbbmalloc, as far as they are installed]
    #[arg(long, value_name = "NAME=FILE", value_parser = peer::parse)]
    with: Vec<Peer>,
    /// Only the rows whose names contain one of these, for example burst/ or larson
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    rows: Vec<String>,
    /// Rounds [default: 5, or 2 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Short runs: two minutes in all
    #[arg(long)]
    quick: bool,
    /// theap's library [default: the library of this installation]
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Run one row on the library that is preloaded into this process, and print its metrics as JSON
#[derive(Args)]
pub struct RunRow {
    /// The library that must provide malloc [default: the C library]
    #[arg(long)]
    library: Option<PathBuf>,
    /// ROW MILLISECONDS
    arguments: Vec<String>,
}

impl Bench {
    pub fn run(self) -> Result<()> {
        let bar = progress::steps(0);
        let doctors = doctor::facts().into_iter();
        let doctors = doctors.map(|(name, found)| (name.to_owned(), found));
        let facts = host().into_iter().chain(doctors).collect();
        let suite = || self.suite();
        let report = self.output.report(Mode::Preloaded, suite, facts, |run| {
            let (row, side) = (run.row.name, &run.side.entrant.name);
            bar.set_length(run.total as u64);
            bar.set_position(run.done as u64);
            bar.set_message(format!("{row}, {side}"));
        })?;
        bar.finish_and_clear();
        self.output.show(&report)?;
        match report.subject_failed() {
            None => Ok(()),
            Some(failure) => bail!("{} failed on {}", failure.allocator, failure.row),
        }
    }

    fn suite(&self) -> Result<Suite> {
        let (rounds, millis) = if self.quick { QUICK } else { FULL };
        let rows = chosen(&self.rows, self.quick);
        ensure!(
            !rows.is_empty(),
            "no row's name contains {}",
            self.rows.join(" or ")
        );
        Ok(Suite {
            mode: Mode::Preloaded,
            sides: sides::all(self.library.as_deref(), &self.with)?,
            rows,
            rounds: self.rounds.unwrap_or(rounds).into(),
            budget: Budget::Time(Duration::from_millis(millis)),
        })
    }
}

impl RunRow {
    pub fn run(self) -> Result<()> {
        let metrics = match &self.library {
            Some(library) => theap_bench::run(&Preloaded::from(library)?, &self.arguments)?,
            None => theap_bench::run(&System, &self.arguments)?,
        };
        println!("{}", serde_json::to_string(&metrics)?);
        Ok(())
    }
}
