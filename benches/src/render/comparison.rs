//! The table that compares contenders: a block for each workload, in it a row for each metric, and
//! a column for each contender.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::rounds::Record;

/// A column of the table: a contender in a page mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The contender's name.
    pub allocator: String,
    /// The contender's page mode; `default` where it has none to choose.
    pub pages: String,
}

impl Column {
    /// The column of a record.
    pub fn of(record: &Record) -> Self {
        Self {
            allocator: record.allocator.clone(),
            pages: record.pages.clone(),
        }
    }

    /// The name in a heading.
    pub fn title(&self) -> String {
        match self.pages.as_str() {
            "default" => self.allocator.clone(),
            pages => format!("{} {pages}", self.allocator),
        }
    }
}

/// Renders the records as `median [min–max]`. Beside each record of a contender other than the
/// `reference` stands what `ratio` returns for it and the reference's record of the same workload
/// and metric.
pub fn table(
    records: &[Record],
    reference: &Column,
    ratio: impl Fn(&Record, &Record) -> Option<String>,
) -> String {
    let (columns, rows) = layout(records);
    let mut table = Table::new();
    // Markdown, so that a table can go into a report as it is.
    table.load_style(ASCII_MARKDOWN);
    let titles = columns.iter().map(Column::title);
    let heading = ["workload", "metric", "unit"].map(String::from);
    table.set_header(heading.into_iter().chain(titles));
    let mut previous = "";
    for row in rows {
        let find = |column: &Column| {
            records.iter().find(|record| {
                record.workload == row.workload
                    && record.metric == row.metric
                    && Column::of(record) == *column
            })
        };
        let workload = if row.workload == previous {
            ""
        } else {
            row.workload.as_str()
        };
        previous = &row.workload;
        let (unit, scale) = shown_unit(&row.unit);
        let mut cells = vec![workload.to_owned(), row.metric.to_string(), unit.to_owned()];
        for column in &columns {
            cells.push(match (find(column), find(reference)) {
                (Some(record), Some(base)) if column != reference => {
                    let ratio = ratio(record, base).unwrap_or_default();
                    format!("{} {ratio:>6}", figures(record, scale))
                }
                (Some(record), _) => figures(record, scale),
                (None, _) => "-".to_owned(),
            });
        }
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// The columns of the table in order of first appearance, and a record of the workload and metric
/// of each row.
fn layout(records: &[Record]) -> (Vec<Column>, Vec<&Record>) {
    let mut columns: Vec<Column> = Vec::new();
    let mut rows: Vec<&Record> = Vec::new();
    for record in records {
        if !columns.contains(&Column::of(record)) {
            columns.push(Column::of(record));
        }
        if !rows
            .iter()
            .any(|row| row.workload == record.workload && row.metric == record.metric)
        {
            rows.push(record);
        }
    }
    // A metric that a workload reports late must not leave the workload's block.
    let mut workloads: Vec<&str> = rows.iter().map(|row| row.workload.as_str()).collect();
    workloads.dedup();
    rows.sort_by_key(|row| {
        workloads
            .iter()
            .position(|workload| *workload == row.workload)
    });
    (columns, rows)
}

/// The unit that a person reads the figures in, and the factor to it: memory in MiB.
pub fn shown_unit(unit: &str) -> (&str, f64) {
    if unit == "bytes" {
        ("MiB", 1.0 / f64::from(1 << 20))
    } else {
        (unit, 1.0)
    }
}

/// `median [min–max]` of the rounds, times `scale`.
pub fn figures(record: &Record, scale: f64) -> String {
    let [median, min, max] =
        [record.median, record.min, record.max].map(|value| short(value * scale));
    if min == max {
        median
    } else {
        format!("{median} [{min}–{max}]")
    }
}

/// Three digits, or all of them left of the point; counts have none right of it.
fn short(value: f64) -> String {
    let digits = if value.fract() == 0.0 || value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(allocator: &str, pages: &str, median: f64) -> Record {
        Record {
            workload: "larson".into(),
            allocator: allocator.into(),
            pages: pages.into(),
            metric: "wall_time".into(),
            unit: "ms".into(),
            median,
            min: median - 1.0,
            max: median,
            rounds: 3,
        }
    }

    #[test]
    fn ratios_stand_beside_all_but_the_reference() {
        let records = [
            record("system", "default", 20.0),
            record("theap", "thp", 10.0),
        ];
        let reference = Column {
            allocator: "system".into(),
            pages: "default".into(),
        };
        let text = table(&records, &reference, |record, base| {
            Some(format!("{:.2}x", record.median / base.median))
        });
        assert!(text.contains("theap thp"), "{text}");
        assert!(text.contains("10 [9–10]  0.50x"), "{text}");
        assert!(text.contains("20 [19–20]"), "{text}");
        assert!(!text.contains("1.00x"), "{text}");
    }
}
