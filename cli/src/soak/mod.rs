//! `theap soak`: random lives of processes on theap, for as long as asked: threads, forks, sizes, fronts, page modes.
//!
//! Each life is a process of its own ([`life`]), told by a number how to go; the numbers come from one seed, which is
//! printed first. The first life that goes wrong, or takes too long, ends the soak and the other lives, with the command
//! that repeats that life.

mod life;

use std::env;
use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

pub use life::Life;
use life::Report;

/// Run random lives on theap, checking every byte, and say what they did
///
/// Exit codes: 0 all went well; 1 a life went wrong, and the message has the command that repeats it.
#[derive(Args)]
pub struct Soak {
    /// How long, in minutes
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// The seed of everything that is left to chance [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Processes at the same time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    processes: u8,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if minutes > 0.0 && minutes <= 100_000.0 => Ok(minutes),
        _ => Err("give a number of minutes, for example 10 or 0.5".to_owned()),
    }
}

/// Numbers of splitmix64: each life's way is told by one number.
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

/// A life that is being lived.
struct Running {
    number: u64,
    variables: Vec<(&'static str, &'static str)>,
    child: Child,
}

/// Those that are being lived; none outlives the soak.
#[derive(Default)]
struct Lives(Vec<Running>);

impl Drop for Lives {
    fn drop(&mut self) {
        for running in &mut self.0 {
            // Both fail only where it has ended already.
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
        let bar = bar(length);
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

fn bar(length: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} s {msg}")
        .expect("the template above is well formed");
    ProgressBar::new(length.as_secs()).with_style(style)
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
        serde_json::from_slice(&output.stdout).context("a life's report is not understood")
    }
}
