//! A running process that publishes the figures of its heap: this file finds its board and reads
//! it.
//!
//! The board is a file in memory without a path. The kernel shows it below `/proc/PID` to the user
//! of the process and to root. It is opened through a descriptor of the process; where the program
//! has closed the descriptor, root can open it through its mapping. A forked child has the parent's
//! descriptor too, so the mapping tells which descriptor is the process's own.
//!
//! Nothing in the file is trusted: it must be sealed, so that it cannot shrink while it is mapped,
//! and [`theap::Board`] checks its contents against its size.
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
use theap::{Board, HeapStats, Resident, Stats};

use super::kernel;

/// The name that the kernel shows for the file.
const NAME: &str = "/memfd:theap-stats (deleted)";

/// The statistics of a running process.
pub struct Observed {
    process: Process,
    /// The time when the process started: another process may get its number later.
    started: u64,
    inode: u64,
    map: MmapRaw,
    /// Whether the map can be written.
    write: bool,
}

/// The file as the process has mapped it.
struct Mapped {
    inode: u64,
    range: (u64, u64),
}

impl Observed {
    /// Opens the board of the process.
    ///
    /// # Errors
    /// Says why there is no board to be read, and what to do.
    pub fn open(pid: i32) -> Result<Self> {
        Self::open_with(pid, false)
    }

    /// Opens the board of the process so that the process can be told to record events.
    ///
    /// # Errors
    /// Errors as for [`Observed::open`].
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
        check(&file).with_context(|| format!("the file that process {pid} publishes"))?;
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

    /// The figures now, or the last figures of a process that has ended.
    ///
    /// # Errors
    /// Fails if the board cannot be understood.
    pub fn stats(&self) -> Result<Stats> {
        Ok(self.board()?.stats())
    }

    /// The heaps now, with the names of their threads.
    ///
    /// # Errors
    /// Fails if the board cannot be understood.
    pub fn heaps(&self) -> Result<Vec<HeapStats>> {
        Ok(kernel::named_heaps(&self.process, &self.board()?))
    }

    /// The memory that the kernel has for the heap now; none for a process that has ended.
    ///
    /// # Errors
    /// Fails if the board cannot be understood, or the kernel does not show the mappings.
    pub fn resident(&self) -> Result<Resident> {
        kernel::resident(&self.process, &self.board()?)
    }

    /// Whether the process still runs.
    pub fn is_alive(&self) -> bool {
        let now = Process::new(self.process.pid()).ok();
        now.and_then(|process| start_time(&process)) == Some(self.started)
    }

    /// Whether the process has executed another program, or the same one again. This board does not
    /// change any more then.
    pub fn is_left_behind(&self) -> bool {
        match self.process.maps() {
            // A process that is about to end has no mappings any more, but runs no other program.
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

    /// Tells the process to record events for this time from now; no time means not any more.
    ///
    /// # Errors
    /// Errors as for [`Observed::board`].
    pub fn trace_for(&self, time: Duration) -> Result<()> {
        ensure!(self.write, "the statistics were opened to be read only");
        let now = Duration::try_from(rustix::time::clock_gettime(ClockId::Monotonic))?;
        let until = if time.is_zero() {
            0
        } else {
            (now + time).as_nanos() as u64
        };
        // SAFETY: `open_with` has mapped the file to be written, because `self.write` holds.
        unsafe { self.board()?.trace_until(until) };
        Ok(())
    }

    /// The board of the process.
    ///
    /// # Errors
    /// Fails if the board cannot be understood.
    pub fn board(&self) -> Result<Board<'_>> {
        let (start, len) = (self.map.as_ptr(), self.map.len());
        // SAFETY: `start` and `len` are those of `self.map`, which lives as long as the borrow of
        // `self`; a mapping is page-aligned; `check` has seen the seal that keeps the file from
        // shrinking; a board reads it by atomics alone, because the other process writes to it.
        unsafe { Board::at(start, len) }.map_err(|error| {
            let pid = self.process.pid();
            anyhow!(error).context(format!(
                "cannot read the statistics that process {pid} publishes"
            ))
        })
    }
}

/// The time when the process started; nothing if it has ended, even if its parent has not waited
/// for it yet.
fn start_time(process: &Process) -> Option<u64> {
    let stat = process.stat().ok()?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(stat.starttime)
}

fn explain(error: ProcError, pid: i32) -> anyhow::Error {
    match error {
        ProcError::NotFound(_) => anyhow!("there is no process {pid}"),
        ProcError::PermissionDenied(_) => {
            anyhow!("may not read /proc/{pid}: try as the user of the process, or as root")
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
    // Until the file is open, only its name is known. It may be a FIFO, whose opening would wait,
    // or a terminal, which could become the one of this process.
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
    ensure!(file.metadata()?.is_file(), "it is not a regular file");
    match rustix::fs::fcntl_get_seals(file) {
        Ok(seals) if seals.contains(SealFlags::SHRINK) => Ok(()),
        _ => bail!("it could become shorter while it is read"),
    }
}
