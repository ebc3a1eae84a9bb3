//! `cargo bench -p theap-bench --features peers`: throughput of theap and its peers.
//!
//! All allocators run in this one process, in interleaved rounds with rotated order; a first round
//! warms every heap and is not counted. Printed are medians, the range, and theap's throughput as
//! a multiple of each peer's. Arguments follow `--`; a relative `--json` path starts at `benches/`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use theap_bench::{CONTENDERS, Column, Params, Record, Series, Sizes, Workload, interleave, table};

/// Throughput of theap and its peers in one process.
#[derive(Parser)]
struct Options {
    /// Run only the cases whose name contains this.
    filter: Option<String>,
    /// Counted rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Divide the operations of each run by this.
    #[arg(long, default_value_t = 1)]
    divide: u64,
    /// CPUs to pin the threads to, in turn.
    #[arg(long, value_delimiter = ',')]
    pin: Vec<usize>,
    /// Write the records to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// What `cargo bench` passes and `cargo test` does not: without it every case just runs briefly.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A workload with the parameters that the comparison is about.
struct Case {
    name: &'static str,
    workload: Workload,
    set: fn(&mut Params),
}

const CASES: &[Case] = &[
    Case {
        name: "random-mixed 16-1024",
        workload: Workload::RandomMixed,
        set: |_| {},
    },
    Case {
        name: "random-mixed 16-32768",
        workload: Workload::RandomMixed,
        set: |params| {
            params.sizes = Sizes::new(16, 32_768).expect("a range");
            // These blocks do not fit in the caches: a fifth of the operations takes as long.
            params.ops /= 5;
        },
    },
    Case {
        name: "burst 64, 100 blocks",
        workload: Workload::Burst,
        set: |params| params.slots = 100,
    },
    Case {
        name: "burst 64, 1000 blocks",
        workload: Workload::Burst,
        set: |params| params.slots = 1000,
    },
    Case {
        name: "producer-consumer 64",
        workload: Workload::ProducerConsumer,
        set: |_| {},
    },
    Case {
        name: "producer-consumer 16-1024",
        workload: Workload::ProducerConsumer,
        set: |params| params.sizes = Sizes::new(16, 1024).expect("a range"),
    },
    Case {
        name: "larson 1 thread",
        workload: Workload::Larson,
        set: |_| {},
    },
    Case {
        name: "larson 2 threads",
        workload: Workload::Larson,
        set: |params| params.threads = 2,
    },
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
    for case in CASES.iter().filter(|case| case.name.contains(filter)) {
        let mut params = case.workload.defaults();
        (case.set)(&mut params);
        params.ops = (params.ops / divide).max(1);
        params.cpus.clone_from(&options.pin);
        interleave(rounds + 1, CONTENDERS.len(), |round, nth| {
            let contender = &CONTENDERS[nth];
            let outcome = (contender.run)(case.workload, &params)?;
            if round > 0 {
                series.push(
                    case.name,
                    contender.name,
                    "default",
                    vec![outcome.throughput()],
                );
            }
            Ok::<_, theap_bench::Error>(())
        })?;
    }
    let records = series.records();
    let theap = Column {
        allocator: "theap".into(),
        pages: "default".into(),
    };
    println!("{}", table(&records, &theap, multiple));
    println!("N.NNx: theap's throughput as a multiple of that peer's (medians).");
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&records)? + "\n")
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

fn multiple(peer: &Record, theap: &Record) -> Option<String> {
    (peer.median > 0.0).then(|| format!("{:.2}x", theap.median / peer.median))
}
