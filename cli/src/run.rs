//! `theap run`: a command on theap, in place of this process: same PID, descriptors, signals and exit code.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::library;
use crate::pages::{self, PageMode};
use crate::program::Program;
use crate::settings::Settings;

/// Run a command on theap
///
/// Sets theap's variables and LD_PRELOAD, in front of what that names already, and becomes the command.
///
/// Exit codes: the command's own; 127 if there is no such command, 126 if it cannot be executed, 125 if LD_PRELOAD
/// has no effect in it (statically linked, set-uid, of another machine), 1 if the library cannot be had.
#[derive(Args)]
pub struct Run {
    /// Pages of theap's heap
    #[arg(long, value_name = "MODE")]
    pages: Option<PageMode>,
    #[command(flatten)]
    settings: Settings,
    /// The library to use [default: the one of this installation]
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Say on standard error what is set
    #[arg(long)]
    verbose: bool,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    pub fn run(self) -> Result<()> {
        let program = Program::find(self.command)?;
        let library = library::find(self.library.as_deref())?;
        let preload = library::preload(&library);
        let pages = self.pages.map(|mode| (pages::VARIABLE, mode.name().into()));
        let settings = self.settings.variables();
        let settings = settings.map(|(variable, value)| (*variable, OsString::from(value)));
        let mut command = program.command();
        for (variable, value) in pages
            .into_iter()
            .chain(settings)
            .chain([(library::PRELOAD, preload)])
        {
            if self.verbose {
                eprintln!("{variable}={}", value.display());
            }
            command.env(variable, value);
        }
        Err(program.exec(command).into())
    }
}
