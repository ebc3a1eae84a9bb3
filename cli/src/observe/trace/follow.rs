//! Reading the events of a process while it runs.

use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use theap::{EventReader, Unreadable};

use super::record::Record;
use crate::observe::Observed;

/// The time between two readings of the events.
const PERIOD: Duration = Duration::from_millis(1);
/// The time for which the process goes on recording after this program has last asked it to.
const LEASE: Duration = Duration::from_secs(2);
/// The time between two checks of whether the process has executed another program.
const RECHECK: Duration = Duration::from_millis(100);
/// The first and the longest pause while a command does not publish its figures yet.
const PAUSES: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(20)];

/// The way in which following a process ended.
#[derive(PartialEq, Eq)]
pub enum End {
    /// The process has ended, the time is over, or the user has interrupted this program.
    Over,
    /// The process has executed another program.
    OtherProgram,
}

/// Follows a command through all programs that it executes.
///
/// # Errors
/// Fails if the command does not publish its figures, or if the events cannot be printed.
pub fn follow_command(
    child: &mut Child,
    record: &mut Record,
    over: &dyn Fn() -> bool,
) -> Result<()> {
    loop {
        let observed = wait_for_board(child, over)?;
        if follow(&observed, record, true, over)? == End::Over {
            return Ok(());
        }
    }
}

/// Reads the events of a process until its end, until it executes another program, or until it is
/// `over`. Events from before the call count only if they are to be read `from_start`.
///
/// # Errors
/// Fails if the figures cannot be read any more, or if the events cannot be printed.
pub fn follow(
    observed: &Observed,
    record: &mut Record,
    from_start: bool,
    over: &dyn Fn() -> bool,
) -> Result<End> {
    let mut reader = Box::new(EventReader::default());
    if !from_start {
        reader.skip_past(&observed.board()?);
    }
    let mut renew = Instant::now();
    let mut recheck = renew + RECHECK;
    loop {
        // This comes before the reading, which then has all that the process did before its end.
        let mut end = (!observed.is_alive() || over()).then_some(End::Over);
        if Instant::now() >= recheck {
            recheck = Instant::now() + RECHECK;
            if end.is_none() && observed.is_left_behind() {
                end = Some(End::OtherProgram);
            }
        }
        if Instant::now() >= renew {
            observed.trace_for(LEASE)?;
            renew = Instant::now() + LEASE / 4;
        }
        let mut batch = Vec::new();
        record.lost += observed
            .board()?
            .events(&mut reader, |event| batch.push(event));
        record.add_all(batch)?;
        if let Some(end) = end {
            observed.trace_for(Duration::ZERO)?;
            return Ok(end);
        }
        thread::sleep(PERIOD);
    }
}

/// Waits for a command that has just begun, or has executed another program, to publish its
/// figures.
fn wait_for_board(child: &mut Child, over: &dyn Fn() -> bool) -> Result<Observed> {
    let [mut pause, longest] = PAUSES;
    let mut before = None;
    loop {
        let error = match Observed::open_to_trace(child.id() as i32) {
            Ok(observed) => return Ok(observed),
            Err(error) => error,
        };
        // Another version stays what it is; any other file may just not be complete yet.
        if let Some(Unreadable::OtherVersion(_)) = error.downcast_ref() {
            return Err(error);
        }
        if child.try_wait()?.is_some() {
            // The error from while the command ran says more than that the command is gone.
            let error = before.unwrap_or(error);
            return Err(error.context("the command has ended before its events could be read"));
        }
        if over() {
            return Err(error.context("the events of the command could not be read in this time"));
        }
        before = Some(error);
        thread::sleep(pause);
        pause = longest.min(pause * 2);
    }
}
