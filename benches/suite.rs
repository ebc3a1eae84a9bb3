//! `cargo bench -p theap-bench --features suite --bench suite`: theap and its peers as the global
//! allocators of Rust programs.
//!
//! Every contender is a program of its own (`contenders/`) with that allocator as its global one,
//! and every run is a process of its own, in interleaved rounds with rotated order. Arguments
//! follow `--`; relative paths start at the workspace.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use theap_bench::Error;
use theap_bench::row::{Budget, chosen};
use theap_bench::suite::{Entrant, Mode, Output, Role, Side, Suite, host};

/// theap and its peers in Rust programs.
#[derive(Parser)]
struct Options {
    /// Run only the rows whose name contains one of these.
    rows: Vec<String>,
    /// Run each row this many times; rows that wait 13 s have a fifth of the rounds.
    #[arg(long)]
    rounds: Option<usize>,
    /// Measure each run for this many milliseconds.
    #[arg(long)]
    millis: Option<u64>,
    /// Count instructions, read-modify-writes and misses of simulated caches by valgrind, in place
    /// of time: rows of one thread, in one round unless --rounds says otherwise.
    #[arg(long, conflicts_with = "millis")]
    counts: bool,
    /// Run only these contenders besides theap.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Measure another build of contender-theap, too, to show what it costs.
    #[arg(long, value_name = "NAME=PROGRAM", value_parser = variant)]
    variant: Vec<(String, PathBuf)>,
    /// Run two rounds of a twentieth of a second each, without the rows that wait, unless they are
    /// named.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    output: Output,
    /// `cargo bench` passes this option and `cargo test` does not: without it every row just runs
    /// briefly.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Turns of a row that is counted, and then again with twice as many.
const TURNS: u64 = 16;

/// Every peer's name, its purpose in the report, and its program.
const PEERS: [(&str, Role, &str); 8] = [
    (
        "mimalloc",
        Role::Peer,
        env!("CARGO_BIN_EXE_contender-mimalloc"),
    ),
    (
        "mimalloc2",
        Role::Peer,
        env!("CARGO_BIN_EXE_contender-mimalloc2"),
    ),
    (
        "jemalloc",
        Role::Peer,
        env!("CARGO_BIN_EXE_contender-jemalloc"),
    ),
    (
        "snmalloc",
        Role::Peer,
        env!("CARGO_BIN_EXE_contender-snmalloc"),
    ),
    (
        "rpmalloc",
        Role::Peer,
        env!("CARGO_BIN_EXE_contender-rpmalloc"),
    ),
    (
        "smmalloc",
        Role::Peer,
        env!("CARGO_BIN_EXE_contender-smmalloc"),
    ),
    ("system", Role::Peer, env!("CARGO_BIN_EXE_contender-system")),
    ("null", Role::Limit, env!("CARGO_BIN_EXE_contender-null")),
];

impl Options {
    fn mode(&self) -> Mode {
        if self.counts {
            Mode::Counted
        } else {
            Mode::InProcess
        }
    }

    fn suite(&self) -> Result<Suite, Error> {
        let (rounds, millis) = match (self.bench, self.quick) {
            (false, _) => (1, 1),
            (true, true) => (2, 50),
            (true, false) => (5, 200),
        };
        let (rounds, budget) = if self.counts {
            (1, Budget::Turns(TURNS))
        } else {
            let millis = self.millis.unwrap_or(millis);
            (rounds, Budget::Time(Duration::from_millis(millis)))
        };
        let wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        let program = env!("CARGO_BIN_EXE_contender-theap");
        let subjects = Role::SUBJECTS
            .iter()
            .map(|&(role, name)| side(name, role, program.into()));
        let peers = PEERS.iter().filter(|(name, ..)| wanted(name));
        let peers = peers.map(|&(name, role, program)| side(name, role, program.into()));
        let variants = self.variant.iter();
        let variants = variants.map(|(name, program)| side(name, Role::Variant, program.clone()));
        let mut rows = chosen(&self.rows, self.quick);
        rows.retain(|row| self.mode().has(row));
        if rows.is_empty() {
            let parts = self.rows.join(" or ");
            let title = self.mode().title();
            return Err(Error::Setup(format!(
                "{title}: no row's name contains {parts}"
            )));
        }
        Ok(Suite {
            mode: self.mode(),
            sides: subjects.chain(peers).chain(variants).collect(),
            rows,
            rounds: self.rounds.unwrap_or(rounds),
            budget,
        })
    }
}

fn variant(text: &str) -> Result<(String, PathBuf), &'static str> {
    match text.split_once('=') {
        Some((name, program)) if !name.is_empty() => Ok((name.into(), program.into())),
        _ => Err("give NAME=PROGRAM"),
    }
}

fn side(name: &str, role: Role, program: PathBuf) -> Side {
    Side {
        entrant: Entrant {
            name: name.into(),
            role,
            version: version(name),
        },
        program,
        arguments: Vec::new(),
        environment: role.variables(),
    }
}

/// The crates that a contender is made of, with the versions of the lock file that it was built
/// with.
fn version(contender: &str) -> String {
    let crates: &[&str] = match contender {
        "mimalloc" => &["mimalloc", "libmimalloc-sys"],
        "mimalloc2" => &["mimalloc-safe", "libmimalloc-sys2"],
        "jemalloc" => &["tikv-jemallocator", "tikv-jemalloc-sys"],
        "snmalloc" => &["snmalloc-rs", "snmalloc-sys"],
        "rpmalloc" => &["rpmalloc", "rpmalloc-sys"],
        "smmalloc" => &["smmalloc"],
        "system" => return theap_bench::suite::glibc(),
        "null" => return "of this harness".into(),
        _ => &["theap"],
    };
    let versions = crates.iter().map(|name| {
        let lines = include_str!("../Cargo.lock").lines();
        let entry = format!("name = \"{name}\"");
        let version = lines.skip_while(|line| **line != entry).nth(1);
        let version = version.and_then(|line| line.split('"').nth(1));
        format!("{name} {}", version.unwrap_or("unknown"))
    });
    versions.collect::<Vec<_>>().join(", ")
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Error> {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    std::env::set_current_dir(workspace)
        .map_err(|error| Error::Setup(format!("{workspace} is not there any more: {error}")))?;
    let mut last = "";
    let output = &options.output;
    let report = output.report(
        options.mode(),
        || options.suite(),
        host(),
        |run| {
            if run.row.name != last {
                last = run.row.name;
                eprintln!("{}/{} {last}", run.done + 1, run.total);
            }
        },
    )?;
    output.show(&report)?;
    Ok(match report.subject_failed() {
        Some(_) => ExitCode::FAILURE,
        None => ExitCode::SUCCESS,
    })
}
