//! `theap stats` prints the figures of a running process once.

use std::fmt::Write;

use anyhow::Result;
use clap::{Args, ValueEnum};
use theap::Shown;

use super::Observed;

/// Print the statistics of a running process
///
/// The process must have been started with the option `publish`: theap run --set publish=1 --
/// COMMAND, or THEAP_PUBLISH=1. The process does nothing while its figures are read.
#[derive(Args)]
pub struct Stats {
    /// The ID of the process
    #[arg(value_name = "PID")]
    pid: i32,
    /// The form in which the figures are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Show also how much memory the kernel has for the heap, and on which pages: it walks through
    /// the tables of the process's pages for that, and a thread that maps memory waits
    #[arg(long)]
    resident: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A table
    Text,
    /// One object
    Json,
    /// Prometheus' text format
    Prometheus,
}

impl Stats {
    pub fn run(self) -> Result<()> {
        let observed = Observed::open(self.pid)?;
        let (stats, heaps) = (observed.stats()?, observed.heaps()?);
        let resident = self.resident.then(|| observed.resident()).transpose()?;
        let shown = Shown {
            stats: &stats,
            heaps: heaps.into_iter(),
            resident,
        };
        let mut text = String::new();
        match self.format {
            Format::Text => shown.write_text(&mut text)?,
            Format::Json => {
                shown.write_json(&mut text)?;
                text.write_char('\n')?;
            }
            Format::Prometheus => shown.write_prometheus(&mut text)?,
        }
        anstream::print!("{text}");
        Ok(())
    }
}
