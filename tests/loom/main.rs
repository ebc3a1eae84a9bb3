//! Models of the lock-free protocols, run by loom over the product's own source. Each runs two or
//! three threads through every interleaving that the C11 memory model allows, without a bound on
//! preemptions. What threads hand each other are loom's cells, so a missing happens-before is an
//! error and not a matter of luck.
//!
//! A model that cannot fail shows nothing: `weakened` has accesses that are made weaker one at a
//! time, each with the model that notices.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test loom`
#![cfg(loom)]
#![allow(unsafe_code)] // Loom's cells: they check what the protocols promise, exclusive access.

mod slots;
mod spans;
mod stash;
mod stats;
mod stock;
mod weakened;

use loom::thread::JoinHandle;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs a model and says how many interleavings it had.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(AtomicU64::new(0));
    let count = runs.clone();
    let mut builder = loom::model::Builder::new();
    // A look at the whole board is many accesses.
    builder.max_branches = 20_000;
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{name}: {} interleavings", runs.load(Ordering::Relaxed));
}

fn join<T, const N: usize>(threads: [JoinHandle<T>; N]) -> [T; N] {
    threads.map(|t| t.join().unwrap())
}
