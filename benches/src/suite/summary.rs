//! What the figures of a suite say: the subject against the best peer and the limit, row by row.

use std::fmt::Write;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::{Role, Side};
use crate::Record;
use crate::row::{Category, ROWS, Row};
use crate::table::{figures, shown_unit};

/// The subject on one row.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The row's name.
    pub row: &'static str,
    /// What the row is about.
    pub category: Category,
    /// The subject's median: operations a second in millions, or bytes.
    pub median: f64,
    /// The peer with the best median.
    pub best: Option<String>,
    /// The subject's median as a multiple of the best peer's.
    pub to_best: Option<f64>,
    /// The subject's median as a multiple of the limit's.
    pub to_limit: Option<f64>,
}

/// The figures of a suite with what they say.
pub struct Summary<'a> {
    sides: &'a [Side],
    records: &'a [Record],
}

impl<'a> Summary<'a> {
    /// Of the records that the sides produced.
    pub fn new(sides: &'a [Side], records: &'a [Record]) -> Self {
        Self { sides, records }
    }

    /// A verdict on each row on which the subject has a figure.
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

    /// The subject's record: on rows about memory that of small pages, if there is one.
    fn subject(&self, row: &Row) -> Option<&'a Record> {
        let small = self.of_role(row, Role::SmallPages);
        small.chain(self.of_role(row, Role::Subject)).next()
    }

    fn best(&self, row: &Row) -> Option<&'a Record> {
        let peers = self.of_role(row, Role::Peer);
        let medians = |a: &&Record, b: &&Record| a.median.total_cmp(&b.median);
        match row.category {
            Category::Memory => peers.min_by(medians),
            _ => peers.max_by(medians),
        }
    }

    fn of_role(&self, row: &Row, role: Role) -> impl Iterator<Item = &'a Record> {
        let sides = self.sides.iter().filter(move |side| side.role == role);
        sides.filter_map(move |side| self.record(row, side))
    }

    fn record(&self, row: &Row, side: &Side) -> Option<&'a Record> {
        self.records.iter().find(|record| {
            record.workload == row.name
                && record.allocator == side.name
                && record.metric == row.metric()
        })
    }

    /// The geometric mean of the subject's medians as multiples of a peer's, over the rows of a category; none without
    /// rows.
    pub fn mean(&self, category: Category, peer: &Side) -> Option<f64> {
        let rows = ROWS.iter().filter(|row| row.category == category);
        let ratio = |row| Some(self.subject(row)?.median / self.record(row, peer)?.median);
        let logs: Vec<f64> = rows.filter_map(ratio).map(f64::ln).collect();
        (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
    }

    /// Everything as Markdown: a table of rows for each category, one of geometric means, and what comes with threads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for category in Category::ALL {
            if ROWS
                .iter()
                .any(|row| row.category == category && self.subject(row).is_some())
            {
                let what = match category {
                    Category::Memory => "peak memory in MiB, less is better",
                    _ => "million operations a second",
                };
                let table = self.table(category);
                let _ = writeln!(text, "## {}\n\n{what}\n\n{table}\n", category.title());
            }
        }
        let _ = writeln!(
            text,
            "## geometric means\n\ntheap as a multiple of\n\n{}",
            self.means()
        );
        for line in self.scaling() {
            let _ = writeln!(text, "\n{line}");
        }
        text
    }

    fn table(&self, category: Category) -> Table {
        let sides = self.sides.iter().filter(|side| {
            let rows = ROWS.iter().filter(|row| row.category == category);
            rows.into_iter().any(|row| self.record(row, side).is_some())
        });
        let sides: Vec<&Side> = sides.collect();
        let mut table = markdown(
            ["row", "to best", "to limit"]
                .map(str::to_owned)
                .into_iter()
                .chain(sides.iter().map(|side| side.name.clone())),
        );
        for row in ROWS.iter().filter(|row| row.category == category) {
            let Some(verdict) = self.verdict(row) else {
                continue;
            };
            let mut cells = vec![
                row.name.to_owned(),
                multiple(verdict.to_best),
                multiple(verdict.to_limit),
            ];
            for side in &sides {
                let record = self.record(row, side);
                cells.push(record.map_or("-".into(), |record| {
                    let (_, scale) = shown_unit(&record.unit);
                    let best = verdict.best.as_ref() == Some(&record.allocator);
                    figures(record, scale) + if best { " *" } else { "" }
                }));
            }
            table.add_row(cells);
        }
        table
    }

    fn means(&self) -> Table {
        let peers = self.sides.iter().filter(|side| side.role == Role::Peer);
        let peers: Vec<&Side> = peers.collect();
        let names = peers.iter().map(|side| side.name.clone());
        let mut table = markdown(std::iter::once("rows".to_owned()).chain(names));
        for category in Category::ALL {
            let means = peers.iter().map(|peer| multiple(self.mean(category, peer)));
            table.add_row(std::iter::once(category.title().to_owned()).chain(means));
        }
        table
    }

    /// Throughput of many threads on this machine's CPUs as a multiple of one thread's on one.
    fn scaling(&self) -> Vec<String> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let apart = |row: &'static Row| {
            let threads: usize = row.name.strip_prefix("apart/")?.parse().ok()?;
            Some((threads, self.subject(row)?.median))
        };
        let figures: Vec<(usize, f64)> = ROWS.iter().filter_map(apart).collect();
        let Some((_, one)) = figures.iter().copied().find(|&(threads, _)| threads == 1) else {
            return Vec::new();
        };
        let line = |&(threads, rate): &(usize, f64)| {
            let ratio = rate / threads.min(cpus) as f64 / one;
            format!(
                "{threads} threads on {cpus} CPUs: {ratio:.2} of one thread's throughput per CPU"
            )
        };
        figures
            .iter()
            .filter(|(threads, _)| *threads > 1)
            .map(line)
            .collect()
    }
}

fn markdown(header: impl Iterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn multiple(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"))
}
