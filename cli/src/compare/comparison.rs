//! The state of a comparison, and the checks that every run must pass before its figures count.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use theap::Pages;
use theap_bench::{Metric, Record, Series};

use super::figures::{self, HUGETLB, THP};
use super::side::Side;
use crate::launch::library;
use crate::launch::program::Program;
use crate::measure::loader;
use crate::measure::ptrace::{self, Run};

/// The advice where theap fell back from hugetlb pages.
const HOW_MANY: &str = "theap run --pages hugetlb -- COMMAND tells how many it needs";

/// A side on which the command runs, with the library that makes it that side.
pub struct Preloaded {
    pub side: Side,
    /// The library that is preloaded and must provide `malloc`; nothing for the program as it is.
    library: Option<PathBuf>,
    environment: Vec<(&'static str, OsString)>,
    /// Whether the side is left out because a run was not on the pages that it is named after.
    dropped: bool,
}

impl Preloaded {
    /// The side with its library, which is preloaded, and other variables of the environment.
    pub fn new(
        side: Side,
        library: Option<PathBuf>,
        mut environment: Vec<(&'static str, OsString)>,
    ) -> Self {
        let preloaded = library.as_deref().map(library::preload);
        environment.extend(preloaded.map(|value| (library::PRELOAD, value)));
        Self {
            side,
            library,
            environment,
            dropped: false,
        }
    }

    /// Fails unless `malloc` is the library's. The side without a library is named after the file
    /// that provides `malloc`.
    ///
    /// # Errors
    /// Fails if the loader does not tell, or tells another file.
    pub fn prove(&mut self, program: &Program) -> Result<()> {
        let provider = loader::provider_of_malloc(self.apply(&mut Command::new(&program.image)))?;
        match &self.library {
            Some(library) => ensure!(
                provider == *library,
                "malloc is not the one of {} but of {}",
                library.display(),
                provider.display()
            ),
            None if loader::is_libc(&provider) => {}
            None => {
                let name = provider.file_name().unwrap_or_default();
                self.side.allocator = name.to_string_lossy().into_owned();
            }
        }
        Ok(())
    }

    fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let environment = self.environment.iter();
        command.envs(environment.map(|(name, value)| (name, value)))
    }

    fn is_on(&self, pages: Pages) -> bool {
        self.side.mode.is_some_and(|mode| mode.0 == pages)
    }
}

/// The state of a comparison.
pub struct Comparison {
    /// The command as the records name it.
    label: String,
    program: Program,
    sides: Vec<Preloaded>,
    /// The exit status of the first run; every other run must have the same.
    expected: Option<ExitStatus>,
    /// Whether the user asked for the page modes.
    asked: bool,
}

impl Comparison {
    /// A comparison that has not begun.
    pub fn new(program: Program, sides: Vec<Preloaded>, asked: bool) -> Self {
        Self {
            label: program.label(),
            program,
            sides,
            expected: None,
            asked,
        }
    }

    /// The number of sides.
    pub fn sides(&self) -> usize {
        self.sides.len()
    }

    /// The side that the others are compared with.
    pub fn first(&self) -> &Side {
        &self.sides[0].side
    }

    /// The name of a side in messages.
    pub fn title(&self, nth: usize) -> String {
        self.sides[nth].side.title()
    }

    /// Adds the figures that `run` measures on a side, unless the side was dropped.
    ///
    /// # Errors
    /// Fails if `run` does.
    pub fn add(
        &mut self,
        series: &mut Series,
        nth: usize,
        what: &str,
        run: impl FnOnce(&mut Self) -> Result<Vec<Metric>>,
    ) -> Result<()> {
        if self.sides[nth].dropped {
            return Ok(());
        }
        let metrics = run(self)
            .with_context(|| format!("{} under {} failed ({what})", self.label, self.title(nth)))?;
        let side = &self.sides[nth].side;
        series.push(&self.label, &side.allocator, side.pages(), metrics);
        Ok(())
    }

    /// Whether the record is of a side that was not dropped.
    pub fn counts(&self, record: &Record) -> bool {
        let mut dropped = self.sides.iter().filter(|side| side.dropped);
        !dropped.any(|side| side.side.measured(record))
    }

    /// Runs the command on a side and measures it.
    ///
    /// # Errors
    /// Fails if the run ended differently, or was not on the side's library and pages.
    pub fn measure(&mut self, nth: usize, shown: bool) -> Result<Vec<Metric>> {
        let mut command = self.command(nth, shown);
        if self.sides[nth].is_on(Pages::Hugetlb) {
            // Costs the run nothing but a descriptor, and shows which pages it had.
            command.env("THEAP_PUBLISH", "1");
        }
        let run = ptrace::measure(&mut command)?;
        self.check_end(run.status)?;
        self.check_libraries(nth, &run)?;
        self.check_pages(nth, &run)?;
        Ok(figures::of_run(&run))
    }

    /// Runs the command on a side and counts its system calls.
    ///
    /// # Errors
    /// Fails if the run ended differently.
    pub fn count(&mut self, nth: usize) -> Result<Vec<Metric>> {
        let (status, calls) = ptrace::count_syscalls(&mut self.command(nth, false))?;
        self.check_end(status)?;
        Ok(vec![figures::metric("syscalls", "calls", calls as f64)])
    }

    fn command(&self, nth: usize, shown: bool) -> Command {
        let mut command = self.program.command();
        self.sides[nth].apply(&mut command).stdin(Stdio::null());
        if !shown {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        command
    }

    /// Fails unless the run ended as the first run did.
    fn check_end(&mut self, status: ExitStatus) -> Result<()> {
        let expected = *self.expected.get_or_insert(status);
        let first = self.first().title();
        ensure!(
            status == expected,
            "the command ended with {status}, and with {expected} in the first run under {first}"
        );
        Ok(())
    }

    /// Fails unless the side's library, and no other side's, was mapped until the end.
    fn check_libraries(&self, nth: usize, run: &Run) -> Result<()> {
        let own = self.sides[nth].library.as_ref();
        for library in self.sides.iter().filter_map(|side| side.library.as_ref()) {
            let mapped = run.memory.files.contains(library);
            if mapped != (own == Some(library)) {
                let not = if mapped { "" } else { "not " };
                let library = library.display();
                bail!("the run is another allocator's: {library} was {not}mapped when it ended");
            }
        }
        Ok(())
    }

    /// Drops the side if theap fell back from the hugetlb pages that the side is named after; fails
    /// if the user asked for them.
    fn check_pages(&mut self, nth: usize, run: &Run) -> Result<()> {
        if !self.sides[nth].is_on(Pages::Hugetlb) {
            return Ok(());
        }
        // A process that publishes nothing has allocated nothing, or has closed the descriptors
        // that it inherited. Nobody knows its pages then.
        let elsewhere = run.memory.theap_elsewhere.unwrap_or(0);
        self.sides[nth].dropped = elsewhere > 0;
        ensure!(
            !(self.sides[nth].dropped && self.asked),
            "{elsewhere} bytes were not on hugetlb pages; {HOW_MANY}"
        );
        Ok(())
    }

    /// Says on standard error what the figures do not show: that the command failed, and that a
    /// side had no hugepages.
    pub fn remark(&self, records: &[Record]) {
        if let Some(status) = self.expected.filter(|status| !status.success()) {
            eprintln!("note: every run ended with {status}");
        }
        for side in &self.sides {
            let title = side.side.title();
            if side.dropped {
                eprintln!("note: without {title}: the host had too few; {HOW_MANY}");
                continue;
            }
            let metric = match side.side.mode.map(|mode| mode.0) {
                Some(Pages::Thp) => THP,
                Some(Pages::Hugetlb) => HUGETLB,
                _ => continue,
            };
            let none = records.iter().any(|record| {
                side.side.measured(record) && record.metric == metric && record.max == 0.0
            });
            if none {
                eprintln!("note: {title}: no run had any such pages when it ended");
            }
        }
    }
}
