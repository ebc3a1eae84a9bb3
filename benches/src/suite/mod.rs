//! The suite: rows on several allocators, every run in a child process of its own, in interleaved rounds.
//!
//! Protocol: a child is started with `ROW MILLISECONDS` after the arguments of its side and prints the row's metrics
//! as JSON ([`crate::answer`]).

mod goals;
mod host;
#[cfg(feature = "report")]
mod output;
mod report;
mod summary;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::row::{Budget, Category, Row};
use crate::{Error, Metric, Record, Series, interleave};

pub use goals::{Goal, Miss};
pub use host::{glibc, host};
#[cfg(feature = "report")]
pub use output::Output;
pub use report::{Failure, Mode, Report, Run};
pub use summary::{Summary, Verdict};

/// What an allocator is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The allocator that is compared.
    Subject,
    /// The same on small pages; only on rows about memory, where it stands for the subject.
    SmallPages,
    /// Another build of the subject: what that costs, or brings.
    Variant,
    /// Another allocator.
    Peer,
    /// What no allocator can pass; only on rows of the hit path.
    Limit,
}

/// An allocator in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entrant {
    /// Its name.
    pub name: String,
    /// What it is there for.
    pub role: Role,
    /// Which version it is, as far as is known.
    pub version: String,
}

/// An allocator, as a program to run.
#[derive(Clone, Debug)]
pub struct Side {
    /// Who it is.
    pub entrant: Entrant,
    /// The program that runs rows on it.
    pub program: PathBuf,
    /// The program's first arguments.
    pub arguments: Vec<OsString>,
    /// What is set in its environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// A run that is about to begin.
pub struct Progress<'a> {
    /// Runs before it.
    pub done: usize,
    /// All runs.
    pub total: usize,
    /// Its row.
    pub row: &'a Row,
    /// Its side.
    pub side: &'a Side,
}

/// What to run.
pub struct Suite {
    /// How the allocators get into the programs.
    pub mode: Mode,
    /// The allocators, in the order of a report, the subject first.
    pub sides: Vec<Side>,
    /// The rows, in the order of a report.
    pub rows: Vec<&'static Row>,
    /// Rounds of each row.
    pub rounds: usize,
    /// How long each run measures.
    pub budget: Budget,
}

impl Side {
    fn runs(&self, row: &Row) -> bool {
        match self.entrant.role {
            Role::Subject | Role::Variant | Role::Peer => true,
            Role::SmallPages => row.category == Category::Memory,
            Role::Limit => row.category == Category::HitPath,
        }
    }

    /// Runs the row in a child.
    ///
    /// # Errors
    /// Fails if the child cannot start or fails; the error carries what it said.
    pub fn measure(&self, row: &Row, budget: Budget) -> Result<Vec<Metric>, Error> {
        let (name, program) = (&self.entrant.name, &self.program);
        let output = Command::new(program)
            .args(&self.arguments)
            .args([row.name, &budget.0.as_millis().to_string()])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .map_err(|error| {
                Error::Setup(format!("cannot start {}: {error}", program.display()))
            })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let (status, said) = (output.status, said.trim());
            return Err(Error::Setup(format!("{name}: {status}: {said}")));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Error::Setup(format!("{name} is not understood: {error}")))
    }
}

impl Suite {
    /// Runs in all of the suite.
    fn runs(&self) -> usize {
        let sides = |row: &&Row| self.sides.iter().filter(|side| side.runs(row)).count();
        self.rounds * self.rows.iter().map(sides).sum::<usize>()
    }

    /// A report on this host that has no figures yet.
    pub fn report(&self, host: Vec<(String, String)>) -> Report {
        let date = humantime::format_rfc3339_seconds(SystemTime::now());
        Report {
            mode: self.mode,
            cpus: host::cpus(),
            host,
            runs: vec![Run {
                date: date.to_string(),
                load: host::load(),
                rounds: self.rounds,
                millis: self.budget.0.as_millis() as u64,
            }],
            entrants: self.sides.iter().map(|side| side.entrant.clone()).collect(),
            records: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Runs everything. `progress` is told before each run, and `save` gets the report after each row.
    ///
    /// # Errors
    /// Fails if `save` does; nothing runs after it. A run that fails is a [`Failure`] of the report.
    pub fn run(
        &self,
        report: &mut Report,
        mut progress: impl FnMut(Progress<'_>),
        mut save: impl FnMut(&Report) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut done, total) = (0, self.runs());
        for row in &self.rows {
            let (records, failures) = self.measure(row, |row, side| {
                progress(Progress {
                    done,
                    total,
                    row,
                    side,
                });
                done += 1;
            });
            report.replace(row.name, records, failures);
            save(report)?;
        }
        Ok(())
    }

    /// All rounds of a row. A side that fails is left out of it from then on.
    fn measure(
        &self,
        row: &Row,
        mut progress: impl FnMut(&Row, &Side),
    ) -> (Vec<Record>, Vec<Failure>) {
        let mut series = Series::default();
        let mut failures: Vec<Failure> = Vec::new();
        let sides: Vec<&Side> = self.sides.iter().filter(|side| side.runs(row)).collect();
        let run = |_, nth: usize| {
            let side = sides[nth];
            let name = &side.entrant.name;
            progress(row, side);
            if failures.iter().any(|failure| failure.allocator == *name) {
                return Ok(());
            }
            match side.measure(row, self.budget) {
                Ok(metrics) => series.push(row.name, name, "default", metrics),
                Err(error) => failures.push(Failure {
                    row: row.name.into(),
                    allocator: name.clone(),
                    error: error.to_string(),
                }),
            }
            Ok::<_, std::convert::Infallible>(())
        };
        let Ok(()) = interleave(self.rounds, sides.len(), run);
        let mut records = series.records();
        records.retain(|record| {
            let mut failed = failures.iter();
            failed.all(|failure| failure.allocator != record.allocator)
        });
        (records, failures)
    }
}
