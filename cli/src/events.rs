//! `theap trace`: what a running process's heap does, event by event.
//!
//! The process records events while a time in its published file has not passed (see `theap::Event`); this program
//! moves that time on while it looks. It looks a thousand times a second, and a ring keeps the latest 4096 events: of
//! a thread that makes more in a millisecond some are lost, and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write, stderr, stdout};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use theap::{Event, EventKind, EventReader, Unreadable};

use crate::library;
use crate::observed::Observed;
use crate::program::Program;

/// How often is looked, and for how long a look keeps the process recording.
const LOOK: Duration = Duration::from_millis(1);
const LEASE: Duration = Duration::from_secs(2);
/// How often is looked whether the process has executed another program.
const RECHECK: Duration = Duration::from_millis(100);
/// First and last pause between two looks for what a command publishes.
const PAUSES: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(20)];
/// Names of spans' sources and of page modes, by their numbers in events.
const STAGES: [&str; 8] = [
    "", "stash", "partial", "empty", "fresh", "prepared", "grow", "remote",
];
const PAGES: [&str; 5] = ["", "small", "thp", "hugetlb", "hugetlb_1g"];

/// Show what a process's heap does, event by event
///
/// Prints each refill, drain, span that comes and goes, map, purge and so on, with what it took, and at the end how
/// many there were of each. A process must have been started with the option `publish`; a COMMAND is.
#[derive(Args)]
pub struct Trace {
    /// The process
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
    /// Events that the file takes at most
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    limit: usize,
    /// Do not print each event
    #[arg(long)]
    quiet: bool,
    /// The library to use with COMMAND [default: the one of this installation]
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// The command and its arguments, after --; what is shown of it goes to standard error
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e9 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give a number of seconds, for example 5 or 0.5".to_owned()),
    }
}

/// How a look at a process ended.
#[derive(PartialEq, Eq)]
enum End {
    /// The process has ended, the time is over, or the user wants no more.
    Over,
    /// The process runs another program.
    LeftBehind,
}

/// What was seen.
struct Seen {
    out: Box<dyn Write>,
    quiet: bool,
    keep: usize,
    events: Vec<Event>,
    counts: BTreeMap<&'static str, (u64, Duration)>,
    lost: u64,
    first: Option<u64>,
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

impl Trace {
    pub fn run(self) -> Result<ExitCode> {
        ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))?;
        let (pid, mut child) = match self.pid {
            Some(pid) => (pid, None),
            None => {
                let child = self.start()?;
                (child.id() as i32, Some(child))
            }
        };
        let mut seen = Seen {
            out: if child.is_some() {
                Box::new(stderr())
            } else {
                Box::new(stdout())
            },
            quiet: self.quiet,
            keep: self.output.as_ref().map_or(0, |_| self.limit),
            events: Vec::new(),
            counts: BTreeMap::new(),
            lost: 0,
            first: None,
        };
        let until = self.seconds.map(|seconds| Instant::now() + seconds);
        let over = || {
            INTERRUPTED.load(Ordering::Relaxed)
                || until.is_some_and(|until| Instant::now() >= until)
        };
        let Some(child) = &mut child else {
            let observed = Observed::open_to_trace(pid)?;
            if follow(&observed, &mut seen, false, &over)? == End::LeftBehind {
                eprintln!("process {pid} runs another program now");
            }
            self.tell(&mut seen, pid)?;
            return Ok(ExitCode::SUCCESS);
        };
        let watched = watch(child, &mut seen, &over);
        if let Err(error) = &watched {
            eprintln!("error: {error:#}");
        }
        let status = child.wait()?;
        if watched.is_ok() || seen.first.is_some() {
            self.tell(&mut seen, pid)?;
        }
        // As a shell tells a command that was ended by a signal.
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(ExitCode::from(code as u8))
    }

    /// Sums up and writes the file.
    fn tell(&self, seen: &mut Seen, pid: i32) -> Result<()> {
        seen.sum_up()?;
        if let Some(path) = &self.output {
            seen.write(path, pid)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Starts the command on theap, recording from the start.
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

/// Follows a command through all programs that it executes.
fn watch(child: &mut Child, seen: &mut Seen, over: &dyn Fn() -> bool) -> Result<()> {
    loop {
        let observed = observe(child, over)?;
        if follow(&observed, seen, true, over)? == End::Over {
            return Ok(());
        }
    }
}

fn follow(
    observed: &Observed,
    seen: &mut Seen,
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
        // Asked first: what a process did before it ended is there afterwards.
        let mut end = (!observed.is_alive() || over()).then_some(End::Over);
        if Instant::now() >= recheck {
            recheck = Instant::now() + RECHECK;
            if end.is_none() && observed.is_left_behind() {
                end = Some(End::LeftBehind);
            }
        }
        if Instant::now() >= renew {
            observed.trace_for(LEASE)?;
            renew = Instant::now() + LEASE / 4;
        }
        let mut batch = Vec::new();
        seen.lost += observed
            .board()?
            .events(&mut reader, |event| batch.push(event));
        batch.sort_by_key(|event| event.time);
        for event in batch {
            seen.add(event)?;
        }
        seen.out.flush()?;
        if let Some(end) = end {
            observed.trace_for(Duration::ZERO)?;
            return Ok(end);
        }
        std::thread::sleep(LOOK);
    }
}

/// Waits for a command that has just begun, or has executed another program, to show its statistics.
fn observe(child: &mut Child, over: &dyn Fn() -> bool) -> Result<Observed> {
    let [mut pause, longest] = PAUSES;
    let mut before = None;
    loop {
        let error = match Observed::open_to_trace(child.id() as i32) {
            Ok(observed) => return Ok(observed),
            Err(error) => error,
        };
        // This stays so; other files may be there before they are filled in.
        if let Some(Unreadable::OtherVersion(_)) = error.downcast_ref() {
            return Err(error);
        }
        if child.try_wait()?.is_some() {
            // The answer while it ran says more than that it is gone.
            let error = before.unwrap_or(error);
            return Err(error.context("the command has ended and could not be looked at"));
        }
        if over() {
            return Err(error.context("the command could not be looked at so far"));
        }
        before = Some(error);
        std::thread::sleep(pause);
        pause = longest.min(pause * 2);
    }
}

impl Seen {
    fn add(&mut self, event: Event) -> Result<()> {
        let (count, time) = self.counts.entry(event.kind.name()).or_default();
        *count += 1;
        *time += Duration::from_nanos(event.duration.into());
        let first = *self.first.get_or_insert(event.time);
        if self.events.len() < self.keep {
            self.events.push(event);
        }
        if self.quiet {
            return Ok(());
        }
        let fields: Vec<String> = arguments(&event)
            .into_iter()
            .map(|(name, value)| {
                format!(
                    "{name}={}",
                    value.as_str().map_or(value.to_string(), str::to_owned)
                )
            })
            .collect();
        let at = event.time.wrapping_sub(first) as f64 / 1e9;
        let took = f64::from(event.duration) / 1e3;
        let (source, kind) = (source(event.source), event.kind.name());
        writeln!(
            self.out,
            "{at:>12.6} {source:<10} {kind:<9} {took:>10.3} us  {}",
            fields.join(" ")
        )?;
        Ok(())
    }

    fn sum_up(&mut self) -> Result<()> {
        for (name, (count, time)) in &self.counts {
            let mean = time.as_secs_f64() * 1e6 / *count as f64;
            writeln!(
                self.out,
                "{name:<10} {count:>10} events, {mean:>10.3} us each"
            )?;
        }
        writeln!(self.out, "lost       {:>10} events", self.lost)?;
        Ok(())
    }

    /// Writes what was kept, in the order of time.
    fn write(&mut self, path: &Path, pid: i32) -> Result<()> {
        self.events.sort_by_key(|event| event.time);
        let sources: BTreeSet<usize> = self.events.iter().map(|event| event.source).collect();
        let named = sources.into_iter().map(|tid| {
            json!({"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": source(tid)}})
        });
        let events = self.events.iter().map(|event| {
            let arguments: BTreeMap<_, _> = arguments(event).into_iter().collect();
            json!({
                "name": event.kind.name(),
                "cat": "theap",
                "ph": "X",
                "ts": event.time as f64 / 1e3,
                "dur": f64::from(event.duration) / 1e3,
                "pid": pid,
                "tid": event.source,
                "args": arguments,
            })
        });
        let mut file = BufWriter::new(File::create(path)?);
        let lost = self.lost;
        write!(
            file,
            "{{\"displayTimeUnit\":\"ns\",\"otherData\":{{\"lost\":\"{lost}\"}},\"traceEvents\":["
        )?;
        for (index, event) in named.chain(events).enumerate() {
            writeln!(file, "{}", if index == 0 { "" } else { "," })?;
            serde_json::to_writer(&mut file, &event)?;
        }
        writeln!(file, "\n]}}")?;
        Ok(file.flush()?)
    }
}

fn source(number: usize) -> String {
    match number.checked_sub(1) {
        None => "pool".to_owned(),
        Some(heap) => format!("heap {heap}"),
    }
}

/// What an event's numbers say.
fn arguments(event: &Event) -> Vec<(&'static str, Value)> {
    let [a, b, value] = event.kind.fields();
    let said = [
        (a, u64::from(event.a)),
        (b, u64::from(event.b)),
        (value, event.value),
    ];
    let named = |names: &[&str], number: u64| {
        let name = names.get(number as usize).map(|&name| Value::from(name));
        name.unwrap_or_else(|| number.into())
    };
    said.into_iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, number)| {
            let value = match name {
                "class" => theap::class_size(number as usize).map_or(number.into(), Value::from),
                "stage" => named(&STAGES, number),
                "pages" => named(&PAGES, number),
                "address" => Value::from(format!("{number:#x}")),
                _ => Value::from(number),
            };
            (name, value)
        })
        .collect()
}

/// Every kind has a name of its own, by which it is counted.
const _: () = assert!(EventKind::ALL.len() == 13);
