//! `theap doctor`: what this host offers theap and what it lacks.
//!
//! A check is a row of a table: its name, what its remedy brings, and a function that reads files of
//! `/proc` and `/sys` through [`Host`] and answers with what it found, a [`Verdict`] and what to type.
//! Nothing is changed and nothing is tried out. A file that cannot be read or understood makes its own
//! check [`Verdict::Unknown`] and no other. Every check answers on every host, so that reports of two
//! hosts can be compared row by row; `docs/operations.md` lists them all.

mod cgroup;
mod cpu;
mod host;
mod hugetlb;
mod kernel;
mod memory;
mod numa;
mod print;
mod thp;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

pub use host::Host;
pub use thp::switch as thp_switch;

/// Show what this host offers theap and what it lacks
///
/// Reads the hugepage pools, transparent hugepages, memory settings, limits, control groups, NUMA nodes,
/// CPUs and the kernel, and prints for each shortcoming what to type (as root) and what it brings.
///
/// Exit status: 0 when the host is fit, 1 when something is missing. Notes and facts that could not be
/// read do not count as missing.
#[derive(Args)]
pub struct Doctor {
    /// Print the findings as JSON: a list of {id, subject, found, verdict, fix, brings}
    #[arg(long)]
    json: bool,
    /// Directory under which /proc and /sys are looked for
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
}

/// What a check says of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As theap wants it.
    Good,
    /// Works, could be better.
    Note,
    /// A file could not be read or understood; the finding says why.
    Unknown,
    /// theap cannot do here what it is for.
    Missing,
}

/// What a check found.
struct Answer {
    /// The parts of a list are separated by `; `.
    found: String,
    verdict: Verdict,
    /// What to type, unless all is well.
    fix: Option<String>,
}

impl Answer {
    fn good(found: impl Into<String>) -> Self {
        Answer {
            found: found.into(),
            verdict: Verdict::Good,
            fix: None,
        }
    }

    fn note(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Answer {
            found: found.into(),
            verdict: Verdict::Note,
            fix: Some(fix.into()),
        }
    }

    fn missing(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Answer {
            verdict: Verdict::Missing,
            ..Answer::note(found, fix)
        }
    }
}

/// A row of the table of checks.
struct Check {
    /// Name for programs; never changes.
    id: &'static str,
    /// Name for people, unique too.
    subject: &'static str,
    /// What the remedy is good for.
    brings: &'static str,
    examine: fn(&Host) -> Result<Answer>,
}

/// Checks that are shown together.
struct Section {
    title: &'static str,
    checks: &'static [Check],
}

const SECTIONS: &[&Section] = &[
    &hugetlb::SECTION,
    &thp::SECTION,
    &memory::SECTION,
    &cgroup::SECTION,
    &numa::SECTION,
    &cpu::SECTION,
    &kernel::SECTION,
];

/// A check with its answer, as `--json` prints it.
#[derive(Serialize)]
struct Finding {
    id: &'static str,
    subject: &'static str,
    found: String,
    verdict: Verdict,
    fix: Option<String>,
    brings: Option<&'static str>,
}

impl Check {
    fn run(&self, host: &Host) -> Finding {
        let answer = (self.examine)(host).unwrap_or_else(|error| Answer {
            found: format!("{error:#}"),
            verdict: Verdict::Unknown,
            fix: None,
        });
        Finding {
            id: self.id,
            subject: self.subject,
            found: answer.found,
            verdict: answer.verdict,
            brings: answer.fix.is_some().then_some(self.brings),
            fix: answer.fix,
        }
    }
}

/// This host.
pub fn here() -> Host {
    Host::at("/".into())
}

/// What the checks find on this host, by the subject's name for people.
pub fn facts() -> Vec<(&'static str, String)> {
    let host = here();
    let checks = SECTIONS.iter().flat_map(|section| section.checks);
    checks
        .map(|check| (check.subject, check.run(&host).found))
        .collect()
}

impl Doctor {
    /// Examines the host and prints the findings.
    ///
    /// # Errors
    /// Fails if standard output cannot be written.
    pub fn run(self) -> Result<ExitCode> {
        let host = Host::at(self.root);
        let report: Vec<(&str, Vec<Finding>)> = SECTIONS
            .iter()
            .map(|section| {
                let findings = section.checks.iter().map(|check| check.run(&host));
                (section.title, findings.collect())
            })
            .collect();
        if self.json {
            print::json(&report)?;
        } else {
            print::text(&report)?;
        }
        let mut findings = report.iter().flat_map(|(_, findings)| findings);
        let lacking = findings.any(|finding| finding.verdict == Verdict::Missing);
        Ok(if lacking {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}
