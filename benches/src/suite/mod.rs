//! The suite: rows on several allocators, every run in a child process of its own, in interleaved rounds.
//!
//! Protocol: a child is started with `ROW MILLISECONDS` after the arguments of its side and prints the row's metrics
//! as JSON ([`crate::answer`]).

mod summary;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::row::{Budget, Category, Row};
use crate::{Error, Metric, Record, Series, interleave};

pub use summary::{Summary, Verdict};

/// What a side is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The allocator that is compared.
    Subject,
    /// The same on small pages; only on rows about memory, where it stands for the subject.
    SmallPages,
    /// Another allocator.
    Peer,
    /// What no allocator can pass; only on rows of the hit path.
    Limit,
}

/// An allocator, as a program to run.
#[derive(Clone, Debug)]
pub struct Side {
    /// Its name in reports.
    pub name: String,
    /// What it is there for.
    pub role: Role,
    /// The program that runs rows on it.
    pub program: PathBuf,
    /// The program's first arguments.
    pub arguments: Vec<OsString>,
    /// What is set in its environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// What to run.
pub struct Suite {
    /// The allocators, in the order of a report; one of them is the subject.
    pub sides: Vec<Side>,
    /// The rows, in the order of a report.
    pub rows: Vec<&'static Row>,
    /// Rounds of each row.
    pub rounds: usize,
    /// How long each run measures.
    pub budget: Budget,
}

/// A run that counts for nothing.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Failure {
    /// The row's name.
    pub row: &'static str,
    /// The side's name.
    pub allocator: String,
    /// What went wrong.
    pub error: String,
}

impl Side {
    fn runs(&self, row: &Row) -> bool {
        match self.role {
            Role::Subject | Role::Peer => true,
            Role::SmallPages => row.category == Category::Memory,
            Role::Limit => row.category == Category::HitPath,
        }
    }

    /// Runs the row in a child.
    ///
    /// # Errors
    /// Fails if the child cannot start or fails; the error carries what it said.
    pub fn measure(&self, row: &Row, budget: Budget) -> Result<Vec<Metric>, Error> {
        let Self { name, program, .. } = self;
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
    pub fn runs(&self) -> usize {
        let sides = |row: &&Row| self.sides.iter().filter(|side| side.runs(row)).count();
        self.rounds * self.rows.iter().map(sides).sum::<usize>()
    }

    /// Runs everything; `progress` is told before each run. A side that fails on a row is left out of it from then on.
    pub fn run(&self, mut progress: impl FnMut(&Row, &Side)) -> (Vec<Record>, Vec<Failure>) {
        let mut series = Series::default();
        let mut failures: Vec<Failure> = Vec::new();
        for row in &self.rows {
            let sides: Vec<&Side> = self.sides.iter().filter(|side| side.runs(row)).collect();
            let run = |_, nth: usize| {
                let side = sides[nth];
                progress(row, side);
                let failed =
                    |failure: &Failure| (failure.row, &failure.allocator) == (row.name, &side.name);
                if failures.iter().any(failed) {
                    return Ok(());
                }
                match side.measure(row, self.budget) {
                    Ok(metrics) => series.push(row.name, &side.name, "default", metrics),
                    Err(error) => failures.push(Failure {
                        row: row.name,
                        allocator: side.name.clone(),
                        error: error.to_string(),
                    }),
                }
                Ok::<_, std::convert::Infallible>(())
            };
            let Ok(()) = interleave(self.rounds, sides.len(), run);
        }
        let mut records = series.records();
        records.retain(|record| {
            let failed = |failure: &Failure| {
                failure.row == record.workload && failure.allocator == record.allocator
            };
            !failures.iter().any(failed)
        });
        (records, failures)
    }
}
