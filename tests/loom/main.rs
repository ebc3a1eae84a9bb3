//! Models of the lock-free protocols, which loom runs over the product's own source. Each model
//! runs two or three threads through every interleaving that the C11 memory model allows, without a
//! bound on preemptions. The data that threads hand to each other are loom's cells, so a missing
//! happens-before is an error and not a matter of luck.
//!
//! A model that cannot fail shows nothing: `weakened` has a table of accesses, makes them weaker
//! one at a time, and runs the model that must notice.
//!
//! The command is `RUSTFLAGS="--cfg loom" cargo test --release --test loom`.
#![cfg(loom)]
#![allow(unsafe_code)] // Loom's cells: they check what the protocols promise, exclusive access.

mod extents;
mod heap_lock;
mod inbox;
mod shelf;
mod slots;
mod spans;
mod stash;
mod stats;
mod stock;
mod weakened;

use loom::thread::JoinHandle;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs a model and prints the number of its interleavings.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(AtomicU64::new(0));
    let count = runs.clone();
    let mut builder = loom::model::Builder::new();
    // Reading the whole board takes many accesses.
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
