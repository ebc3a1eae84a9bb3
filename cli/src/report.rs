//! What a comparison shows: progress while it runs, then a table and, if asked for, JSON.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use theap_bench::{Column, Record, table};

/// A bar of `steps` on standard error; it draws nothing where that is no terminal.
pub fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}")
        .expect("the template above is well formed");
    ProgressBar::new(steps as u64).with_style(style)
}

/// Prints the table and writes the records to `json`, if given.
///
/// # Errors
/// Fails if standard output or the file cannot be written.
pub fn write(records: &[Record], json: Option<&Path>) -> Result<()> {
    // The file first: it must not be lost when the reader of the table has gone.
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(records)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let system = Column {
        allocator: "system".into(),
        pages: "default".into(),
    };
    let table = table(records, &system, multiple);
    writeln!(
        io::stdout(),
        "{table}\nN.NNx: median as a multiple of System's; below 1 is less."
    )
    .context("cannot write the table")
}

/// Two digits at least: a ratio of a thousandth must not read as nothing.
fn multiple(record: &Record, system: &Record) -> Option<String> {
    let ratio = record.median / system.median;
    let digits = if ratio < 0.1 { 4 } else { 2 };
    (system.median > 0.0).then(|| format!("{ratio:.digits$}x"))
}
