//! A running process that publishes the statistics of its heap: finding the file and reading it.
//!
//! The file is in memory and has no path; the kernel shows it below `/proc/PID` to whoever may look into the process
//! (its user, root). It is opened through a descriptor of the process, or through its mapping (for root) where the
//! program has closed the descriptor. A forked child has the parent's descriptor too, so the mapping says which one
//! is the process's own.
//!
//! Nothing in the file is trusted: it must be sealed, so that it cannot shrink while it is mapped, and
//! [`theap::Board`] checks what it says against its size.
#![allow(unsafe_code)] // Reads memory that another process writes.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use memmap2::{MmapOptions, MmapRaw};
use procfs::ProcError;
use procfs::process::{MMapPath, MemoryMap, Process};
use rustix::fs::{OFlags, SealFlags};
use rustix::time::ClockId;
use theap::{Board, Stats};

/// What the kernel calls the file.
const NAME: &str = "/memfd:theap-stats (deleted)";

/// The statistics of a running process.
pub struct Observed {
    process: Process,
    /// When it started: its number may be another's later.
    started: u64,
    inode: u64,
    map: MmapRaw,
    /// Whether the map can be written.
    write: bool,
}

/// Where the file is mapped.
struct Mapped {
    inode: u64,
    range: (u64, u64),
}

impl Observed {
    /// Opens what the process publishes.
    ///
    /// # Errors
    /// Says why there is nothing to be read and what to do.
    pub fn open(pid: i32) -> Result<Self> {
        Self::open_with(pid, false)
    }

    /// As `open`, to have events recorded too.
    ///
    /// # Errors
    /// As there.
    pub fn open_to_trace(pid: i32) -> Result<Self> {
        Self::open_with(pid, true)
    }

    fn open_with(pid: i32, write: bool) -> Result<Self> {
        let process = Process::new(pid).map_err(|error| explain(error, pid))?;
        let started = start_time(&process).with_context(|| format!("process {pid} is gone"))?;
        let mapped = mapped(&process).map_err(|error| explain(error, pid))?;
        let mapped = mapped.with_context(|| {
            format!(
                "process {pid} does not publish its statistics: it does not run on theap, or was started \
                 without THEAP_PUBLISH=1 (theap run --set publish=1 -- COMMAND)"
            )
        })?;
        let file = open(&process, &mapped, write).with_context(|| {
            format!("process {pid} has closed the descriptor of its statistics: try as root")
        })?;
        check(&file).with_context(|| format!("what process {pid} publishes"))?;
        let map = if write {
            MmapOptions::new().map_raw(&file)
        } else {
            MmapOptions::new().map_raw_read_only(&file)
        };
        let observed = Self {
            process,
            started,
            inode: mapped.inode,
            map: map.context("cannot map the statistics")?,
            write,
        };
        observed.board()?;
        Ok(observed)
    }

    /// The figures now, or, of a process that has ended, the last ones.
    ///
    /// # Errors
    /// What was published is not understood.
    pub fn stats(&self) -> Result<Stats> {
        Ok(self.board()?.stats())
    }

    /// Whether the process still runs.
    pub fn is_alive(&self) -> bool {
        let now = Process::new(self.process.pid()).ok();
        now.and_then(|process| start_time(&process)) == Some(self.started)
    }

    /// Whether the process has executed another program, or the same one again: this file gets no news then.
    pub fn is_left_behind(&self) -> bool {
        match self.process.maps() {
            // A process that is about to end has no memory any more, and has not left it for another.
            Ok(maps) => {
                let mut maps = maps.into_iter().peekable();
                maps.peek().is_some() && maps.all(|map| map.inode != self.inode || !is_ours(&map))
            }
            Err(error) => matches!(error, ProcError::PermissionDenied(_)),
        }
    }

    /// The command's name.
    pub fn name(&self) -> String {
        let stat = self.process.stat();
        stat.map_or_else(|_| "ended".to_owned(), |stat| stat.comm)
    }

    /// Has the process record events for this time, or no longer.
    ///
    /// # Errors
    /// As for `stats`.
    pub fn trace_for(&self, time: Duration) -> Result<()> {
        ensure!(self.write, "opened to be read only");
        let now = Duration::try_from(rustix::time::clock_gettime(ClockId::Monotonic))?;
        let until = if time.is_zero() {
            0
        } else {
            (now + time).as_nanos() as u64
        };
        // SAFETY: mapped to be written, as was asked.
        unsafe { self.board()?.trace_until(until) };
        Ok(())
    }

    /// What the process publishes.
    ///
    /// # Errors
    /// As for `stats`.
    pub fn board(&self) -> Result<Board<'_>> {
        let (start, len) = (self.map.as_ptr(), self.map.len());
        // SAFETY: the map lives as long as the borrow, is page-aligned, and its file cannot shrink. What another
        // process writes there is beyond this program's memory model but for atomics, which is what a board is.
        unsafe { Board::at(start, len) }.map_err(|error| {
            let pid = self.process.pid();
            anyhow!(error).context(format!("process {pid} publishes what cannot be read"))
        })
    }
}

/// When the process started; nothing if it has ended, be it that its parent has not noticed.
fn start_time(process: &Process) -> Option<u64> {
    let stat = process.stat().ok()?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(stat.starttime)
}

fn explain(error: ProcError, pid: i32) -> anyhow::Error {
    match error {
        ProcError::NotFound(_) => anyhow!("there is no process {pid}"),
        ProcError::PermissionDenied(_) => {
            anyhow!("may not look into process {pid}: try as its user or as root")
        }
        error => anyhow!(error).context(format!("cannot read /proc/{pid}")),
    }
}

fn is_ours(map: &MemoryMap) -> bool {
    matches!(&map.pathname, MMapPath::Path(path) if path.as_os_str() == NAME)
}

fn mapped(process: &Process) -> procfs::ProcResult<Option<Mapped>> {
    let maps = process.maps()?;
    let ours = maps.into_iter().find(|map| map.offset == 0 && is_ours(map));
    Ok(ours.map(|map| Mapped {
        inode: map.inode,
        range: map.address,
    }))
}

fn open(process: &Process, mapped: &Mapped, write: bool) -> Option<File> {
    let directory = PathBuf::from(format!("/proc/{}", process.pid()));
    let descriptors = fs::read_dir(directory.join("fd")).into_iter().flatten();
    let (start, end) = mapped.range;
    let paths = descriptors
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| fs::read_link(path).is_ok_and(|target| target.as_os_str() == NAME))
        .chain([directory.join(format!("map_files/{start:x}-{end:x}"))]);
    // Until it is open, what it is goes by its name: opening a FIFO waits, and a terminal may become ours.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    paths
        .filter_map(|path| {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(write);
            options.custom_flags(flags.bits() as i32).open(path).ok()
        })
        .find(|file| file.metadata().is_ok_and(|meta| meta.ino() == mapped.inode))
}

/// Fails unless mapping the file is safe.
fn check(file: &File) -> Result<()> {
    ensure!(file.metadata()?.is_file(), "is not a file");
    match rustix::fs::fcntl_get_seals(file) {
        Ok(seals) if seals.contains(SealFlags::SHRINK) => Ok(()),
        _ => bail!("could become shorter while it is read"),
    }
}
