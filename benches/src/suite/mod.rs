//! The suite: rows on several allocators, every run in a child process of its own, in interleaved
//! rounds.
//!
//! Protocol: a child is started with `ROW MILLISECONDS` after the arguments of its side, or with
//! `ROW TURNSx` where callgrind counts what it does (`counts.rs`), and prints the row's metrics as
//! JSON ([`answer`]).

mod child;
mod counts;
mod goals;
mod host;
#[cfg(feature = "report")]
mod output;
mod report;
mod summary;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::process::{self, Command};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::measure::Metric;
use crate::rounds::{Record, Series, interleave};
use crate::row::{Budget, Category, GROWN, HUGETLB, Row};

pub use child::{answer, run};
pub use goals::{Goal, Miss};
pub use host::{glibc, host};
#[cfg(feature = "report")]
pub use output::Output;
pub use report::{Failure, Mode, Report, Run};
pub use summary::{Summary, Verdict};

/// The purpose of an allocator in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The allocator that is compared.
    Subject,
    /// The subject on small pages; only on rows about memory, where it stands for the subject, and
    /// on those of a heap that grows.
    SmallPages,
    /// The subject on transparent hugepages; only on rows of memory that is left and of a heap that
    /// grows.
    Transparent,
    /// The subject on hugetlb pages; only on rows of a heap that grows, where the pool has enough.
    Hugetlb,
    /// The subject on small pages with the thread that gives memory back; only on rows of memory
    /// that is left.
    SmallBackground,
    /// The subject on transparent hugepages with that thread; only on rows of memory that is left.
    TransparentBackground,
    /// Another build of the subject, to show what it costs or brings.
    Variant,
    /// Another allocator.
    Peer,
    /// The null allocator, which no allocator can pass; only on rows of the hit path.
    Limit,
}

impl Role {
    /// The purposes of the subject itself, in the order of a report, with the names of its sides.
    pub const SUBJECTS: [(Self, &'static str); 6] = [
        (Self::Subject, "theap"),
        (Self::SmallPages, "theap-small"),
        (Self::Transparent, "theap-thp"),
        (Self::Hugetlb, "theap-hugetlb"),
        (Self::SmallBackground, "theap-small-bg"),
        (Self::TransparentBackground, "theap-thp-bg"),
    ];

    /// Whether this is the subject, whatever its options.
    pub fn is_subject(self) -> bool {
        Self::SUBJECTS.iter().any(|(role, _)| *role == self)
    }

    /// The variables that make the subject what the role says.
    pub fn variables(self) -> Vec<(OsString, OsString)> {
        let pages = match self {
            Self::SmallPages | Self::SmallBackground => Some("small"),
            Self::Transparent | Self::TransparentBackground => Some("thp"),
            Self::Hugetlb => Some("hugetlb"),
            _ => None,
        };
        let background = match self {
            Self::SmallBackground | Self::TransparentBackground => Some("1"),
            _ => None,
        };
        let pages = pages.map(|value| ("THEAP_PAGES".into(), value.into()));
        let background = background.map(|value| ("THEAP_BACKGROUND".into(), value.into()));
        pages.into_iter().chain(background).collect()
    }
}

/// An allocator in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entrant {
    /// The allocator's name.
    pub name: String,
    /// The allocator's purpose.
    pub role: Role,
    /// The allocator's version, as far as is known.
    pub version: String,
}

/// An allocator, as a program to run.
#[derive(Clone, Debug)]
pub struct Side {
    /// The allocator.
    pub entrant: Entrant,
    /// The program that runs rows on it.
    pub program: PathBuf,
    /// The program's first arguments.
    pub arguments: Vec<OsString>,
    /// Variables that are set in the program's environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// A run that is about to begin.
pub struct Progress<'a> {
    /// The number of runs before this one.
    pub done: usize,
    /// The number of all runs.
    pub total: usize,
    /// The row that is run.
    pub row: &'a Row,
    /// The side that runs it.
    pub side: &'a Side,
}

/// The rows to run, the allocators to run them on, and how long.
pub struct Suite {
    /// The way in which the allocators get into the programs.
    pub mode: Mode,
    /// The allocators, in the order of a report, the subject first.
    pub sides: Vec<Side>,
    /// The rows, in the order of a report.
    pub rows: Vec<&'static Row>,
    /// Rounds of each row; a row that waits has a fifth of them.
    pub rounds: usize,
    /// The time that each run measures, or the turns that it counts.
    pub budget: Budget,
}

/// Free bytes of the hugetlb pool from which the subject runs on it: what the heap grows to, and an
/// eighth more for a step that is not used up.
const POOL: u64 = (GROWN + GROWN / 8) as u64;

impl Side {
    fn runs(&self, row: &Row) -> bool {
        match self.entrant.role {
            Role::Subject | Role::Variant | Role::Peer => true,
            Role::SmallPages => row.category.is_memory() || row.category == Category::Growth,
            Role::Transparent => matches!(row.category, Category::Resident | Category::Growth),
            Role::Hugetlb => row.category == Category::Growth && host::has_hugepages(POOL),
            Role::SmallBackground | Role::TransparentBackground => {
                row.category == Category::Resident
            }
            Role::Limit => row.category == Category::HitPath,
        }
    }

    /// Runs the row in a child.
    ///
    /// # Errors
    /// Fails if the child cannot start or fails; the error carries what it said.
    pub fn measure(&self, row: &Row, budget: Budget) -> Result<Vec<Metric>, Error> {
        if let Budget::Turns(turns) = budget {
            return counts::count(self, row, turns);
        }
        let metrics = self.metrics(self.command(&[], row, budget).output())?;
        let on_pool = |metric: &Metric| metric.metric == HUGETLB && metric.value >= GROWN as f64;
        if self.entrant.role == Role::Hugetlb && !metrics.iter().any(on_pool) {
            let name = &self.entrant.name;
            return Err(Error::Setup(format!(
                "{name}: its heap is not on hugetlb pages"
            )));
        }
        Ok(metrics)
    }

    /// The command that runs the row, by way of the command `under` if that is not empty.
    fn command(&self, under: &[&str], row: &Row, budget: Budget) -> Command {
        let mut words = under
            .iter()
            .map(OsStr::new)
            .chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .args(&self.arguments)
            .args([row.name, &budget.to_string()])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(row.setting());
        command
    }

    /// Reads the metrics that the command has printed; it may have failed or not have started.
    fn metrics(&self, output: io::Result<process::Output>) -> Result<Vec<Metric>, Error> {
        let (name, program) = (&self.entrant.name, self.program.display());
        let output =
            output.map_err(|error| Error::Setup(format!("cannot run {program}: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            // Lines that begin so are valgrind's own, and empty ones stand between.
            let own = |line: &&str| !(line.starts_with("==") || line.starts_with("--"));
            let lines = said.lines().filter(own).filter(|line| !line.is_empty());
            let (status, said) = (output.status, lines.collect::<Vec<_>>().join(" "));
            return Err(Error::Setup(format!("{name}: {status}: {said}")));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Error::Setup(format!("{name}: {program} printed no metrics: {error}")))
    }
}

impl Suite {
    /// The number of runs in the whole suite.
    fn runs(&self) -> usize {
        let sides = |row: &Row| self.sides.iter().filter(|side| side.runs(row)).count();
        let runs = |row: &&'static Row| self.rounds_of(row) * sides(row);
        self.rows.iter().map(runs).sum()
    }

    /// The rounds of a row: a fifth where it waits, as its figures hardly differ and cost 13 s
    /// each.
    fn rounds_of(&self, row: &Row) -> usize {
        if row.waits() {
            self.rounds.div_ceil(5)
        } else {
            self.rounds
        }
    }

    /// Leaves out the sides that cannot run under the tool that counts, if this is to be counted,
    /// and says which.
    ///
    /// # Errors
    /// Fails if the tool is not there.
    pub fn countable(mut self) -> Result<Self, Error> {
        if let Budget::Turns(_) = self.budget {
            counts::check()?;
            self.sides.retain(|side| match counts::trial(side) {
                Ok(_) => true,
                Err(error) => {
                    eprintln!("note: without {}: {error}", side.entrant.name);
                    false
                }
            });
        }
        Ok(self)
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
                millis: match self.budget {
                    Budget::Time(time) => time.as_millis() as u64,
                    Budget::Turns(_) => 0,
                },
            }],
            entrants: self.sides.iter().map(|side| side.entrant.clone()).collect(),
            records: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Runs everything. It calls `progress` before each run, and `save` with the report after each
    /// row.
    ///
    /// # Errors
    /// Fails if `save` does; nothing runs after it. A run that fails is a [`Failure`] of the
    /// report.
    pub fn run(
        &self,
        report: &mut Report,
        mut progress: impl FnMut(Progress<'_>),
        mut save: impl FnMut(&Report) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut done, total) = (0, self.runs());
        let grows = (self.rows.iter()).any(|row| row.category == Category::Growth);
        if grows && !host::has_hugepages(POOL) {
            let mib = POOL >> 20;
            eprintln!("note: no heap grows on hugetlb pages: {mib} MiB of the pool must be free");
        }
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

    /// Runs all rounds of a row. A side that fails is left out of the row from then on.
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
        let Ok(()) = interleave(self.rounds_of(row), sides.len(), run);
        let mut records = series.records();
        records.retain(|record| {
            let mut failed = failures.iter();
            failed.all(|failure| failure.allocator != record.allocator)
        });
        (records, failures)
    }
}
