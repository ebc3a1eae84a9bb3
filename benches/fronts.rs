//! `cargo bench -p theap-bench --bench fronts`: theap's fronts against each other, and the
//! learner's gain.
//!
//! One heap in one process is switched between interleaved rounds with rotated order: magazines
//! that learn, magazines of fixed capacities, and the classic front. Before each run the heap
//! forgets what it has learned and gets back every thread's cache, so a run includes the learning.
//! The program prints medians, the range, and the throughput of learning magazines as a multiple of
//! each other side's. Arguments follow `--`.

use std::process::ExitCode;

use clap::Parser;
use theap::{Front, Theap};
use theap_bench::{Column, Params, Record, Series, Sizes, Workload, interleave, table};

/// Throughput of theap's fronts in one process.
#[derive(Parser)]
struct Options {
    /// Run only the cases whose name contains this.
    filter: Option<String>,
    /// Rounds that count; one more before them does not.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Divide the operations of each run by this.
    #[arg(long, default_value_t = 1)]
    divide: u64,
    /// `cargo bench` passes this option and `cargo test` does not: without it every case just runs
    /// briefly.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The fronts under comparison: a name, the front, and whether the heap learns.
const SIDES: [(&str, Front, bool); 3] = [
    ("learning", Front::Theap, true),
    ("fixed", Front::Theap, false),
    ("classic", Front::Classic, false),
];

type Set = fn(&mut Params);

const CASES: [(&str, Workload, Set); 10] = [
    ("random-mixed 16-1024", Workload::RandomMixed, |_| {}),
    ("random-mixed 16-32768", Workload::RandomMixed, |params| {
        params.sizes = Sizes::new(16, 32_768).expect("a range");
        params.ops /= 5;
    }),
    ("burst 64, 100 blocks", Workload::Burst, |params| {
        params.slots = 100
    }),
    ("burst 64, 1000 blocks", Workload::Burst, |params| {
        params.slots = 1000
    }),
    ("burst 64, 100000 blocks", Workload::Burst, |params| {
        params.slots = 100_000
    }),
    ("burst 1024, 1000 blocks", Workload::Burst, |params| {
        params.slots = 1000;
        params.sizes = Sizes::new(1024, 1024).expect("a range");
    }),
    ("producer-consumer 64", Workload::ProducerConsumer, |_| {}),
    (
        "producer-consumer 16-1024",
        Workload::ProducerConsumer,
        |params| {
            params.sizes = Sizes::new(16, 1024).expect("a range");
        },
    ),
    ("larson 1 thread", Workload::Larson, |_| {}),
    ("larson 2 threads", Workload::Larson, |params| {
        params.threads = 2
    }),
];

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Turns the heap to this side. The calling thread forgets what it has learned by going to the
/// classic front; the workloads' own threads begin anew.
fn turn_to(front: Front, learns: bool) {
    theap::set_front(Front::Classic);
    theap::collect();
    theap::set_front(front);
    theap::set_learning(learns);
    theap::collect();
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    if options.rounds == 0 || options.divide == 0 {
        return Err("--rounds and --divide start at 1".into());
    }
    let (rounds, divide) = if options.bench {
        (options.rounds, options.divide)
    } else {
        (1, 1000)
    };
    let filter = options.filter.as_deref().unwrap_or_default();
    let mut series = Series::default();
    for (name, workload, set) in CASES.iter().filter(|(name, ..)| name.contains(filter)) {
        let mut params = workload.defaults();
        set(&mut params);
        params.ops = (params.ops / divide).max(1);
        interleave(rounds + 1, SIDES.len(), |round, nth| {
            let (side, front, learns) = SIDES[nth];
            turn_to(front, learns);
            let outcome = workload.run(&Theap::new(), &params)?;
            if round > 0 {
                series.push(name, side, "default", vec![outcome.throughput()]);
            }
            Ok::<_, theap_bench::Error>(())
        })?;
    }
    let learning = Column {
        allocator: SIDES[0].0.into(),
        pages: "default".into(),
    };
    println!("{}", table(&series.records(), &learning, multiple));
    println!("N.NNx: throughput of learning magazines as a multiple of that side's (medians).");
    Ok(())
}

fn multiple(side: &Record, learning: &Record) -> Option<String> {
    (side.median > 0.0).then(|| format!("{:.2}x", learning.median / side.median))
}
