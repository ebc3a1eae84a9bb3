//! `theap compare -- COMMAND`: a program as it is, under System, theap in each page mode, and other allocators'
//! libraries, in interleaved rounds.
//!
//! No run is believed by its label: the program's loader must bind `malloc` to the side's library ([`binding`]), and
//! the library must be mapped when a run ends. A side on which the command ends otherwise than on the first fails the
//! comparison.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use theap_bench::{Column, Metric, Record, Series, interleave};

use crate::findings::Findings;
use crate::pages::{self, PageMode};
use crate::program::Program;
use crate::settings::Settings;
use crate::trace::{self, Run};
use crate::{binding, library, report};

/// A command to compare, instead of workloads.
#[derive(Args)]
#[command(next_help_heading = "Options of a command")]
pub struct Commands {
    /// Another allocator's library, for example jemalloc=/usr/lib/x86_64-linux-gnu/libjemalloc.so.2
    #[arg(long, value_name = "NAME=FILE", value_parser = peer, requires = "command")]
    with: Vec<Peer>,
    /// Count system calls too: one more run on each side, traced, and not timed
    #[arg(long, requires = "command")]
    syscalls: bool,
    /// Show what the first run writes; the other runs' output is discarded
    #[arg(long, requires = "command")]
    show_output: bool,
    #[command(flatten)]
    settings: Settings,
    /// theap's library [default: the one of this installation]
    #[arg(long, value_name = "FILE", requires = "command")]
    library: Option<PathBuf>,
    /// The command and its arguments, after --
    #[arg(
        last = true,
        value_name = "COMMAND",
        conflicts_with_all = ["workload", "quick", "Tuning"]
    )]
    command: Vec<OsString>,
}

/// Another allocator.
#[derive(Clone)]
pub struct Peer {
    pub name: String,
    pub library: PathBuf,
}

/// What the command is run on.
struct Side {
    allocator: String,
    mode: Option<PageMode>,
    /// What is to be preloaded and to provide `malloc`.
    library: Option<PathBuf>,
    environment: Vec<(&'static str, OsString)>,
    /// Whether it is left out because a run was not on the pages that it is named after.
    dropped: bool,
}

impl Commands {
    /// Whether there is a command.
    pub fn given(&self) -> bool {
        !self.command.is_empty()
    }

    /// Compares the command on theap in these page modes with System and the peers. A mode that the host turns out not
    /// to serve is left out, unless it was `asked` for: then the comparison fails.
    pub fn run(
        self,
        modes: &[PageMode],
        asked: bool,
        rounds: usize,
        json: Option<&Path>,
    ) -> Result<()> {
        let program = Program::find(self.command.clone())?;
        let sides = self.sides(&program, modes)?;
        let mut comparison = Comparison {
            label: program.label(),
            program,
            sides,
            expected: None,
            asked,
        };
        let mut records = self.runs(&mut comparison, rounds)?.records();
        records.retain(|record| comparison.counts(record));
        let mut findings = Findings {
            records,
            latencies: Vec::new(),
            memory: Vec::new(),
        };
        report::save(&findings, json)?;
        let records = &mut findings.records;
        comparison.remark(records);
        for record in &mut *records {
            record.workload = short(&record.workload);
        }
        report::print(records, &comparison.sides[0].column())?;
        if self.syscalls {
            writeln!(
                io::stdout(),
                "syscalls: counted by ptrace in one more run, descendants included."
            )?;
        }
        Ok(())
    }

    /// The timed rounds, and the runs that count system calls.
    fn runs(&self, comparison: &mut Comparison, rounds: usize) -> Result<Series> {
        let sides = comparison.sides.len();
        let progress = report::progress(sides * (rounds + usize::from(self.syscalls)));
        let mut series = Series::default();
        interleave(rounds, sides, |round, nth| {
            let what = format!("round {}", round + 1);
            progress.set_message(format!("{}, {what}", comparison.sides[nth].title()));
            let shown = self.show_output && (round, nth) == (0, 0);
            comparison.add(&mut series, nth, &what, |comparison| {
                comparison.measure(nth, shown)
            })?;
            progress.inc(1);
            anyhow::Ok(())
        })?;
        for nth in (0..sides).filter(|_| self.syscalls) {
            let what = "counting system calls";
            progress.set_message(format!("{}, {what}", comparison.sides[nth].title()));
            comparison.add(&mut series, nth, what, |comparison| comparison.count(nth))?;
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(series)
    }

    /// The program as it is, theap in each page mode, and the peers; each proved by the loader.
    fn sides(&self, program: &Program, modes: &[PageMode]) -> Result<Vec<Side>> {
        let mut sides = vec![Side::new("system", None, None, Vec::new())];
        let mut settings = self.settings.variables();
        ensure!(
            settings.all(|(name, _)| *name != pages::VARIABLE),
            "which pages to compare is said by --pages"
        );
        let theap = library::find(self.library.as_deref())?;
        for mode in modes {
            let mut environment: Vec<(&str, OsString)> =
                vec![(pages::VARIABLE, mode.name().into())];
            let settings = self.settings.variables();
            environment.extend(settings.map(|(name, value)| (*name, value.into())));
            let library = Some(theap.clone());
            sides.push(Side::new("theap", Some(*mode), library, environment));
        }
        for peer in &self.with {
            let taken = sides.iter().any(|side| side.allocator == peer.name);
            ensure!(!taken, "there are two allocators named {}", peer.name);
            let library = Some(peer.library.clone());
            sides.push(Side::new(&peer.name, None, library, Vec::new()));
        }
        for side in &mut sides {
            side.prove(program).with_context(|| {
                format!("{} cannot run under {}", program.label(), side.title())
            })?;
        }
        Ok(sides)
    }
}

impl Side {
    fn new(
        allocator: &str,
        mode: Option<PageMode>,
        library: Option<PathBuf>,
        mut environment: Vec<(&'static str, OsString)>,
    ) -> Self {
        environment.extend(
            library
                .as_deref()
                .map(|library| (library::PRELOAD, library::preload(library))),
        );
        Self {
            allocator: allocator.into(),
            mode,
            library,
            environment,
            dropped: false,
        }
    }

    fn column(&self) -> Column {
        Column {
            allocator: self.allocator.clone(),
            pages: self.mode.map_or("default", PageMode::name).into(),
        }
    }

    fn is(&self, record: &Record) -> bool {
        let column = self.column();
        record.allocator == column.allocator && record.pages == column.pages
    }

    fn title(&self) -> String {
        let mode = self.mode.map_or("default", PageMode::name);
        format!("{} ({mode} pages)", self.allocator)
    }

    /// Fails unless `malloc` is the library's. The side without one is named after whoever provides it.
    fn prove(&mut self, program: &Program) -> Result<()> {
        let provider = binding::of_malloc(self.apply(&mut Command::new(&program.image)))?;
        match &self.library {
            Some(library) => ensure!(
                provider == *library,
                "malloc is not the one of {} but of {}",
                library.display(),
                provider.display()
            ),
            None if binding::is_libc(&provider) => {}
            None => {
                let name = provider.file_name().unwrap_or_default();
                self.allocator = name.to_string_lossy().into_owned();
            }
        }
        Ok(())
    }

    fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let environment = self.environment.iter();
        command.envs(environment.map(|(name, value)| (name, value)))
    }
}

/// The state of a comparison.
struct Comparison {
    /// The command as the records name it.
    label: String,
    program: Program,
    sides: Vec<Side>,
    /// How the first run ended, which is how all must.
    expected: Option<ExitStatus>,
    /// Whether the page modes were asked for.
    asked: bool,
}

impl Comparison {
    /// Adds what `run` measures on a side, unless the side was dropped.
    fn add(
        &mut self,
        series: &mut Series,
        nth: usize,
        what: &str,
        run: impl FnOnce(&mut Self) -> Result<Vec<Metric>>,
    ) -> Result<()> {
        if self.sides[nth].dropped {
            return Ok(());
        }
        let metrics = run(self).with_context(|| {
            let title = self.sides[nth].title();
            format!("{} under {title} failed ({what})", self.label)
        })?;
        let column = self.sides[nth].column();
        series.push(&self.label, &column.allocator, &column.pages, metrics);
        Ok(())
    }

    /// Whether the record is not of a dropped side.
    fn counts(&self, record: &Record) -> bool {
        let mut dropped = self.sides.iter().filter(|side| side.dropped);
        !dropped.any(|side| side.is(record))
    }

    fn measure(&mut self, nth: usize, shown: bool) -> Result<Vec<Metric>> {
        let mut command = self.command(nth, shown);
        if self.sides[nth].mode == Some(PageMode::Hugetlb) {
            // Costs the run nothing but a descriptor, and shows which pages it had.
            command.env("THEAP_PUBLISH", "1");
        }
        let run = trace::measure(&mut command)?;
        self.ended(run.status)?;
        self.mapped(nth, &run)?;
        self.paged(nth, &run)?;
        Ok(metrics(&run))
    }

    fn count(&mut self, nth: usize) -> Result<Vec<Metric>> {
        let (status, calls) = trace::count_syscalls(&mut self.command(nth, false))?;
        self.ended(status)?;
        Ok(vec![metric("syscalls", "calls", calls as f64)])
    }

    fn command(&self, nth: usize, shown: bool) -> Command {
        let mut command = self.program.command();
        self.sides[nth].apply(&mut command).stdin(Stdio::null());
        if !shown {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        command
    }

    fn ended(&mut self, status: ExitStatus) -> Result<()> {
        let expected = *self.expected.get_or_insert(status);
        let first = self.sides[0].title();
        ensure!(
            status == expected,
            "it ended with {status}, and with {expected} in the first run under {first}"
        );
        Ok(())
    }

    /// Fails unless the side's library, and no other side's, was there until the end.
    fn mapped(&self, nth: usize, run: &Run) -> Result<()> {
        let own = self.sides[nth].library.as_ref();
        for library in self.sides.iter().filter_map(|side| side.library.as_ref()) {
            let there = run.memory.files.contains(library);
            if there != (own == Some(library)) {
                let not = if there { "" } else { "not " };
                let library = library.display();
                bail!("the run is another allocator's: {library} was {not}mapped when it ended");
            }
        }
        Ok(())
    }

    /// Fails if theap fell back from the hugetlb pages that the side is named after.
    fn paged(&mut self, nth: usize, run: &Run) -> Result<()> {
        if self.sides[nth].mode != Some(PageMode::Hugetlb) {
            return Ok(());
        }
        // Who publishes nothing has allocated nothing, or closed what it inherited: nothing is known of its pages.
        let elsewhere = run.memory.theap_elsewhere.unwrap_or(0);
        self.sides[nth].dropped = elsewhere > 0;
        ensure!(
            !(self.sides[nth].dropped && self.asked),
            "{elsewhere} bytes were not on hugetlb pages; {HOW_MANY}"
        );
        Ok(())
    }

    /// Says on standard error what the figures do not: a failing command, and hugepages that were not had.
    fn remark(&self, records: &[Record]) {
        if let Some(status) = self.expected.filter(|status| !status.success()) {
            eprintln!("note: every run ended with {status}");
        }
        for side in &self.sides {
            if side.dropped {
                eprintln!(
                    "note: without {}: there were too few; {HOW_MANY}",
                    side.title()
                );
                continue;
            }
            let metric = match side.mode {
                Some(PageMode::Thp) => THP,
                Some(PageMode::Hugetlb) => HUGETLB,
                _ => continue,
            };
            let none = records
                .iter()
                .any(|record| side.is(record) && record.metric == metric && record.max == 0.0);
            if none {
                let title = side.title();
                eprintln!("note: {title}: no run had any such pages when it ended");
            }
        }
    }
}

/// What to do where theap fell back from hugetlb pages.
const HOW_MANY: &str = "theap run --pages hugetlb -- COMMAND tells how many it needs";

/// Metric: bytes on transparent hugepages when the command ended.
const THP: &str = "thp_at_exit";

/// Metric: bytes on hugetlb pages when the command ended.
const HUGETLB: &str = "hugetlb_at_exit";

/// Characters of a command that a table shows.
const SHOWN: usize = 40;

/// A command that fits into a cell of a table.
fn short(label: &str) -> String {
    let line = label.replace(|c: char| c.is_whitespace() || c == '|', " ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn metrics(run: &Run) -> Vec<Metric> {
    let [wall, user, system] =
        [run.wall, run.user, run.system].map(|time| time.as_secs_f64() * 1e3);
    vec![
        metric("wall_time", "ms", wall),
        metric("cpu_time", "ms", user + system),
        metric("user_time", "ms", user),
        metric("system_time", "ms", system),
        metric("minor_faults", "faults", run.minor_faults as f64),
        metric("major_faults", "faults", run.major_faults as f64),
        metric("peak_rss", "bytes", run.peak as f64),
        metric(THP, "bytes", run.memory.thp as f64),
        metric(HUGETLB, "bytes", run.memory.hugetlb as f64),
    ]
}

fn metric(name: &'static str, unit: &'static str, value: f64) -> Metric {
    Metric {
        metric: name.into(),
        unit: unit.into(),
        value,
    }
}

/// An allocator from `NAME=FILE`.
///
/// # Errors
/// Fails if it is not of that form or there is no such file.
pub fn peer(text: &str) -> Result<Peer> {
    let (name, file) = text.split_once('=').context("give NAME=FILE")?;
    ensure!(!name.is_empty(), "give NAME=FILE");
    Ok(Peer {
        name: name.into(),
        library: library::named(Path::new(file))?,
    })
}
