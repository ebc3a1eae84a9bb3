//! `theap doctor` shows what this host offers theap and what it lacks.
//!
//! A check is a row of a table: its name, the good that its remedy does, and a function that reads
//! files of `/proc` and `/sys` through [`Host`]. The function answers with its finding, a
//! [`Verdict`] and the command that mends it. theap changes nothing and tries nothing out. When a
//! file cannot be read or understood, only its own check is [`Verdict::Unknown`]. Every check
//! answers on every host, so that reports of two hosts can be compared row by row;
//! `docs/tools.md` lists them all.

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
/// Reads the hugepage pools, transparent hugepages, memory settings, limits, control groups, NUMA
/// nodes, CPUs and the kernel, and prints for each shortcoming the command that mends it (as root)
/// and the good that the command does.
///
/// Exit status: 0 when the host is fit, 1 when something is missing. Notes and facts that could not
/// be read do not count as missing.
#[derive(Args)]
pub struct Doctor {
    /// Print the findings as JSON: a list of {id, subject, found, verdict, fix, brings}
    #[arg(long)]
    json: bool,
    /// Directory whose proc and sys are read in place of /proc and /sys
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
}

/// The judgement of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// The host is as theap wants it.
    Good,
    /// theap works, but could work better.
    Note,
    /// A file cannot be read or understood; the finding says why.
    Unknown,
    /// theap cannot do here what it is for.
    Missing,
}

/// The answer of a check.
struct Answer {
    /// The parts of a list are separated by `; `.
    found: String,
    verdict: Verdict,
    /// The command that mends it; nothing if all is well.
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
    /// The good that the command does.
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

/// The findings of all checks on this host, each under its name for people.
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
