//! The figures of a suite, as they are kept in a file.
//!
//! Figures of one row come from one interleaved run: a row that is measured again replaces the old
//! one as a whole, with its failures, so that no ratio is between two runs. The file is written
//! anew after every row and takes its name when it is complete, so that a run that is broken off
//! has lost one row at most.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Entrant, Goal, Summary, Verdict};
use crate::error::{Error, cannot};
use crate::rounds::Record;
use crate::row::Row;

/// The way in which the allocators get into the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The allocators are global allocators of Rust programs.
    InProcess,
    /// The allocators are preloaded libraries.
    Preloaded,
    /// The allocators are global allocators of Rust programs, and callgrind counts what they do:
    /// figures are not times but instructions, and rows have one thread.
    Counted,
}

impl Mode {
    /// The mode's name in files and markers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Preloaded => "preloaded",
            Self::Counted => "counted",
        }
    }

    /// Tells whether allocators run the row in this mode: no call of a Rust program goes to C++'s
    /// operators.
    pub fn has(self, row: &Row) -> bool {
        match self {
            Self::InProcess => !row.is_of(&["new-delete"]),
            Self::Preloaded => true,
            Self::Counted => row.category.has_one_thread() && Self::InProcess.has(row),
        }
    }

    /// The mode's title in reports.
    pub const fn title(self) -> &'static str {
        match self {
            Self::InProcess => "Global allocators of Rust programs",
            Self::Preloaded => "Preloaded libraries",
            Self::Counted => "Global allocators of Rust programs, counted",
        }
    }
}

/// A run of one row on one allocator that has failed and counts for nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The row's name.
    pub row: String,
    /// The allocator's name.
    pub allocator: String,
    /// The reason.
    pub error: String,
}

/// A run of some rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The time when the run began, UTC.
    pub date: String,
    /// The numbers of processes that were ready to run then, means of 1, 5 and 15 minutes.
    pub load: String,
    /// Rounds of each row.
    pub rounds: usize,
    /// Milliseconds that each child measured; 0 if it was counted.
    pub millis: u64,
}

/// Everything that was measured on a host, with facts about the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The way in which the allocators got into the programs.
    pub mode: Mode,
    /// CPUs that the programs could use.
    pub cpus: usize,
    /// Facts about the host by their names.
    pub host: Vec<(String, String)>,
    /// The runs that the records come from.
    pub runs: Vec<Run>,
    /// The allocators, the subject first.
    pub entrants: Vec<Entrant>,
    /// The figures.
    pub records: Vec<Record>,
    /// Runs without figures.
    pub failures: Vec<Failure>,
}

/// A file of figures: the report, and what follows from it, for programs that read the file.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    report: &'a Report,
    verdicts: Vec<Verdict>,
    goals: Vec<Goal>,
}

/// Facts that two reports must share to be merged: ratios between two hosts mean nothing.
const SAME: [&str; 2] = ["processor", "kernel"];

impl Report {
    /// Whether the row has been measured.
    pub fn has(&self, row: &str) -> bool {
        self.records.iter().any(|record| record.workload == row)
            || self.failures.iter().any(|failure| failure.row == row)
    }

    /// Replaces a row's figures and failures.
    pub fn replace(&mut self, row: &str, records: Vec<Record>, failures: Vec<Failure>) {
        self.records.retain(|record| record.workload != row);
        self.failures.retain(|failure| failure.row != row);
        self.records.extend(records);
        self.failures.extend(failures);
    }

    /// Adds a later report, whose rows replace this one's.
    ///
    /// # Errors
    /// Fails if the reports are of two hosts or modes.
    pub fn merge(&mut self, later: Self) -> Result<(), Error> {
        let fact = |report: &Self, name: &str| {
            let mut facts = report.host.iter();
            facts.find(|(known, _)| known == name).cloned()
        };
        let same = |name: &str| fact(self, name) == fact(&later, name);
        if self.mode != later.mode || !SAME.iter().all(|name| same(name)) {
            return Err(Error::Setup(
                "the figures are of different hosts or modes: keep them in files of their own"
                    .into(),
            ));
        }
        let mut rows: Vec<&str> = later
            .records
            .iter()
            .map(|record| &*record.workload)
            .collect();
        rows.extend(later.failures.iter().map(|failure| &*failure.row));
        rows.sort_unstable();
        rows.dedup();
        for row in rows {
            let records = later.records.iter().filter(|record| record.workload == row);
            let failures = later.failures.iter().filter(|failure| failure.row == row);
            self.replace(row, records.cloned().collect(), failures.cloned().collect());
        }
        for entrant in later.entrants {
            match self
                .entrants
                .iter_mut()
                .find(|known| known.name == entrant.name)
            {
                Some(known) => *known = entrant,
                None => self.entrants.push(entrant),
            }
        }
        self.runs.extend(later.runs);
        self.host = later.host;
        self.cpus = later.cpus;
        Ok(())
    }

    /// Reads reports; the rows of later files replace those of earlier ones.
    ///
    /// # Errors
    /// Fails if a file cannot be read or is no report, and as [`Report::merge`] does.
    pub fn load<P: AsRef<Path>>(files: &[P]) -> Result<Option<Self>, Error> {
        let mut all: Option<Self> = None;
        for path in files.iter().map(AsRef::as_ref) {
            let text = fs::read_to_string(path).map_err(|error| cannot("read", path, &error))?;
            let one: Self = serde_json::from_str(&text).map_err(|error| {
                Error::Setup(format!("{} is no report: {error}", path.display()))
            })?;
            match &mut all {
                Some(all) => all.merge(one)?,
                None => all = Some(one),
            }
        }
        Ok(all)
    }

    /// Writes the report with its verdicts and goals as JSON. At any time the file is the old one
    /// or the new one.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let summary = Summary::new(self);
        let written = Written {
            report: self,
            verdicts: summary.verdicts(),
            goals: summary.goals(),
        };
        let text = serde_json::to_string_pretty(&written).expect("figures and names") + "\n";
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = Path::new(&part);
        fs::write(part, text).map_err(|error| cannot("write", part, &error))?;
        fs::rename(part, path).map_err(|error| cannot("write", path, &error))
    }

    /// The first failure of the subject, on whichever pages.
    pub fn subject_failed(&self) -> Option<&Failure> {
        self.failures.iter().find(|failure| {
            let mut subjects = self
                .entrants
                .iter()
                .filter(|entrant| entrant.role.is_subject());
            subjects.any(|entrant| entrant.name == failure.allocator)
        })
    }
}
