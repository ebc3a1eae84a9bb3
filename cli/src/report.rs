//! What a comparison shows: progress while it runs, then a table and, if asked for, JSON.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use theap_bench::{Column, Record, table};

use crate::findings::Findings;

/// A bar of `steps` on standard error; it draws nothing where that is no terminal.
pub fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}")
        .expect("the template above is well formed");
    ProgressBar::new(steps as u64).with_style(style)
}

/// Writes the findings to `json`, if given. Before the table is printed: they must not be lost when its reader has gone.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn save(findings: &Findings, json: Option<&Path>) -> Result<()> {
    let Some(path) = json else { return Ok(()) };
    let text = serde_json::to_string_pretty(findings)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Prints the table, with ratios to the `reference`.
///
/// # Errors
/// Fails if standard output cannot be written.
pub fn print(records: &[Record], reference: &Column) -> Result<()> {
    let table = table(records, reference, multiple);
    let name = &reference.allocator;
    writeln!(
        io::stdout(),
        "{table}\nN.NNx: median as a multiple of {name}'s; below 1 is less."
    )
    .context("cannot write the table")
}

/// Two digits at least: a ratio of a thousandth must not read as nothing.
fn multiple(record: &Record, reference: &Record) -> Option<String> {
    let ratio = record.median / reference.median;
    let digits = if ratio < 0.1 { 4 } else { 2 };
    (reference.median > 0.0).then(|| format!("{ratio:.digits$}x"))
}
