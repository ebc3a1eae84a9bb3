//! The options that both programs of the suite have for a report: measure or load it, keep it, show
//! it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::summary::{OTHERS, markdown};
use super::{Mode, Progress, Report, Suite, Summary};
use crate::error::{Error, cannot};
use crate::render::charts::{self, Dots};
use crate::render::document::{self, Section};
use crate::render::{Column, Page};
use crate::row::{Category, ROWS};

/// The files that figures come from and go to.
#[derive(clap::Args)]
pub struct Output {
    /// Write everything that is measured to this file as JSON, anew after every row
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Go on with the run that the file of --json holds: rows that it has are not measured again
    #[arg(long, requires = "json")]
    resume: bool,
    /// Measure nothing: show the figures of a file that --json wrote. Given more than once, rows of
    /// later files replace those of earlier ones
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    from: Vec<PathBuf>,
    /// Also write a page with charts to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Also write tables into this Markdown file, between markers, and charts into a directory of
    /// its name beside it
    #[arg(long, value_name = "FILE")]
    docs: Option<PathBuf>,
}

impl Output {
    /// Returns the figures of `--from`, or those that `suite` measures; it calls `progress` before
    /// each run.
    ///
    /// # Errors
    /// Fails if a file cannot be read or written, or holds figures of another mode.
    pub fn report<E: From<Error>>(
        &self,
        mode: Mode,
        suite: impl FnOnce() -> Result<Suite, E>,
        host: Vec<(String, String)>,
        progress: impl FnMut(Progress<'_>),
    ) -> Result<Report, E> {
        // Before hours of measuring.
        if let Some(path) = self.docs.as_deref() {
            document::charts_beside(path)?;
        }
        let report = match Report::load(&self.from)? {
            Some(report) if report.mode == mode => report,
            Some(report) => {
                let title = report.mode.title();
                return Err(Error::Setup(format!(
                    "--from has figures of another program: {title}"
                ))
                .into());
            }
            None => self.measure(suite()?, host, progress)?,
        };
        if let Some(path) = &self.json {
            report.save(path)?;
        }
        Ok(report)
    }

    fn measure(
        &self,
        suite: Suite,
        host: Vec<(String, String)>,
        progress: impl FnMut(Progress<'_>),
    ) -> Result<Report, Error> {
        let known = self
            .json
            .as_deref()
            .filter(|path| self.resume && path.exists());
        let mut suite = suite.countable()?;
        let mut report = suite.report(host);
        if let Some(mut whole) = Report::load(known.as_slice())? {
            suite.rows.retain(|row| !whole.has(row.name));
            if suite.rows.is_empty() {
                return Ok(whole);
            }
            whole.merge(report)?;
            report = whole;
        }
        let save = |report: &Report| {
            self.json
                .as_deref()
                .map_or(Ok(()), |path| report.save(path))
        };
        suite.run(&mut report, progress, save)?;
        Ok(report)
    }

    /// Writes the page and the document, and prints the tables.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    pub fn show(&self, report: &Report) -> Result<(), Error> {
        if let Some(path) = &self.html {
            page(report, path)?;
        }
        if let Some(path) = &self.docs {
            docs(report, path)?;
        }
        writeln!(io::stdout(), "{}", Summary::new(report).text())
            .map_err(|error| cannot("write to", Path::new("standard output"), &error))?;
        for failure in &report.failures {
            let (row, allocator, error) = (&failure.row, &failure.allocator, &failure.error);
            eprintln!("note: no figure of {allocator} on {row}: {error}");
        }
        Ok(())
    }
}

fn page(report: &Report, path: &Path) -> Result<(), Error> {
    let sides = report.entrants.iter().map(|entrant| Column {
        allocator: entrant.name.clone(),
        pages: "default".into(),
    });
    let title = report.mode.title();
    let mut page = Page::new("theap row by row", title, sides.collect());
    page.paragraph(
        "Each run had a process of its own; allocators took turns in every round. Figures are medians [smallest–largest] \
         of the rounds, * is the best peer; to best and to limit: theap's median as a multiple of the best peer's and of the \
         null allocator's. On rows about memory theap is on small pages.",
    );
    let summary = Summary::new(report);
    page.add(format_args!("<h2>Goals</h2>\n"));
    page.table(summary.goal_lines());
    for category in summary.categories() {
        let name = category.title();
        page.add(format_args!("<h2>{name}</h2>\n"));
        page.paragraph(summary.unit(category));
        if let Some(svg) = chart(&summary, category)? {
            page.figure(category.name(), "Multiples of the best peer", &svg, AXIS);
        }
        page.table(summary.lines(category));
    }
    for (metric, title) in OTHERS {
        let lines = summary.metric_lines(metric);
        if lines.len() > 1 {
            page.add(format_args!("<h2>{title}</h2>\n"));
            page.table(lines);
        }
    }
    for (title, lines) in [
        (
            "Geometric means: theap as a multiple of",
            summary.mean_lines(),
        ),
        ("Variants: as multiples of theap", summary.variant_lines()),
        ("Runs without figures", failures(report)),
    ] {
        if lines.len() > 1 {
            page.add(format_args!("<h2>{title}</h2>\n"));
            page.table(lines);
        }
    }
    page.figures(&report.records);
    page.facts("The host as it was when the runs began.", facts(report));
    page.write(path)
}

/// The caption of a chart.
const AXIS: &str = "A dot is a median, the line through it goes from the smallest to the largest round; the scale is \
                    logarithmic. Right is better, on rows about memory or a heap that grows, and of \
                    instructions, left.";

/// The chart of a category's figures as multiples of the best peer's; `None` if no peer has any.
fn chart(summary: &Summary, category: Category) -> Result<Option<String>, Error> {
    let entrants = &summary.report.entrants;
    let mut rows = Vec::new();
    for row in ROWS.iter().filter(|row| row.category == category) {
        let Some(best) = summary.best(row) else {
            continue;
        };
        let values = entrants.iter().enumerate().filter_map(|(side, entrant)| {
            let found = summary.record(row, entrant)?;
            Some((
                side,
                [found.median, found.min, found.max].map(|figure| figure / best.median),
            ))
        });
        rows.push(Dots {
            name: row.name.into(),
            values: values.collect(),
        });
    }
    let sides = entrants.iter().enumerate();
    let sides = sides.map(|(side, entrant)| (side, entrant.name.clone()));
    let shown = |side| {
        let mut values = rows.iter().flat_map(|row| &row.values);
        values.any(|(shown, _)| *shown == side)
    };
    let sides: Vec<_> = sides.filter(|(side, _)| shown(*side)).collect();
    (!rows.is_empty())
        .then(|| charts::dots(&rows, &sides))
        .transpose()
}

/// The host, the runs and the allocators' versions, each with its name.
fn facts(report: &Report) -> Vec<(String, String)> {
    let mut facts = report.host.clone();
    for run in &report.runs {
        let (load, rounds, millis) = (&run.load, run.rounds, run.millis);
        let how = match report.mode {
            Mode::Counted => format!("{rounds} rounds, counted, load {load}"),
            _ => format!("{rounds} rounds of {millis} ms, load {load}"),
        };
        facts.push((run.date.clone(), how));
    }
    let entrants = report.entrants.iter();
    facts.extend(entrants.map(|entrant| (entrant.name.clone(), entrant.version.clone())));
    facts
}

fn failures(report: &Report) -> Vec<Vec<String>> {
    let heading = ["row", "allocator", "why"].map(str::to_owned).to_vec();
    let lines = report.failures.iter().map(|failure| {
        vec![
            failure.row.clone(),
            failure.allocator.clone(),
            failure.error.clone(),
        ]
    });
    std::iter::once(heading).chain(lines).collect()
}

/// Writes sections into the document: the goals, each category with its chart, the means, the
/// variants, and the host.
fn docs(report: &Report, path: &Path) -> Result<(), Error> {
    let mode = report.mode;
    let directory = document::charts_beside(path)?;
    let beside = directory
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    fs::create_dir_all(&directory).map_err(|error| cannot("make", &directory, &error))?;
    let summary = Summary::new(report);
    let section = |name: &str, title: &str, body: String| Section {
        name: format!("{}-{name}", mode.name()),
        title: format!("{}: {title}", mode.title()),
        body,
    };
    let mut sections = vec![section(
        "goals",
        "goals",
        markdown(summary.goal_lines()).to_string(),
    )];
    for category in summary.categories() {
        let (name, title, unit) = (category.name(), category.title(), summary.unit(category));
        let mut body = format!("{unit}\n\n{}", markdown(summary.lines(category)));
        if let Some(svg) = chart(&summary, category)? {
            let file = format!("{}-{name}.svg", mode.name());
            let to = directory.join(&file);
            fs::write(&to, charts::standalone(&svg))
                .map_err(|error| cannot("write", &to, &error))?;
            body += &format!("\n\n![{title}]({beside}/{file})");
        }
        sections.push(section(name, title, body));
    }
    for (metric, title) in OTHERS {
        let lines = summary.metric_lines(metric);
        if lines.len() > 1 {
            sections.push(section(metric, title, markdown(lines).to_string()));
        }
    }
    let facts = facts(report)
        .into_iter()
        .map(|(name, found)| vec![name, found]);
    let facts: Vec<_> = std::iter::once(vec!["".into(), "".into()])
        .chain(facts)
        .collect();
    for (name, title, lines) in [
        ("means", "theap as a multiple of", summary.mean_lines()),
        (
            "variants",
            "other builds as multiples of theap",
            summary.variant_lines(),
        ),
        ("host", "the host", facts),
    ] {
        if lines.len() > 1 {
            sections.push(section(name, title, markdown(lines).to_string()));
        }
    }
    document::write(path, "suite", "Performance", &sections)
}
