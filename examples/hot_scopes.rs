//! This program measures what hot scopes cost, in ns:
//! `cargo run --release --example hot_scopes`.
//!
//! Pairs of an allocation and a free of 100 bytes run in no scope and in scopes of each contract.
//! With `Report` the stack of each breach is taken and compared with those that were told; here it
//! is told once, on standard error.

use std::hint::black_box;
use std::time::Instant;

use theap::{Breach, Contract, Theap};

#[global_allocator]
static HEAP: Theap = Theap::new();

/// Rounds, whose medians are printed.
const ROUNDS: usize = 7;

fn main() {
    let pair = || drop(black_box(Vec::<u8>::with_capacity(black_box(100))));
    let scope = || drop(black_box(theap::hot(Contract::NoAllocation, Breach::Abort)));
    let mut times = [const { Vec::new() }; 5];
    for _ in 0..ROUNDS {
        times[0].push(nanos(1_000_000, pair));
        times[1].push(within(Contract::NoSlowPath, Breach::Count, 1_000_000, pair));
        times[2].push(within(
            Contract::NoAllocation,
            Breach::Count,
            1_000_000,
            pair,
        ));
        times[3].push(within(Contract::NoAllocation, Breach::Report, 20_000, pair));
        times[4].push(nanos(1_000_000, scope));
    }
    let [plain, slow_path, counted, told, scope] = times.map(median);
    println!("a pair that hits                  {plain:.1}");
    println!("  promised: no slow path          {slow_path:.1}");
    println!("  promised: no allocation         {counted:.1} (two breaches, counted)");
    println!("  the same, reported              {told:.1}");
    println!("beginning and ending a scope      {scope:.1}");
}

/// Time of one call of `work`, of so many.
fn nanos(times: u32, work: impl Fn()) -> f64 {
    let start = Instant::now();
    (0..times).for_each(|_| work());
    start.elapsed().as_nanos() as f64 / f64::from(times)
}

/// Time of one call of `work`, of so many in a hot scope.
fn within(contract: Contract, breach: Breach, times: u32, work: impl Fn()) -> f64 {
    let _hot = theap::hot(contract, breach);
    nanos(times, work)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
