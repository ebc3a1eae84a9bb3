//! `theap compare -- COMMAND`: a program as it is, under theap in each page mode, and under other
//! allocators' libraries, in interleaved rounds.
//!
//! No run counts because of the name of its side alone: the program's loader must bind `malloc` to
//! the side's library ([`loader`](crate::measure::loader)), and that library must be mapped when a
//! run ends. When the command ends on a side in another way than on the first, the comparison
//! fails.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use theap_bench::{Series, interleave};

use super::comparison::{Comparison, Preloaded};
use super::figures;
use super::findings::Findings;
use super::report;
use super::side::Side;
use crate::launch::library;
use crate::launch::peer::{self, Peer};
use crate::launch::program::Program;
use crate::launch::settings::Settings;
use crate::measure::progress;
use crate::pages::{self, PageMode};

/// A command to compare, instead of workloads.
#[derive(Args)]
#[command(next_help_heading = "Options of a command")]
pub struct CommandOptions {
    /// Another allocator's library, for example jemalloc=/usr/lib/x86_64-linux-gnu/libjemalloc.so.2
    #[arg(long, value_name = "NAME=FILE", value_parser = peer::parse, requires = "command")]
    with: Vec<Peer>,
    /// Count system calls too: one more run on each side, which is traced and not timed
    #[arg(long, requires = "command")]
    syscalls: bool,
    /// Show what the first run writes; the other runs' output is discarded
    #[arg(long, requires = "command")]
    show_output: bool,
    #[command(flatten)]
    settings: Settings,
    /// theap's library [default: the library of this installation]
    #[arg(long, value_name = "FILE", requires = "command")]
    library: Option<PathBuf>,
    /// The command and its arguments, after --
    #[arg(
        last = true,
        value_name = "COMMAND",
        conflicts_with_all = ["workload", "quick", "Tuning"]
    )]
    command: Vec<OsString>,
}

impl CommandOptions {
    /// Whether the user gave a command.
    pub fn given(&self) -> bool {
        !self.command.is_empty()
    }

    /// Compares the command on theap in these page modes with System and the peers. When the host
    /// turns out not to serve a mode, the mode is left out, unless the user `asked` for it: then
    /// the comparison fails.
    ///
    /// # Errors
    /// Fails if a side cannot run the command or runs it differently, and if the figures cannot be
    /// written.
    pub fn run(
        self,
        modes: &[PageMode],
        asked: bool,
        rounds: usize,
        json: Option<&Path>,
    ) -> Result<()> {
        let program = Program::find(self.command.clone())?;
        let sides = self.sides(&program, modes)?;
        let mut comparison = Comparison::new(program, sides, asked);
        let mut records = self.runs(&mut comparison, rounds)?.records();
        records.retain(|record| comparison.counts(record));
        let mut findings = Findings {
            records,
            latencies: Vec::new(),
            memory: Vec::new(),
        };
        report::save(&findings, json)?;
        let records = &mut findings.records;
        comparison.remark(records);
        for record in &mut *records {
            record.workload = figures::short(&record.workload);
        }
        report::print(records, &comparison.first().column())?;
        if self.syscalls {
            writeln!(
                io::stdout(),
                "syscalls: counted by ptrace in one more run, descendants included."
            )?;
        }
        Ok(())
    }

    /// The timed rounds, and the runs that count system calls.
    fn runs(&self, comparison: &mut Comparison, rounds: usize) -> Result<Series> {
        let sides = comparison.sides();
        let progress = progress::steps(sides * (rounds + usize::from(self.syscalls)));
        let mut series = Series::default();
        interleave(rounds, sides, |round, nth| {
            let what = format!("round {}", round + 1);
            progress.set_message(format!("{}, {what}", comparison.title(nth)));
            let shown = self.show_output && (round, nth) == (0, 0);
            comparison.add(&mut series, nth, &what, |comparison| {
                comparison.measure(nth, shown)
            })?;
            progress.inc(1);
            anyhow::Ok(())
        })?;
        for nth in (0..sides).filter(|_| self.syscalls) {
            let what = "counting system calls";
            progress.set_message(format!("{}, {what}", comparison.title(nth)));
            comparison.add(&mut series, nth, what, |comparison| comparison.count(nth))?;
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(series)
    }

    /// The program as it is, theap in each page mode, and the peers; the loader has proved each.
    fn sides(&self, program: &Program, modes: &[PageMode]) -> Result<Vec<Preloaded>> {
        let mut sides = vec![Preloaded::new(Side::new("system", None), None, Vec::new())];
        let mut settings = self.settings.variables();
        ensure!(
            settings.all(|(name, _)| *name != pages::VARIABLE),
            "use --pages to say which pages to compare"
        );
        let theap = library::find(self.library.as_deref())?;
        for mode in modes {
            let mut environment: Vec<(&str, OsString)> =
                vec![(pages::VARIABLE, mode.name().into())];
            let settings = self.settings.variables();
            environment.extend(settings.map(|(name, value)| (*name, value.into())));
            let side = Side::new("theap", Some(*mode));
            sides.push(Preloaded::new(side, Some(theap.clone()), environment));
        }
        for peer in &self.with {
            let names = sides.iter().map(|side| &*side.side.allocator);
            peer::name_is_free(&peer.name, names)?;
            let side = Side::new(&peer.name, None);
            sides.push(Preloaded::new(side, Some(peer.library.clone()), Vec::new()));
        }
        for side in &mut sides {
            side.prove(program).with_context(|| {
                format!("{} cannot run under {}", program.label(), side.side.title())
            })?;
        }
        Ok(sides)
    }
}
