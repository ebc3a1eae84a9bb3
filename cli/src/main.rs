//! `theap`: see, compare and tune the allocator.
//!
//! Exit codes: 0 done, 1 failed (the message says what happened and what to do), 2 wrong usage.
//! What was asked for goes to standard output; messages and, on a terminal only, progress go to
//! standard error.
#![forbid(unsafe_code)]

mod child;
mod compare;
mod pages;
mod report;
mod tuning;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// See, compare and tune the theap allocator.
#[derive(Parser)]
#[command(name = "theap", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Compare(compare::Compare),
    #[command(hide = true)]
    Child(child::Child),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compare(compare) => compare.run(),
        Command::Child(child) => child.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
