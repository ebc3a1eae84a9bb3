//! Times each tuned path against its plain twin, in interleaved rounds of one process.
//!
//! A round times one side and then the other, the next round in the other order. The benchmark
//! prints the medians of both in nanoseconds a call, and the median over the rounds of `twin /
//! tuned`: above 1, the tuned path is faster. `cargo bench -p theap-arch [-- PART_OF_A_NAME]`;
//! without `--bench` (under `cargo test --benches`) every pair runs once and nothing is printed.
#![allow(unsafe_code)] // calls functions on raw memory

#[path = "../tests/probe/mod.rs"]
mod probe;

use std::ffi::c_void;
use std::hint::black_box;
use std::ptr::null_mut;
use std::sync::atomic::AtomicU8;
use std::time::{Duration, Instant};
use theap_arch::{self as tuned, portable};

/// The pairs to run (`only` is a part of their names), and the number of rounds.
struct Bench {
    only: Option<String>,
    rounds: usize,
}

impl Bench {
    fn from_arguments() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let rounds = if arguments.iter().any(|a| a == "--bench") {
            601
        } else {
            1
        };
        Bench {
            only: arguments.into_iter().find(|a| !a.starts_with('-')),
            rounds,
        }
    }

    /// Times both sides and prints the result. `calls` is the number of calls of the function under
    /// test in one run of a side.
    fn pair(&self, name: &str, calls: usize, mut tuned: impl FnMut(), mut twin: impl FnMut()) {
        if self
            .only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            return;
        }
        let mut runs = 1;
        while self.rounds > 1 && time(runs, &mut tuned) < Duration::from_micros(50) {
            runs *= 2;
        }
        let mut rounds = Vec::with_capacity(self.rounds);
        for round in 0..self.rounds {
            let (a, b);
            if round % 2 == 0 {
                a = time(runs, &mut tuned);
                b = time(runs, &mut twin);
            } else {
                b = time(runs, &mut twin);
                a = time(runs, &mut tuned);
            }
            let each = |side: Duration| side.as_nanos() as f64 / (runs * calls) as f64;
            rounds.push((each(a), each(b)));
        }
        if self.rounds == 1 {
            return;
        }
        let a = median(rounds.iter().map(|r| r.0));
        let b = median(rounds.iter().map(|r| r.1));
        let ratio = median(rounds.iter().map(|r| r.1 / r.0));
        println!("{name:<34} tuned {a:>9.2} ns   twin {b:>9.2} ns   ratio {ratio:>5.2}");
    }
}

fn time(runs: usize, side: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..runs {
        side();
    }
    start.elapsed()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Random numbers (xorshift), the same in each run.
fn random() -> impl FnMut() -> u64 {
    let mut state = 88_172_645_463_325_252_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn size_classes(bench: &Bench) {
    let mut next = random();
    let sizes: Vec<usize> = (0..1024)
        .map(|_| {
            let top = 1024 << (next() % 8);
            (top + 1) + (next() >> 20) as usize % top
        })
        .collect();
    macro_rules! independent {
        ($class_of:path) => {
            || {
                for &size in &sizes {
                    black_box($class_of(black_box(size)));
                }
            }
        };
    }
    macro_rules! chain {
        ($class_of:path) => {
            || {
                let mut class = 0;
                for &size in &sizes {
                    class = $class_of(size + (class & 1));
                }
                black_box(class);
            }
        };
    }
    let name = "class_of, independent";
    bench.pair(
        name,
        1024,
        independent!(tuned::class_of),
        independent!(portable::size_class::class_of),
    );
    let name = "class_of, dependent";
    bench.pair(
        name,
        1024,
        chain!(tuned::class_of),
        chain!(portable::size_class::class_of),
    );
}

fn words(bench: &Bench) {
    let mut next = random();
    let mut out = [null_mut::<u8>(); 64];
    let dst = out.as_mut_ptr();
    for bits in [1, 4, 8, 16, 28, 35, 36, 40, 48, 63, 64] {
        let mut word = || {
            let mut word = 0u64;
            while word.count_ones() < bits {
                word |= 1 << (next() >> 30 & 63);
            }
            word
        };
        let words: Vec<u64> = (0..256).map(|_| word()).collect();
        macro_rules! side {
            ($expand:path) => {
                || {
                    for &word in &words {
                        // SAFETY: room for 64 pointers.
                        black_box(unsafe { $expand(black_box(word), 1 << 40, 48, dst) });
                    }
                }
            };
        }
        let name = format!("expand, {bits} bits");
        bench.pair(
            &name,
            256,
            side!(tuned::expand),
            side!(portable::bitmap::expand),
        );
    }
    macro_rules! side {
        ($expand_full:path) => {
            // SAFETY: room for 64 pointers.
            || unsafe { $expand_full(black_box(1 << 40), black_box(48), black_box(dst)) }
        };
    }
    let name = "expand_full";
    bench.pair(
        name,
        1,
        side!(tuned::expand_full),
        side!(portable::bitmap::expand_full),
    );
}

fn clearing(bench: &Bench) {
    let mut next = random();
    let mut memory = vec![1u8; 1 << 20];
    let start = memory.as_mut_ptr();
    macro_rules! side {
        ($clear:path, $lengths:expr) => {
            || {
                for &len in $lengths {
                    // SAFETY: within the vector; its contents are of no matter.
                    unsafe { $clear(black_box(start), len) };
                }
            }
        };
    }
    let pair = |name: &str, lengths: &[usize]| {
        bench.pair(
            name,
            lengths.len(),
            side!(tuned::clear, lengths),
            side!(portable::clear::clear, lengths),
        );
    };
    for len in [16, 32, 64, 128, 256, 1024, 4096, 65_536, 1 << 20] {
        pair(
            &format!("clear, {len} bytes"),
            &vec![len; if len > 4096 { 4 } else { 256 }],
        );
    }
    for (name, most) in [
        ("clear, random to 128 bytes", 8),
        ("clear, random to 1024 bytes", 64),
    ] {
        let lengths: Vec<usize> = (0..1024)
            .map(|_| 16 + (next() >> 30) as usize % most * 16)
            .collect();
        pair(name, &lengths);
    }
}

fn tables(bench: &Bench) {
    let table: Vec<_> = (0..4096).map(|_| AtomicU8::new(0)).collect();
    for len in [1, 4, 16, 32, 80, 240] {
        macro_rules! side {
            ($write:path $(, $byte:expr)?) => {
                || {
                    for _ in 0..64 {
                        // SAFETY: within the vector.
                        unsafe { $write(black_box(table.as_ptr()), len $(, $byte)?) };
                    }
                }
            };
        }
        bench.pair(
            &format!("fill, {len} places"),
            64,
            side!(tuned::fill, black_box(1)),
            side!(portable::table::fill, black_box(1)),
        );
        bench.pair(
            &format!("number, {len} places"),
            64,
            side!(tuned::number),
            side!(portable::table::number),
        );
    }
}

static EMPTY: u64 = 0;
tuned::thread_slot! { mod tuned_slot: c_void = EMPTY; }
tuned::portable_thread_slot! { mod plain_slot: c_void = EMPTY; }

fn slots(bench: &Bench) {
    macro_rules! side {
        ($get:expr) => {
            || {
                for _ in 0..256 {
                    black_box($get());
                }
            }
        };
    }
    let name = "thread_slot, in an executable";
    bench.pair(name, 256, side!(tuned_slot::get), side!(plain_slot::get));
    if bench.rounds > 1 {
        let libraries = [false, true].map(|twin| probe::build("release", twin));
        let [tuned, twin] = libraries.each_ref().map(|library| probe::load(library));
        let name = "thread_slot, call into a library";
        bench.pair(name, 256, side!(tuned.get), side!(twin.get));
        let value = (tuned.empty)().cast_mut();
        let name = "thread_slot set, into a library";
        bench.pair(
            name,
            256,
            side!(|| (tuned.set)(value)),
            side!(|| (twin.set)(value)),
        );
        // The twin of `cpu_number` knows nothing, so the C library's function stands in.
        // SAFETY: no preconditions.
        let get_cpu = || unsafe { libc::sched_getcpu() };
        let name = "cpu_number, twin sched_getcpu";
        bench.pair(name, 256, side!(tuned.cpu), side!(get_cpu));
        libraries.iter().for_each(|library| probe::remove(library));
    }
}

fn main() {
    let bench = Bench::from_arguments();
    slots(&bench);
    size_classes(&bench);
    words(&bench);
    clearing(&bench);
    tables(&bench);
}
