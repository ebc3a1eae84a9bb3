//! `theap trace`: what the heap of a running process does, event by event.
//!
//! The process records events until a time that stands in its board (see `theap::Event`), and this
//! program moves that time on while it reads ([`follow`]). It reads a thousand times a second, and
//! a ring holds the latest 4096 events of a thread. When a thread makes more events in a
//! millisecond, some are lost, and the lost ones are counted ([`record`]).

mod follow;
mod record;

use std::ffi::OsString;
use std::io::{Write, stderr, stdout};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use super::Observed;
use crate::arguments;
use crate::launch::library;
use crate::launch::program::Program;
use follow::End;
use record::Record;

/// Show what a process's heap does, event by event
///
/// Prints each refill, drain, span that comes or goes, map, purge and so on, with the time that it
/// took, and at the end the number of events of each kind. A process must have been started with
/// the option `publish`; theap starts a COMMAND with it.
#[derive(Args)]
pub struct Trace {
    /// The ID of the process
    #[arg(
        value_name = "PID",
        required_unless_present = "command",
        conflicts_with = "command"
    )]
    pid: Option<i32>,
    /// End after this time
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Write the events in the Chrome trace format, for ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The most events that the file gets
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    limit: usize,
    /// Do not print each event
    #[arg(long)]
    quiet: bool,
    /// The library to use with COMMAND [default: the library of this installation]
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// The command and its arguments, after --; theap prints its events on standard error
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn seconds(text: &str) -> Result<Duration> {
    arguments::time(text, "seconds", 1e9, 5).map(Duration::from_secs_f64)
}

/// Whether the user has interrupted this program.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

impl Trace {
    pub fn run(self) -> Result<ExitCode> {
        ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))?;
        let time = self.seconds;
        match self.pid {
            Some(pid) => self.trace_process(pid, &ends_after(time)),
            None => {
                let child = self.start()?;
                self.trace_command(child, &ends_after(time))
            }
        }
    }

    fn trace_process(&self, pid: i32, over: &dyn Fn() -> bool) -> Result<ExitCode> {
        let mut record = self.record(Box::new(stdout()));
        let observed = Observed::open_to_trace(pid)?;
        if follow::follow(&observed, &mut record, false, over)? == End::OtherProgram {
            eprintln!("process {pid} runs another program now");
        }
        self.show(&mut record, pid)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Traces the command, waits for its end, and returns its exit code.
    fn trace_command(&self, mut child: Child, over: &dyn Fn() -> bool) -> Result<ExitCode> {
        let mut record = self.record(Box::new(stderr()));
        let pid = child.id() as i32;
        let followed = follow::follow_command(&mut child, &mut record, over);
        if let Err(error) = &followed {
            eprintln!("error: {error:#}");
        }
        let status = child.wait()?;
        if followed.is_ok() || !record.is_empty() {
            self.show(&mut record, pid)?;
        }
        // A shell gives the same code for a command that a signal has ended.
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(ExitCode::from(code as u8))
    }

    fn record(&self, out: Box<dyn Write>) -> Record {
        let limit = self.output.as_ref().map_or(0, |_| self.limit);
        Record::new(out, self.quiet, limit)
    }

    /// Prints the sums and writes the file.
    fn show(&self, record: &mut Record, pid: i32) -> Result<()> {
        record.sum_up()?;
        if let Some(path) = &self.output {
            record
                .write(path, pid)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Starts the command on theap; it records events from the start.
    fn start(&self) -> Result<Child> {
        let program = Program::find(self.command.clone())?;
        let library = library::find(self.library.as_deref())?;
        let mut command = program.command();
        command
            .env("THEAP_PUBLISH", "1")
            .env("THEAP_TRACE", "1")
            .env(library::PRELOAD, library::preload(&library));
        command.spawn().context("cannot start the command")
    }
}

/// Tells when the trace is over: when the user interrupts it, or after this time from now.
fn ends_after(time: Option<Duration>) -> impl Fn() -> bool {
    let until = time.map(|time| Instant::now() + time);
    move || {
        INTERRUPTED.load(Ordering::Relaxed) || until.is_some_and(|until| Instant::now() >= until)
    }
}
