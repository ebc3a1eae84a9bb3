//! `theap`: see, compare and tune the allocator.
//!
//! Exit codes: 0 if all was done, 1 if something failed (the message says what happened and what to
//! do), 2 for wrong usage, and 125 to 127 for a command that is not run
//! ([`launch::program::Refusal::code`]). Results go to standard output. Messages go to standard
//! error, and so does the progress, which is shown on a terminal only.

mod arguments;
mod bench;
mod compare;
mod doctor;
mod evaluate;
mod launch;
mod measure;
mod observe;
mod pages;
mod soak;

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
    Run(launch::Run),
    Soak(soak::Soak),
    Stats(observe::Stats),
    Top(observe::Top),
    Trace(observe::trace::Trace),
    #[command(hide = true)]
    Child(measure::child::Child),
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
            let refusal = error.downcast_ref::<launch::program::Refusal>();
            refusal.map_or(ExitCode::FAILURE, |refusal| refusal.code().into())
        }
    }
}
