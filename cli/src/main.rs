//! `theap`: see, compare and tune the allocator.
//!
//! Exit codes: 0 done, 1 failed (the message says what happened and what to do), 2 wrong usage;
//! 125 to 127 for a command that is not run ([`program::Refusal::code`]).
//! What was asked for goes to standard output; messages and, on a terminal only, progress go to
//! standard error.

mod bench;
mod binding;
mod child;
mod commands;
mod compare;
mod doctor;
mod evaluate;
mod events;
mod findings;
mod html;
mod library;
mod memory;
mod observed;
mod pages;
mod program;
mod report;
mod run;
mod settings;
mod soak;
mod stats;
mod top;
mod trace;
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
    Bench(bench::Bench),
    Compare(Box<compare::Compare>),
    Doctor(doctor::Doctor),
    Evaluate(evaluate::Evaluate),
    Run(run::Run),
    Soak(soak::Soak),
    Stats(stats::Stats),
    Top(top::Top),
    Trace(events::Trace),
    #[command(hide = true)]
    Child(child::Child),
    #[command(hide = true)]
    Row(bench::RunRow),
    #[command(hide = true)]
    Life(soak::Life),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Bench(bench) => bench.run().map(|()| ExitCode::SUCCESS),
        Command::Compare(compare) => compare.run().map(|()| ExitCode::SUCCESS),
        Command::Doctor(doctor) => doctor.run(),
        Command::Evaluate(evaluate) => evaluate.run().map(|()| ExitCode::SUCCESS),
        Command::Run(run) => run.run().map(|()| ExitCode::SUCCESS),
        Command::Stats(stats) => stats.run().map(|()| ExitCode::SUCCESS),
        Command::Top(top) => top.run().map(|()| ExitCode::SUCCESS),
        Command::Trace(trace) => trace.run(),
        Command::Soak(soak) => soak.run().map(|()| ExitCode::SUCCESS),
        Command::Life(life) => life.run().map(|()| ExitCode::SUCCESS),
        Command::Child(child) => child.run().map(|()| ExitCode::SUCCESS),
        Command::Row(row) => row.run().map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let refusal = error.downcast_ref::<program::Refusal>();
            refusal.map_or(ExitCode::FAILURE, |refusal| refusal.code().into())
        }
    }
}
