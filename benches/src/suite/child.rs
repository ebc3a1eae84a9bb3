//! The child's side of the suite's protocol: one row on one contender in this process.
#![allow(unsafe_code)] // the alarm clock

use std::process::ExitCode;

use crate::contender::Contender;
use crate::error::Error;
use crate::measure::Metric;
use crate::row::{Budget, row};

/// Seconds after which the kernel ends a child that still runs.
const PATIENCE: u32 = 120;

/// Runs the row that the program's arguments name, `ROW MILLISECONDS` or `ROW TURNSx`, and prints
/// its metrics as JSON on standard output, or says on standard error why not.
pub fn answer<A: Contender>(a: &A) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(a, &arguments) {
        Ok(metrics) => {
            println!(
                "{}",
                serde_json::to_string(&metrics).expect("figures and names")
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the row that `arguments` name on `a`.
///
/// # Errors
/// Fails if there is no such row, and as [`crate::row::Row::run`] does.
pub fn run<A: Contender>(a: &A, arguments: &[String]) -> Result<Vec<Metric>, Error> {
    let usage = || Error::Setup("give ROW MILLISECONDS, or ROW TURNSx".into());
    let [name, budget] = arguments else {
        return Err(usage());
    };
    let row = row(name).ok_or_else(|| Error::Setup(format!("there is no row {name}")))?;
    let budget: Budget = budget.parse().map_err(|_| usage())?;
    // SAFETY: no precondition. The process handles no SIGALRM, so the signal ends it.
    unsafe { libc::alarm(PATIENCE) };
    row.run(a, budget)
}
