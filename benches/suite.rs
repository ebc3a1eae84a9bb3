//! `cargo bench -p theap-bench --features suite`: theap and its peers as Rust programs have them.
//!
//! Every contender is a program of its own (`contenders/`) with that allocator as its global one, and every run is a
//! process of its own, in interleaved rounds with rotated order. Arguments follow `--`; relative paths start at
//! `benches/`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use theap_bench::row::{Budget, ROWS, Row};
use theap_bench::suite::{Role, Side, Suite, Summary};

/// theap and its peers in Rust programs.
#[derive(Parser)]
struct Options {
    /// Run only the rows whose name contains one of these.
    rows: Vec<String>,
    /// Rounds.
    #[arg(long)]
    rounds: Option<usize>,
    /// Milliseconds that a run measures.
    #[arg(long)]
    millis: Option<u64>,
    /// Run only these contenders besides theap.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Two rounds of a twentieth of a second.
    #[arg(long)]
    quick: bool,
    /// Write the records, verdicts and failures to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// What `cargo bench` passes and `cargo test` does not: without it every row just runs briefly.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Each with what it is there for and its program.
const CONTENDERS: [(&str, Role, &str); 10] = [
    (
        "theap",
        Role::Subject,
        env!("CARGO_BIN_EXE_contender-theap"),
    ),
    (
        "theap-small",
        Role::SmallPages,
        env!("CARGO_BIN_EXE_contender-theap"),
    ),
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
    fn suite(&self) -> Suite {
        let (rounds, millis) = match (self.bench, self.quick) {
            (false, _) => (1, 1),
            (true, true) => (2, 50),
            (true, false) => (5, 200),
        };
        let chosen = |row: &&Row| {
            self.rows.is_empty() || self.rows.iter().any(|part| row.name.contains(part))
        };
        let wanted = |name: &str, role: Role| {
            matches!(role, Role::Subject | Role::SmallPages)
                || self.only.is_empty()
                || self.only.iter().any(|only| only == name)
        };
        let sides = CONTENDERS
            .iter()
            .filter(|(name, role, _)| wanted(name, *role));
        Suite {
            sides: sides
                .map(|&(name, role, program)| side(name, role, program))
                .collect(),
            rows: ROWS.iter().filter(chosen).collect(),
            rounds: self.rounds.unwrap_or(rounds),
            budget: Budget(Duration::from_millis(self.millis.unwrap_or(millis))),
        }
    }
}

fn side(name: &str, role: Role, program: &str) -> Side {
    let small = (role == Role::SmallPages).then(|| ("THEAP_PAGES".into(), "small".into()));
    Side {
        name: name.into(),
        role,
        program: program.into(),
        arguments: Vec::new(),
        environment: small.into_iter().collect(),
    }
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

fn run(options: &Options) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let suite = options.suite();
    let (total, mut done) = (suite.runs(), 0);
    let mut last = "";
    let (records, failures) = suite.run(|row, _| {
        done += 1;
        if row.name != last {
            last = row.name;
            eprintln!("{done}/{total} {last}");
        }
    });
    let summary = Summary::new(&suite.sides, &records);
    if let Some(path) = &options.json {
        let report = serde_json::json!({
            "records": records,
            "verdicts": summary.verdicts(),
            "failures": failures,
        });
        std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    print!("{}", summary.text());
    for failure in &failures {
        println!("\nno figure: {}: {}", failure.row, failure.error);
    }
    let failed = failures
        .iter()
        .any(|failure| failure.allocator.starts_with("theap"));
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
