//! Findings on standard output: a page for people, or JSON.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};

use super::{Finding, Verdict};

/// Findings under the titles of their sections.
type Report<'a> = [(&'a str, Vec<Finding>)];

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Good => "good",
            Verdict::Note => "note",
            Verdict::Unknown => "unknown",
            Verdict::Missing => "missing",
        }
    }

    fn style(self) -> Style {
        match self {
            Verdict::Good => AnsiColor::Green.on_default(),
            Verdict::Note => AnsiColor::Yellow.on_default(),
            Verdict::Unknown => AnsiColor::Magenta.on_default(),
            Verdict::Missing => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// Prints the findings as a JSON list.
pub fn json(report: &Report) -> Result<()> {
    let findings: Vec<&Finding> = report.iter().flat_map(|(_, findings)| findings).collect();
    let text = serde_json::to_string_pretty(&findings)?;
    writeln!(io::stdout(), "{text}").context("cannot write the findings")
}

/// Prints the findings in sections, in colour on a terminal.
pub fn text(report: &Report) -> Result<()> {
    // One write: the page is whole or not there.
    let mut page = Vec::new();
    lay_out(report, &mut page)?;
    anstream::stdout()
        .write_all(&page)
        .context("cannot write the findings")
}

fn lay_out(report: &Report, page: &mut Vec<u8>) -> io::Result<()> {
    let findings = || report.iter().flat_map(|(_, findings)| findings);
    let width = findings().map(|finding| finding.subject.len()).max();
    let width = width.unwrap_or(0);
    let title_style = Style::new().bold();
    for (title, findings) in report {
        writeln!(page, "{title_style}{title}{title_style:#}")?;
        for finding in findings {
            lay_out_finding(finding, width, page)?;
        }
        writeln!(page)?;
    }
    let count = |verdict| findings().filter(|f| f.verdict == verdict).count();
    let missing = count(Verdict::Missing);
    let rest = format!(
        "{missing} missing, {} to note, {} unknown, {} good",
        count(Verdict::Note),
        count(Verdict::Unknown),
        count(Verdict::Good)
    );
    let (verdict, judgement) = match missing {
        0 => (Verdict::Good, "This host is fit for theap"),
        _ => (Verdict::Missing, "This host is not fit for theap"),
    };
    let style = verdict.style();
    writeln!(page, "{style}{judgement}{style:#}: {rest}.")
}

fn lay_out_finding(finding: &Finding, width: usize, page: &mut Vec<u8>) -> io::Result<()> {
    let (verdict, style) = (finding.verdict.name(), finding.verdict.style());
    // Each part of a list on a line of its own.
    let margin = 2 + 7 + 2 + width + 2;
    let found = finding.found.replace("; ", &format!("\n{:margin$}", ""));
    let subject = finding.subject;
    writeln!(
        page,
        "  {style}{verdict:<7}{style:#}  {subject:<width$}  {found}"
    )?;
    let (Some(fix), Some(brings)) = (&finding.fix, finding.brings) else {
        return Ok(());
    };
    let (bold, faint) = (Style::new().bold(), Style::new().dimmed());
    writeln!(
        page,
        "           {bold}{fix}{bold:#}  {faint}# {brings}{faint:#}"
    )
}
