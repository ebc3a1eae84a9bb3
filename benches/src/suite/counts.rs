//! Counts instead of times: a row of one thread under callgrind, which counts instructions,
//! simulates caches and sees every read-modify-write. Other work on the machine does not show in
//! them.
//!
//! Each figure is a difference: the row runs twice, once with twice as many turns, and what the
//! second run has more is divided by the operations that it has more. So starting, preparation and
//! the first turns cancel out. The harness's own instructions in a turn stay, as they do in the
//! rows' times; the null allocator shows how few they are.

use std::io;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Side;
use crate::error::Error;
use crate::measure::{INSTRUCTIONS, Metric};
use crate::row::{Budget, OPERATIONS, Row, row};

/// callgrind, without a file: its log has the sums.
const CALLGRIND: [&str; 5] = [
    "valgrind",
    "--tool=callgrind",
    "--cache-sim=yes",
    "--collect-bus=yes",
    "--callgrind-out-file=/dev/null",
];

/// The longest time that a run of a row may take, and that of the trial.
const PATIENCE: Duration = Duration::from_secs(150);
const TRIAL: Duration = Duration::from_secs(20);

/// Figures of an operation by name, each the sum of these events of callgrind. `Ge`, a global bus
/// event, is an instruction with a `lock` prefix, or an exchange with memory.
const FIGURES: [(&str, &[&str]); 4] = [
    (INSTRUCTIONS, &["Ir"]),
    ("read_modify_writes", &["Ge"]),
    ("d1_misses", &["D1mr", "D1mw"]),
    ("ll_misses", &["DLmr", "DLmw"]),
];

/// One run's operations and events.
struct Counts {
    operations: f64,
    /// Names and numbers of the events.
    events: Vec<(String, f64)>,
}

/// Fails unless valgrind is there.
///
/// # Errors
/// Says that it is missing.
pub(super) fn check() -> Result<(), Error> {
    match Command::new(CALLGRIND[0]).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(Error::Setup(
            "there is no valgrind, which counts the instructions; install it".into(),
        )),
    }
}

/// Runs a short row, which shows whether the side can run under callgrind at all.
///
/// # Errors
/// Says why not.
pub(super) fn trial(side: &Side) -> Result<(), Error> {
    let row = row("burst/1x16").expect("it is one of the rows");
    Counts::of(side, row, 1, TRIAL).map(drop)
}

/// Runs the row with `turns` turns and with twice as many, and returns what an operation takes.
///
/// # Errors
/// Fails if a run does.
pub(super) fn count(side: &Side, row: &Row, turns: u64) -> Result<Vec<Metric>, Error> {
    let once = Counts::of(side, row, turns, PATIENCE)?;
    let twice = Counts::of(side, row, 2 * turns, PATIENCE)?;
    let operation = |&(name, events): &(&'static str, &[&str])| {
        let more = twice.sum(events)? - once.sum(events)?;
        let figure = more / (twice.operations - once.operations);
        // Two runs do not start alike to the last event, so nothing may come out as less.
        Ok(Metric::new(name, "/op", figure.max(0.0)))
    };
    FIGURES.iter().map(operation).collect()
}

/// Waits for the command's end, and returns what it has printed. Ends it, which is an error, if it
/// takes longer than the time `limit`.
fn within(limit: Duration, mut command: Command) -> io::Result<Output> {
    let (out, err) = (Stdio::piped(), Stdio::piped());
    let mut child = command.stdout(out).stderr(err).spawn()?;
    let deadline = Instant::now() + limit;
    // What it prints fits into the pipes.
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            let text = format!("it takes more than {} s", limit.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output()
}

impl Counts {
    /// Runs the row.
    fn of(side: &Side, row: &Row, turns: u64, limit: Duration) -> Result<Self, Error> {
        let command = side.command(&CALLGRIND, row, Budget::Turns(turns));
        let output = within(limit, command);
        let log = output.as_ref().map(|output| output.stderr.clone());
        let log = String::from_utf8_lossy(&log.unwrap_or_default()).into_owned();
        Self::new(&side.metrics(output)?, &log)
    }

    /// Reads callgrind's log, which names the events in one line and their numbers in another.
    fn new(metrics: &[Metric], log: &str) -> Result<Self, Error> {
        let words = |title: &str| {
            let line = log.lines().find_map(|line| line.split_once(title))?;
            let words = line.1.trim_start_matches([' ', ':']).split_whitespace();
            Some(words.map(str::to_owned).collect::<Vec<_>>())
        };
        let operations = metrics.iter().find(|metric| metric.metric == OPERATIONS);
        let read = operations.zip(words("Events ")).zip(words("Collected "));
        let Some(((operations, names), numbers)) = read else {
            let log = log.trim();
            return Err(Error::Setup(format!(
                "callgrind has counted nothing: {log}"
            )));
        };
        let numbers = numbers
            .iter()
            .map(|number| number.parse().unwrap_or(f64::NAN));
        Ok(Self {
            operations: operations.value,
            events: names.into_iter().zip(numbers).collect(),
        })
    }

    /// The sum of some events.
    fn sum(&self, names: &[&str]) -> Result<f64, Error> {
        let of = |&name: &&str| {
            let found = self.events.iter().find(|(known, _)| known == name);
            let number = found.map(|(_, number)| *number);
            number.ok_or_else(|| Error::Setup(format!("callgrind does not count {name}")))
        };
        names.iter().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_by_the_names_of_its_events() {
        let log = "==7== Callgrind\n==7== Events    : Ir Dr D1mr D1mw Ge\n\
                   ==7== Collected : 1300 400 20 3 6\n";
        let operations = [Metric::new(OPERATIONS, "ops", 64.0)];
        let counts = Counts::new(&operations, log).unwrap();
        assert_eq!(counts.operations, 64.0);
        assert_eq!(counts.sum(&["Ir"]).unwrap(), 1300.0);
        assert_eq!(counts.sum(&["D1mr", "D1mw"]).unwrap(), 23.0);
        assert_eq!(counts.sum(&["Ge"]).unwrap(), 6.0);
        let error = counts.sum(&["DLmr"]).unwrap_err().to_string();
        assert_eq!(error, "callgrind does not count DLmr");
        assert!(Counts::new(&operations, "==7== killed").is_err());
        assert!(Counts::new(&[], log).is_err());
    }
}
