//! `theap soak` runs random lives of processes on theap for the time that the user gives. The lives
//! differ in threads, forks, sizes, fronts, page modes and limits.
//!
//! Each life is a process of its own ([`life`]), and one number decides all that happens in it. The
//! numbers come from one seed, which is printed first. The first life that goes wrong, or takes too
//! long, ends the soak and the other lives; the message has the command that repeats that life.

mod block;
mod life;
mod rest;

use std::env;
use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::arguments;
use crate::measure::progress;
pub use life::Life;
use life::Report;

/// Run random lives of processes on theap, check every byte, and print what they did
///
/// In each life threads work one after another while others rest with some of their blocks. A third
/// of the lives has a limit of memory, at which theap refuses blocks.
///
/// Exit codes: 0 if all went well, 1 if a life went wrong; then the message has the command that
/// repeats it.
#[derive(Args)]
pub struct Soak {
    /// Minutes for which new lives begin
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// The seed of all random choices [default: another seed each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Processes at the same time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    processes: u8,
}

fn minutes(text: &str) -> Result<f64> {
    arguments::time(text, "minutes", 100_000.0, 10)
}

/// Random numbers by splitmix64, from a seed.
pub struct Chance(pub u64);

impl Chance {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ x >> 31
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len())]
    }
}

/// A life whose process runs.
struct Running {
    number: u64,
    variables: Vec<(&'static str, &'static str)>,
    child: Child,
}

/// The lives whose processes run; none outlives the soak.
#[derive(Default)]
struct Lives(Vec<Running>);

impl Drop for Lives {
    fn drop(&mut self) {
        for running in &mut self.0 {
            // Both calls fail only for a process that has ended already.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

impl Soak {
    pub fn run(self) -> Result<()> {
        let seed = self
            .seed
            .unwrap_or_else(|| Instant::now().elapsed().as_nanos() as u64 ^ clock());
        writeln!(io::stdout(), "seed {seed}")?;
        let mut chance = Chance(seed);
        let (start, length) = (Instant::now(), Duration::from_secs_f64(self.minutes * 60.0));
        let bar = progress::bar(length.as_secs(), " s");
        let mut total = Report::default();
        let mut lives = Lives::default();
        while start.elapsed() < length || !lives.0.is_empty() {
            while start.elapsed() < length && lives.0.len() < usize::from(self.processes) {
                lives.0.push(Running::start(&mut chance)?);
            }
            let running = lives.0.remove(0);
            total.add(&running.end()?);
            bar.set_position(start.elapsed().as_secs().min(length.as_secs()));
            bar.set_message(total.to_string());
        }
        bar.finish_and_clear();
        let seconds = start.elapsed().as_secs_f64();
        writeln!(
            io::stdout(),
            "{total}\n{seconds:.0} s, every byte as it was written"
        )?;
        Ok(())
    }
}

fn clock() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| since.as_nanos() as u64)
}

impl Running {
    fn start(chance: &mut Chance) -> Result<Self> {
        let number = chance.next();
        let variables = vec![
            (
                "THEAP_PAGES",
                chance.of(&["auto", "hugetlb", "thp", "small"]),
            ),
            ("THEAP_FRONT", chance.of(&["theap", "theap", "classic"])),
            ("THEAP_RETAIN", chance.of(&["0", "8M", "256M"])),
            ("THEAP_SOFT_LIMIT", chance.of(&["0", "16M", "64M"])),
            (
                "THEAP_LIMIT",
                chance.of(&["0", "0", "0", "0", "32M", "100M"]),
            ),
            ("THEAP_DECAY", chance.of(&["20", "10000"])),
            ("THEAP_BACKGROUND", chance.of(&["0", "1"])),
            ("THEAP_MAGAZINE", chance.of(&["1K", "32K"])),
            ("THEAP_MESSAGES", "0"),
        ];
        let child = Command::new(env::current_exe().context("cannot find this program")?)
            .args(["life", &number.to_string()])
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start a process")?;
        Ok(Self {
            number,
            variables,
            child,
        })
    }

    fn end(self) -> Result<Report> {
        let output = self
            .child
            .wait_with_output()
            .context("cannot wait for a process")?;
        if !output.status.success() {
            let set: String = self
                .variables
                .iter()
                .map(|(name, value)| format!("{name}={value} "))
                .collect();
            bail!(
                "a life went wrong ({}): {}\nAgain: {set}theap life {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim(),
                self.number
            );
        }
        serde_json::from_slice(&output.stdout).context("cannot understand the report of a life")
    }
}
