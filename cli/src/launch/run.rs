//! `theap run` executes a command on theap in place of this process. The command has the PID, the
//! descriptors and the signals of this process, and its own exit code.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::library;
use super::program::Program;
use super::settings::Settings;
use crate::pages::{self, PageMode};

/// The variable of the option `reserve`, and the one that names the process that it is for.
const RESERVE: &str = "THEAP_RESERVE";
const RESERVE_PID: &str = "THEAP_RESERVE_PID";

/// Run a command on theap
///
/// Sets theap's variables, puts theap's library in front of the libraries that LD_PRELOAD names
/// already, and executes the command in place of this process.
///
/// Exit codes: the command's own; 127 if there is no such command, 126 if it cannot be executed,
/// 125 if LD_PRELOAD has no effect in it (statically linked, set-uid, for another machine), 1 if
/// there is no library.
#[derive(Args)]
pub struct Run {
    /// The pages that theap's heap is made of
    #[arg(long, value_name = "MODE")]
    pages: Option<PageMode>,
    #[command(flatten)]
    settings: Settings,
    /// Let the programs that the command starts reserve too, each for itself
    #[arg(long)]
    inherit: bool,
    /// The library to use [default: the library of this installation]
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Print the variables that are set on standard error
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
        let variables: Vec<_> = pages
            .into_iter()
            .chain(settings)
            .chain([(library::PRELOAD, preload)])
            .collect();
        let mut command = program.command();
        if self.inherit {
            command.env_remove(RESERVE_PID);
        }
        let reserves = variables.iter().any(|(variable, _)| *variable == RESERVE);
        // The command has the number of this process, and no process that the command starts has.
        let number = (reserves && !self.inherit).then(|| std::process::id().to_string());
        let number = number.map(|number| (RESERVE_PID, number.into()));
        for (variable, value) in variables.into_iter().chain(number) {
            if self.verbose {
                eprintln!("{variable}={}", value.display());
            }
            command.env(variable, value);
        }
        Err(program.exec(command).into())
    }
}
