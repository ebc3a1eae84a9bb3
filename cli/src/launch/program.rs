//! The program that a command names. It is found as a shell finds it, and only taken if a preloaded
//! library can act in it.
//!
//! The kernel loads the command's file or, for a script, the interpreter: the *image*. The image's
//! own loader maps the libraries that `LD_PRELOAD` names. An image without a loader, for another
//! machine, or with more privileges than its caller would run, but not on the library; such an
//! image is refused with the reason.
//!
//! A command gets the signal dispositions of this program's caller. The standard library ignores
//! SIGPIPE in this program and gives commands the default, so this file finds out before that
//! whether the caller ignores SIGPIPE (systemd does), and sets it again for the command.
#![allow(unsafe_code)] // signal dispositions, before main and between fork and exec

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use object::elf::{EM_X86_64, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadCache};
use rustix::fs::{Access, access, getxattr};
use rustix::process::{getgid, getuid};

/// The directories that `execvp` searches without a `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The interpreter of a file that is no program and names no interpreter.
const SHELL: &str = "/bin/sh";

/// The number of interpreters in a row that may be scripts themselves: as many as the kernel
/// follows.
const NESTED_SCRIPTS: usize = 4;

/// Bytes of a script's first line that the kernel reads.
const FIRST_LINE: u64 = 256;

/// The reason why a command is not run.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such file.
    #[error("{0}: command not found")]
    NotFound(String),
    /// The file is there, but it cannot be executed.
    #[error("{0}: {1}")]
    NotExecutable(String, String),
    /// The program would run, but without the library.
    #[error("{0} {1}")]
    OutOfReach(String, &'static str),
}

impl Refusal {
    /// The exit code: 127 and 126 as a shell has them, and 125 as `env` and `nohup` have it for
    /// their own failures.
    pub fn code(&self) -> u8 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotExecutable(..) => 126,
            Self::OutOfReach(..) => 125,
        }
    }
}

/// Whether this program's caller ignores SIGPIPE.
static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);

/// Runs before the standard library's start, which changes the disposition.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = remember_sigpipe;

extern "C" fn remember_sigpipe() {
    // SAFETY: the structure is plain integers, for which zero is a value. The call has no new
    // action, so it only writes the present one to `action`, which is live and writable.
    let action = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), &mut action);
        action.sa_sigaction
    };
    SIGPIPE_IGNORED.store(action == libc::SIG_IGN, Ordering::Relaxed);
}

/// A command that a library can be preloaded into.
pub struct Program {
    path: PathBuf,
    /// The file that the kernel loads: an ELF program.
    pub image: PathBuf,
    words: Vec<OsString>,
}

impl Program {
    /// Finds the command of these words: its name and its arguments.
    ///
    /// # Errors
    /// Says why the command cannot run, or not with a preloaded library.
    pub fn find(words: Vec<OsString>) -> Result<Self, Refusal> {
        let path = resolve(&words[0])?;
        let image = image(&path)?;
        if let Some(reason) = out_of_reach(&image) {
            return Err(Refusal::OutOfReach(image.display().to_string(), reason));
        }
        Ok(Self { path, image, words })
    }

    /// The command, which still needs its environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg0(&self.words[0]).args(&self.words[1..]);
        if SIGPIPE_IGNORED.load(Ordering::Relaxed) {
            // SAFETY: between fork and exec the closure makes one system call, which is
            // async-signal-safe; it neither allocates nor takes a lock.
            unsafe {
                command.pre_exec(|| {
                    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
                    Ok(())
                });
            }
        }
        command
    }

    /// Replaces this process by `command`, which [`Program::command`] has made. Returns only if
    /// that fails.
    pub fn exec(&self, mut command: Command) -> Refusal {
        not_executable(&self.path, &command.exec())
    }

    /// The words with blanks between them, as a label.
    pub fn label(&self) -> String {
        self.words
            .join(OsStr::new(" "))
            .to_string_lossy()
            .into_owned()
    }
}

fn resolve(name: &OsStr) -> Result<PathBuf, Refusal> {
    if name.as_bytes().contains(&b'/') {
        return executable(PathBuf::from(name));
    }
    let mut refusal = Refusal::NotFound(name.display().to_string());
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    // An empty name would find the directories themselves.
    let directories = env::split_paths(&path).filter(|_| !name.is_empty());
    for directory in directories {
        // A path without a slash would be searched for once more.
        let candidate = Path::new(".").join(directory).join(name);
        if !candidate.is_file() {
            continue;
        }
        match executable(candidate) {
            Ok(path) => return Ok(path),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

fn executable(path: PathBuf) -> Result<PathBuf, Refusal> {
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Refusal::NotFound(path.display().to_string()))
        }
        Err(error) => Err(not_executable(&path, &error)),
        Ok(found) if found.is_dir() => {
            Err(not_executable(&path, &io::ErrorKind::IsADirectory.into()))
        }
        Ok(_) => match access(&path, Access::EXEC_OK) {
            Err(errno) => Err(not_executable(&path, &errno.into())),
            Ok(()) => Ok(path),
        },
    }
}

/// The refusal in the words of the error's kind, without its number, which tells a person nothing.
fn not_executable(path: &Path, error: &io::Error) -> Refusal {
    Refusal::NotExecutable(path.display().to_string(), error.kind().to_string())
}

/// The image of a command: the program itself, or the last interpreter of a script.
fn image(path: &Path) -> Result<PathBuf, Refusal> {
    let mut image = path.to_owned();
    for _ in 0..=NESTED_SCRIPTS {
        let mut head = Vec::new();
        // A file that cannot be read may run all the same; then nothing is known about it.
        let read = File::open(&image).and_then(|file| file.take(FIRST_LINE).read_to_end(&mut head));
        if read.is_err() || head.starts_with(&object::elf::ELFMAG) {
            return Ok(image);
        }
        image = executable(interpreter(&head)).map_err(|refusal| {
            let reason = format!("its interpreter cannot run: {refusal}");
            Refusal::NotExecutable(path.display().to_string(), reason)
        })?;
    }
    let reason = "its interpreters are scripts themselves".into();
    Err(Refusal::NotExecutable(path.display().to_string(), reason))
}

fn interpreter(head: &[u8]) -> PathBuf {
    let Some(line) = head.strip_prefix(b"#!") else {
        return SHELL.into();
    };
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or(line);
    let name = line
        .trim_ascii_start()
        .split(u8::is_ascii_whitespace)
        .next();
    OsStr::from_bytes(name.unwrap_or_default()).into()
}

/// The reason why `LD_PRELOAD` has no effect in the image; nothing if it has an effect, or if the
/// image cannot be read.
fn out_of_reach(image: &Path) -> Option<&'static str> {
    let cache = ReadCache::new(File::open(image).ok()?);
    if gains_privileges(image) {
        return Some(
            "runs with privileges that its caller has not: its loader ignores LD_PRELOAD, and theap ignores the environment",
        );
    }
    match has_loader(&cache) {
        Some(true) => None,
        Some(false) => Some(
            "is statically linked: LD_PRELOAD has no effect in it; it must be linked with theap instead",
        ),
        None => Some("is no x86_64 program: its loader cannot take a library for x86_64"),
    }
}

/// Whether a loader starts the program; nothing if it is no program for x86_64.
fn has_loader(file: &ReadCache<File>) -> Option<bool> {
    let header = FileHeader64::<Endianness>::parse(file).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, file).ok()?;
    (header.e_machine(endian) == EM_X86_64).then(|| {
        segments
            .iter()
            .any(|segment| segment.p_type(endian) == PT_INTERP)
    })
}

/// Whether the kernel would tell the image's loader not to trust its environment.
fn gains_privileges(image: &Path) -> bool {
    let Ok(file) = fs::metadata(image) else {
        return false;
    };
    let has = |bits: u32| file.mode() & bits == bits;
    let root = getuid().is_root();
    let capabilities = !root && getxattr(image, "security.capability", &mut [0u8; 0]).is_ok();
    has(SET_UID) && file.uid() != getuid().as_raw()
        || has(SET_GID) && file.gid() != getgid().as_raw()
        || capabilities
}

const SET_UID: u32 = 0o4000;

/// The set-group-ID bit with the group's permission to execute: without that permission the bit is
/// an old mark for locking.
const SET_GID: u32 = 0o2010;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_interpreter() {
        for (head, expected) in [
            (&b"#!/bin/sh\n"[..], "/bin/sh"),
            (b"#! /usr/bin/env python3\nprint()", "/usr/bin/env"),
            (b"#!\t/bin/awk -f", "/bin/awk"),
            (b"echo no interpreter\n", SHELL),
            (b"", SHELL),
            (b"#!\n", ""),
        ] {
            assert_eq!(interpreter(head), Path::new(expected), "{head:?}");
        }
    }
}
