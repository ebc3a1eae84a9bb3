//! The summary of a suite's figures: the subject against the best peer and the limit, row by row.

use std::fmt::Write;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::goals::mean;
use super::{Entrant, Mode, Report, Role};
use crate::measure::INSTRUCTIONS;
use crate::render::{figures, shown_unit};
use crate::rounds::Record;
use crate::row::{Category, ROWS, Row};

/// The subject on one row, against the best peer and the limit.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The row's name.
    pub row: &'static str,
    /// The row's category.
    pub category: Category,
    /// The subject's median: operations a second in millions, nanoseconds or bytes, or
    /// instructions.
    pub median: f64,
    /// The peer with the best median.
    pub best: Option<String>,
    /// The subject's median as a multiple of the best peer's.
    pub to_best: Option<f64>,
    /// The subject's median as a multiple of the limit's.
    pub to_limit: Option<f64>,
}

/// Metrics beside the compared ones that have tables of their own, with the tables' titles.
pub(super) const OTHERS: [(&str, &str); 4] = [
    (
        "alloc_touch_max",
        "the longest allocation of a heap that grows, in ns",
    ),
    ("read_modify_writes", "read-modify-writes of an operation"),
    (
        "d1_misses",
        "misses of the first data cache of an operation, simulated",
    ),
    (
        "ll_misses",
        "misses of the last cache of an operation, simulated",
    ),
];

/// A summary of a report's figures.
pub struct Summary<'a> {
    pub(super) report: &'a Report,
}

impl<'a> Summary<'a> {
    /// The summary of `report`.
    pub fn new(report: &'a Report) -> Self {
        Self { report }
    }

    /// A verdict for each row that has a figure of the subject.
    pub fn verdicts(&self) -> Vec<Verdict> {
        ROWS.iter().filter_map(|row| self.verdict(row)).collect()
    }

    fn verdict(&self, row: &Row) -> Option<Verdict> {
        let median = self.subject(row)?.median;
        let best = self.best(row);
        let limit = self.of_role(row, Role::Limit).next();
        Some(Verdict {
            row: row.name,
            category: row.category,
            median,
            best: best.map(|best| best.allocator.clone()),
            to_best: best.map(|best| median / best.median),
            to_limit: limit.map(|limit| median / limit.median),
        })
    }

    /// The subject's record. On rows about memory it is the record on small pages, if there is one.
    pub(super) fn subject(&self, row: &Row) -> Option<&'a Record> {
        let small = self.of_role(row, Role::SmallPages);
        let mut small = small.filter(|_| row.category.is_memory());
        small
            .next()
            .or_else(|| self.of_role(row, Role::Subject).next())
    }

    pub(super) fn best(&self, row: &Row) -> Option<&'a Record> {
        let peers = self.of_role(row, Role::Peer);
        let medians = |a: &&Record, b: &&Record| a.median.total_cmp(&b.median);
        if row.category.is_speed() && self.report.mode != Mode::Counted {
            peers.max_by(medians)
        } else {
            peers.min_by(medians)
        }
    }

    pub(super) fn of_role(&self, row: &Row, role: Role) -> impl Iterator<Item = &'a Record> {
        let entrants = self.report.entrants.iter();
        let entrants = entrants.filter(move |entrant| entrant.role == role);
        entrants.filter_map(move |entrant| self.record(row, entrant))
    }

    /// An allocator's record of the metric that a reader compares.
    pub fn record(&self, row: &Row, entrant: &Entrant) -> Option<&'a Record> {
        self.metric(row, entrant, self.compared(row))
    }

    /// The metric of the row that a reader compares: its own ([`Row::metric`]), or instructions
    /// where the runs were counted.
    pub(super) fn compared(&self, row: &Row) -> &'static str {
        match self.report.mode {
            Mode::Counted => INSTRUCTIONS,
            _ => row.metric(),
        }
    }

    /// A sentence with the unit of the rows' figures.
    pub fn unit(&self, category: Category) -> &'static str {
        match self.report.mode {
            Mode::Counted => "Instructions of an operation, less is better.",
            _ => category.unit(),
        }
    }

    /// An allocator's record of any metric.
    pub(super) fn metric(&self, row: &Row, entrant: &Entrant, metric: &str) -> Option<&'a Record> {
        self.report.records.iter().find(|record| {
            record.workload == row.name
                && record.allocator == entrant.name
                && record.metric == metric
        })
    }

    /// The geometric mean of the subject's medians as multiples of another's, over the rows of a
    /// category; `None` without rows.
    pub fn mean(&self, category: Category, other: &Entrant) -> Option<f64> {
        let rows = ROWS.iter().filter(|row| row.category == category);
        mean(
            rows.filter_map(|row| {
                Some(self.subject(row)?.median / self.record(row, other)?.median)
            }),
        )
    }

    /// Everything as Markdown: a table of rows for each category, geometric means, the variants,
    /// and the goals.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for category in self.categories() {
            let (title, unit) = (category.title(), self.unit(category));
            let table = markdown(self.lines(category));
            let _ = writeln!(text, "## {title}\n\n{unit}\n\n{table}\n");
        }
        let sections = [
            ("geometric means: theap as a multiple of", self.mean_lines()),
            ("variants: as multiples of theap", self.variant_lines()),
            ("goals", self.goal_lines()),
        ];
        let others = OTHERS.map(|(metric, title)| (title, self.metric_lines(metric)));
        for (title, lines) in others.into_iter().chain(sections) {
            if lines.len() > 1 {
                let _ = writeln!(text, "## {title}\n\n{}\n", markdown(lines));
            }
        }
        text
    }

    /// The categories on which the subject has figures.
    pub fn categories(&self) -> impl Iterator<Item = Category> {
        let has = |category| {
            let mut rows = ROWS.iter().filter(move |row| row.category == category);
            rows.any(|row| self.subject(row).is_some())
        };
        Category::ALL
            .into_iter()
            .filter(move |category| has(*category))
    }

    /// The rows of a category as lines of a table, the heading first.
    pub fn lines(&self, category: Category) -> Vec<Vec<String>> {
        let rows = || ROWS.iter().filter(|row| row.category == category);
        let entrants = self.report.entrants.iter();
        let entrants =
            entrants.filter(|entrant| rows().any(|row| self.record(row, entrant).is_some()));
        let entrants: Vec<&Entrant> = entrants.collect();
        let names = entrants.iter().map(|entrant| entrant.name.clone());
        let heading = ["row", "to best", "to limit"].map(str::to_owned);
        let mut lines = vec![heading.into_iter().chain(names).collect()];
        for row in rows() {
            let Some(verdict) = self.verdict(row) else {
                continue;
            };
            let mut cells = vec![
                row.name.to_owned(),
                multiple(verdict.to_best),
                multiple(verdict.to_limit),
            ];
            for entrant in &entrants {
                let record = self.record(row, entrant);
                cells.push(record.map_or("-".into(), |record| {
                    let (_, scale) = shown_unit(&record.unit);
                    let best = verdict.best.as_ref() == Some(&record.allocator);
                    figures(record, scale) + if best { " *" } else { "" }
                }));
            }
            lines.push(cells);
        }
        lines
    }

    /// The rows that have a metric beside the one that a reader compares, as lines of a table.
    pub fn metric_lines(&self, metric: &str) -> Vec<Vec<String>> {
        let records = self.report.records.iter();
        let has = |entrant: &&Entrant| {
            let mut records = records.clone().filter(|record| record.metric == metric);
            records.any(|record| record.allocator == entrant.name)
        };
        let entrants: Vec<&Entrant> = self.report.entrants.iter().filter(has).collect();
        let names = entrants.iter().map(|entrant| entrant.name.clone());
        let mut lines = vec![std::iter::once("row".to_owned()).chain(names).collect()];
        for row in ROWS {
            let found = entrants.iter();
            let found = found.map(|entrant| self.metric(row, entrant, metric));
            let found: Vec<Option<&Record>> = found.collect();
            if found.iter().any(Option::is_some) {
                let cell = |record: &Record| figures(record, shown_unit(&record.unit).1);
                let cells = found.iter().map(|record| record.map_or("-".into(), cell));
                lines.push(std::iter::once(row.name.to_owned()).chain(cells).collect());
            }
        }
        lines
    }

    /// The subject's geometric means as multiples of each peer's, with a line for each category.
    pub fn mean_lines(&self) -> Vec<Vec<String>> {
        let peers = self.entrants(Role::Peer);
        let names = peers.iter().map(|peer| peer.name.clone());
        let mut lines = vec![std::iter::once("rows".to_owned()).chain(names).collect()];
        for category in self.categories().filter(|_| !peers.is_empty()) {
            let means = peers.iter().map(|peer| multiple(self.mean(category, peer)));
            let title = category.title().to_owned();
            lines.push(std::iter::once(title).chain(means).collect());
        }
        lines
    }

    /// The medians of other builds as multiples of the subject's, with a line for each row.
    pub fn variant_lines(&self) -> Vec<Vec<String>> {
        let variants = self.entrants(Role::Variant);
        let names = variants.iter().map(|variant| variant.name.clone());
        let mut lines = vec![std::iter::once("row".to_owned()).chain(names).collect()];
        for row in ROWS.iter().filter(|_| !variants.is_empty()) {
            let Some(subject) = self.of_role(row, Role::Subject).next() else {
                continue;
            };
            let ratios = variants.iter().map(|variant| {
                multiple(
                    self.record(row, variant)
                        .map(|record| record.median / subject.median),
                )
            });
            lines.push(std::iter::once(row.name.to_owned()).chain(ratios).collect());
        }
        lines
    }

    fn entrants(&self, role: Role) -> Vec<&'a Entrant> {
        let entrants = self.report.entrants.iter();
        entrants.filter(|entrant| entrant.role == role).collect()
    }
}

/// A table in Markdown of these lines, the first of which is the heading.
pub fn markdown(lines: Vec<Vec<String>>) -> Table {
    let mut lines = lines.into_iter();
    let mut table = Table::new();
    table
        .load_style(ASCII_MARKDOWN)
        .set_header(lines.next().unwrap_or_default());
    table.add_rows(lines);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn multiple(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"))
}
