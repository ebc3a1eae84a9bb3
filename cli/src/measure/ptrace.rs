//! A command under ptrace: the time and the faults of a run, the libraries that it had mapped, and
//! the number of its system calls.
//!
//! A measured run stops after exec, where this program reads what the launch has cost; at its exit,
//! where its memory can still be read; and at each signal, which is passed on. In between it runs
//! at full speed. The clock stands while the memory is read. Threads and descendants do not stop;
//! the counters include the descendants that the command has waited for.
//!
//! A counting run stops at every system call of every thread and descendant, so it is never a timed
//! run.
//!
//! The kernel lets only the thread that started a process trace it, so all of this happens in one
//! thread.
#![allow(unsafe_code)] // ptrace, wait4, and a call between fork and exec

use std::collections::HashSet;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use libc::{c_int, c_long, pid_t};
use procfs::process::{MMapPath, Process};

use crate::observe::Observed;
use crate::pages;

/// The signal of a stop at a system call: the option TRACESYSGOOD adds the high bit.
const SYSCALL_STOP: c_int = libc::SIGTRAP | 0x80;

/// The request by which a traced command goes on to its next stop, with a signal or with none (0).
const GO_ON: u32 = libc::PTRACE_CONT;

/// The request by which it goes on to its next stop or system call.
const GO_ON_TO_SYSCALL: u32 = libc::PTRACE_SYSCALL;

/// A measured run, from exec to its end.
pub struct Run {
    pub status: ExitStatus,
    pub wall: Duration,
    pub user: Duration,
    pub system: Duration,
    pub minor_faults: u64,
    pub major_faults: u64,
    /// The peak of the resident bytes, of the process or of its largest descendant, whichever was
    /// more. For the process it includes the hugetlb pages that it had at its end.
    pub peak: u64,
    pub memory: Memory,
}

/// The memory of a process at its end.
#[derive(Default)]
pub struct Memory {
    /// The peak of the resident bytes, without hugetlb pages.
    peak: u64,
    /// Bytes on transparent hugepages.
    pub thp: u64,
    /// Bytes on hugetlb pages.
    pub hugetlb: u64,
    /// Bytes that theap has on other pages; nothing if the process does not publish its figures.
    pub theap_elsewhere: Option<u64>,
    /// The files that the process had mapped.
    pub files: Vec<PathBuf>,
}

/// Runs the command to its end and measures it.
///
/// # Errors
/// Fails if the command cannot be started or traced.
pub fn measure(command: &mut Command) -> Result<Run> {
    let (pid, before) = start(command, libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACEEXIT)?;
    let mut memory = Memory::default();
    let mut wall = Duration::ZERO;
    let mut since = Instant::now();
    request(GO_ON, pid, 0)?;
    loop {
        let stop = wait(pid)?.context("the command is gone")?;
        let Some(signal) = stop.status.stopped_signal() else {
            wall += since.elapsed();
            let descendants = stop.usage.ru_maxrss as u64 * 1024;
            // A peak that is not above this program's own may be from before exec.
            let counts = stop.usage.ru_maxrss > before.ru_maxrss;
            let own = memory.peak + memory.hugetlb;
            return Ok(Run {
                status: stop.status,
                wall,
                user: time(stop.usage.ru_utime) - time(before.ru_utime),
                system: time(stop.usage.ru_stime) - time(before.ru_stime),
                minor_faults: (stop.usage.ru_minflt - before.ru_minflt) as u64,
                major_faults: (stop.usage.ru_majflt - before.ru_majflt) as u64,
                peak: if counts { own.max(descendants) } else { own },
                memory,
            });
        };
        match event(stop.status) {
            0 => request(GO_ON, pid, signal)?,
            libc::PTRACE_EVENT_EXIT => {
                wall += since.elapsed();
                memory = Memory::of(pid).context("cannot read the command's memory in /proc")?;
                since = Instant::now();
                request(GO_ON, pid, 0)?;
            }
            _ => request(GO_ON, pid, 0)?,
        }
    }
}

/// Runs the command to the end of its last descendant. Returns the command's status, and the number
/// of system calls of the command and all descendants.
///
/// # Errors
/// Fails if the command cannot be started or traced.
pub fn count_syscalls(command: &mut Command) -> Result<(ExitStatus, u64)> {
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE;
    let (pid, _) = start(command, options)?;
    let mut known = HashSet::from([pid]);
    let mut ended = None;
    let mut calls = 0;
    request(GO_ON_TO_SYSCALL, pid, 0)?;
    while let Some(stop) = wait(-1)? {
        let Some(signal) = stop.status.stopped_signal() else {
            known.remove(&stop.pid);
            if stop.pid == pid {
                ended = Some(stop.status);
            }
            continue;
        };
        let passed_on = match signal {
            SYSCALL_STOP => {
                calls += u64::from(enters_syscall(stop.pid));
                0
            }
            _ if event(stop.status) != 0 => 0,
            // A new thread or process begins with a stop of ptrace's own.
            libc::SIGSTOP if known.insert(stop.pid) => 0,
            signal => signal,
        };
        request(GO_ON_TO_SYSCALL, stop.pid, passed_on)?;
    }
    Ok((ended.context("the command is gone")?, calls))
}

impl Memory {
    fn of(pid: pid_t) -> procfs::ProcResult<Self> {
        let process = Process::new(pid)?;
        let status = process.status()?;
        let mut files: Vec<PathBuf> = process
            .maps()?
            .into_iter()
            .filter_map(|map| match map.pathname {
                MMapPath::Path(path) => Some(path),
                _ => None,
            })
            .collect();
        files.dedup();
        let theap = Observed::open(pid).and_then(|observed| observed.stats());
        Ok(Self {
            peak: status.vmhwm.unwrap_or(0) * 1024,
            thp: pages::transparent(&process)?,
            hugetlb: status.hugetlbpages.unwrap_or(0) * 1024,
            theap_elsewhere: theap
                .ok()
                .map(|stats| stats.mapped_small + stats.mapped_thp),
            files,
        })
    }
}

/// Starts the command and stops it after exec. Returns its number and what the launch has cost.
fn start(command: &mut Command, options: c_int) -> Result<(pid_t, libc::rusage)> {
    // SAFETY: between fork and exec the closure makes one system call, which is async-signal-safe;
    // it neither allocates nor takes a lock.
    unsafe { command.pre_exec(|| request(libc::PTRACE_TRACEME, 0, 0)) };
    let child = command.spawn().context("cannot start the command traced")?;
    let pid = child.id() as pid_t;
    let stop = wait(pid)?.context("the command is gone")?;
    if stop.status.stopped_signal() != Some(libc::SIGTRAP) {
        bail!("the command did not stop at its start: {}", stop.status);
    }
    // If this program is interrupted, so is the command.
    request(
        libc::PTRACE_SETOPTIONS,
        pid,
        options | libc::PTRACE_O_EXITKILL,
    )?;
    Ok((pid, stop.usage))
}

/// The ptrace event of a stop; 0 for a stop at a signal.
fn event(stop: ExitStatus) -> c_int {
    stop.into_raw() >> 16
}

fn time(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000)
}

/// Makes a ptrace request whose argument is a number. It is no error if the process is gone: the
/// next wait finds its end.
fn request(request: u32, pid: pid_t, argument: c_int) -> io::Result<()> {
    // SAFETY: the callers pass PTRACE_TRACEME, SETOPTIONS, CONT and SYSCALL, whose arguments are
    // numbers: the kernel reads and writes no memory of this process for them.
    let answer = unsafe { libc::ptrace(request, pid, 0, c_long::from(argument)) };
    let error = io::Error::last_os_error();
    if answer == -1 && error.raw_os_error() != Some(libc::ESRCH) {
        return Err(error);
    }
    Ok(())
}

/// Whether the stop is at the beginning of a system call, not at its end.
fn enters_syscall(pid: pid_t) -> bool {
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is live and writable for its size, which is what is passed.
    unsafe {
        libc::ptrace(
            libc::PTRACE_GET_SYSCALL_INFO,
            pid,
            size_of_val(&info),
            &raw mut info,
        )
    };
    info.op == libc::PTRACE_SYSCALL_INFO_ENTRY
}

/// Something that happened to a traced process or thread.
struct Stop {
    pid: pid_t,
    status: ExitStatus,
    usage: libc::rusage,
}

/// Waits for `pid`, or for any traced process if `pid` is -1. Nothing if none is left.
fn wait(pid: pid_t) -> io::Result<Option<Stop>> {
    let mut status = 0;
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `status` and `usage` are live, writable, and of the types that wait4 writes.
        let found = unsafe { libc::wait4(pid, &mut status, libc::__WALL, &mut usage) };
        let error = io::Error::last_os_error();
        match (found, error.raw_os_error()) {
            (-1, Some(libc::EINTR)) => {}
            (-1, Some(libc::ECHILD)) => return Ok(None),
            (-1, _) => return Err(error),
            (pid, _) => {
                let status = ExitStatus::from_raw(status);
                return Ok(Some(Stop { pid, status, usage }));
            }
        }
    }
}
