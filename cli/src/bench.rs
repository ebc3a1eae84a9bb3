//! `theap bench`: the rows of the benchmark suite on libraries that are preloaded into a program that calls `malloc`
//! and `free`, as C programs do: no call tells a size that is freed.
//!
//! Every run is a process of its own. It fails unless `malloc` and its like are the library's, as the loader bound
//! them in that very process, and glibc's own count shows that the blocks are not there.

use std::alloc::System;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use theap_bench::Preloaded;
use theap_bench::row::{Budget, ROWS, Row};
use theap_bench::suite::{Entrant, Mode, Output, Role, Side, Suite, glibc, host};

use crate::commands::{Peer, peer};
use crate::{doctor, library, pages, report};

/// Rounds and milliseconds of a full run, and of `--quick`.
const FULL: (u16, u64) = (5, 200);
const QUICK: (u16, u64) = (2, 40);

/// Where a distribution has its libraries.
const PLACES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
];

/// Peers by name, file and Debian's package.
const KNOWN: [[&str; 3]; 4] = [
    ["mimalloc", "libmimalloc.so.2", "libmimalloc2.0"],
    ["jemalloc", "libjemalloc.so.2", "libjemalloc2"],
    [
        "tcmalloc",
        "libtcmalloc_minimal.so.4",
        "libtcmalloc-minimal4",
    ],
    ["tbbmalloc", "libtbbmalloc_proxy.so.2", "libtbbmalloc2"],
];

/// Measure theap and other allocators row by row, preloaded as into a C program
///
/// Runs each row under System, under libtheap.so and under each peer, every run in a process of its own, in
/// interleaved rounds. Prints medians [smallest–largest], theap's as a multiple of the best peer's (marked *), geometric
/// means, and which of the project's goals are met. On rows about memory theap is on small pages, as its peers are.
///
/// A full run takes about 15 minutes, a quick one two; one that was broken off goes on with --resume.
#[derive(Args)]
pub struct Bench {
    /// Another allocator's library, for example jemalloc=/usr/lib/x86_64-linux-gnu/libjemalloc.so.2 [default: mimalloc,
    /// jemalloc, tcmalloc and tbbmalloc as far as they are installed]
    #[arg(long, value_name = "NAME=FILE", value_parser = peer)]
    with: Vec<Peer>,
    /// Only the rows whose names contain one of these, for example burst/ or larson
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    rows: Vec<String>,
    /// Rounds [default: 5, or 2 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Short runs: two minutes in all
    #[arg(long)]
    quick: bool,
    /// theap's library [default: the one of this installation]
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Run one row on what is preloaded into this process and print its metrics as JSON
#[derive(Args)]
pub struct RunRow {
    /// The library that must provide malloc; System's if left out
    #[arg(long)]
    library: Option<PathBuf>,
    /// ROW MILLISECONDS
    arguments: Vec<String>,
}

impl Bench {
    pub fn run(self) -> Result<()> {
        let bar = report::progress(0);
        let doctors = doctor::facts().into_iter();
        let doctors = doctors.map(|(name, found)| (name.to_owned(), found));
        let facts = host().into_iter().chain(doctors).collect();
        let suite = || self.suite();
        let report = self.output.report(Mode::Preloaded, suite, facts, |run| {
            let (row, side) = (run.row.name, &run.side.entrant.name);
            bar.set_length(run.total as u64);
            bar.set_position(run.done as u64);
            bar.set_message(format!("{row}, {side}"));
        })?;
        bar.finish_and_clear();
        self.output.show(&report)?;
        match report.subject_failed() {
            None => Ok(()),
            Some(failure) => bail!("{} failed on {}", failure.allocator, failure.row),
        }
    }

    fn suite(&self) -> Result<Suite> {
        let (rounds, millis) = if self.quick { QUICK } else { FULL };
        let chosen = |row: &&Row| {
            self.rows.is_empty() || self.rows.iter().any(|part| row.name.contains(part))
        };
        let rows: Vec<_> = ROWS.iter().filter(chosen).collect();
        ensure!(
            !rows.is_empty(),
            "no row's name contains {}",
            self.rows.join(" or ")
        );
        Ok(Suite {
            mode: Mode::Preloaded,
            sides: self.sides()?,
            rows,
            rounds: self.rounds.unwrap_or(rounds).into(),
            budget: Budget(Duration::from_millis(millis)),
        })
    }

    fn sides(&self) -> Result<Vec<Side>> {
        let theap = library::find(self.library.as_deref())?;
        let mut sides = vec![
            side("theap", Role::Subject, Some(&theap))?,
            side("theap-small", Role::SmallPages, Some(&theap))?,
            side("system", Role::Peer, None)?,
        ];
        let small = (pages::VARIABLE.into(), "small".into());
        sides[1].environment.push(small);
        let installed = if self.with.is_empty() {
            installed()?
        } else {
            Vec::new()
        };
        for peer in self.with.iter().chain(&installed) {
            let taken = sides.iter().any(|side| side.entrant.name == peer.name);
            ensure!(!taken, "there are two allocators named {}", peer.name);
            sides.push(side(&peer.name, Role::Peer, Some(&peer.library))?);
        }
        Ok(sides)
    }
}

fn side(name: &str, role: Role, library: Option<&Path>) -> Result<Side> {
    let mut arguments = vec!["row".into()];
    let mut environment = Vec::new();
    if let Some(library) = library {
        arguments.extend(["--library".into(), library.into()]);
        environment.push((library::PRELOAD.into(), library::preload(library)));
    }
    let version = match (role, library) {
        (Role::Peer, Some(library)) => library.display().to_string(),
        (Role::Peer, None) => glibc(),
        _ => format!("theap {}", env!("CARGO_PKG_VERSION")),
    };
    Ok(Side {
        entrant: Entrant {
            name: name.into(),
            role,
            version,
        },
        program: env::current_exe().context("cannot find this program")?,
        arguments,
        environment,
    })
}

/// The known peers that this host has, with a line on standard error for each that it has not.
fn installed() -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for [name, file, package] in KNOWN {
        let mut places = PLACES.iter().map(|place| Path::new(place).join(file));
        match places.find(|path| path.exists()) {
            Some(path) => peers.push(Peer {
                name: name.into(),
                library: library::named(&path)?,
            }),
            None => {
                eprintln!("note: without {name}: there is no {file}; Debian has it in {package}")
            }
        }
    }
    Ok(peers)
}

impl RunRow {
    pub fn run(self) -> Result<()> {
        let metrics = match &self.library {
            Some(library) => theap_bench::run(&Preloaded::from(library)?, &self.arguments)?,
            None => theap_bench::run(&System, &self.arguments)?,
        };
        println!("{}", serde_json::to_string(&metrics)?);
        Ok(())
    }
}
