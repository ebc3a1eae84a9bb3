//! The results of a comparison: a table and, if the user asks for it, a file with JSON.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use theap_bench::{Column, Record, table};

use super::findings::Findings;

/// Writes the findings to the file `json`, if one is given. This comes before the table is printed,
/// so that nothing is lost if the reader of the table has gone.
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

/// The ratio with at least two digits: a thousandth must not read as nothing.
fn multiple(record: &Record, reference: &Record) -> Option<String> {
    let ratio = record.median / reference.median;
    let digits = if ratio < 0.1 { 4 } else { 2 };
    (reference.median > 0.0).then(|| format!("{ratio:.digits$}x"))
}
