//! The rows of the suite in one process, briefly.
#![allow(unsafe_code)] // contenders that lie are allocators

use std::alloc::System;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use theap::Theap;
use theap_bench::row::{Budget, Category, PEAK, RESIDENT, ROWS, chosen, row};
use theap_bench::{Contender, Error, Null, forward_global_alloc};

const BRIEF: Budget = Budget(Duration::from_millis(1));

/// glibc's count of bytes in use is the whole process's, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// System is this program's global allocator, so it can run them all.
#[test]
fn every_row_has_figures() {
    let _turn = turn();
    for row in ROWS {
        let metrics = row.run(&System, BRIEF).unwrap();
        for wanted in [row.metric(), PEAK] {
            let found = metrics.iter().find(|metric| metric.metric == wanted);
            let value = found
                .unwrap_or_else(|| panic!("{}: no {wanted}", row.name))
                .value;
            assert!(value.is_finite() && value > 0.0, "{}: {value}", row.name);
        }
    }
}

#[test]
fn the_null_allocator_runs_the_hit_path_alone() {
    let _turn = turn();
    // SAFETY: rows of the hit path have one thread, and `run` refuses the others.
    static NULL: Null = unsafe { Null::new() };
    for row in ROWS {
        let outcome = row.run(&NULL, BRIEF);
        if row.category == Category::HitPath {
            outcome.unwrap_or_else(|error| panic!("{}: {error}", row.name));
        } else {
            assert!(matches!(outcome, Err(Error::Setup(_))), "{}", row.name);
        }
    }
}

#[test]
fn collections_need_the_global_allocator() {
    let _turn = turn();
    let error = row("btree").unwrap().run(&Theap::new(), BRIEF).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the run is not theap's: it is not the global allocator of this program"
    );
}

/// Hands out System's memory under theap's name.
struct Mislabelled(System);

forward_global_alloc!(Mislabelled);

impl Contender for Mislabelled {
    const NAME: &'static str = "theap";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        Theap::new().owns(block, size)
    }
}

#[test]
fn a_wrong_label_fails_every_row() {
    let _turn = turn();
    for row in ROWS {
        let error = row.run(&Mislabelled(System), BRIEF).unwrap_err();
        assert!(
            matches!(error, Error::Foreign { .. }),
            "{}: {error}",
            row.name
        );
    }
}

#[test]
fn quick_runs_leave_out_the_rows_that_wait_unless_they_are_named() {
    let names = |parts: &[&str], quick| -> Vec<&str> {
        let parts: Vec<String> = parts.iter().map(|&part| part.into()).collect();
        let rows = chosen(&parts, quick).into_iter();
        rows.map(|row| row.name).collect()
    };
    let waiting: Vec<_> = ROWS.iter().filter(|row| row.waits()).collect();
    assert_eq!(waiting.len(), 4);
    assert_eq!(names(&[], false).len(), ROWS.len());
    assert_eq!(names(&[], true).len(), ROWS.len() - waiting.len());
    assert_eq!(
        names(&["rss/freed", "lists"], true),
        ["lists", "rss/freed-200m", "rss/freed-90k"]
    );
}

/// What stays of 1 GiB is 1 MiB, and the C library gives the rest back when it is told to.
#[test]
fn what_is_left_is_read_after_the_contender_has_trimmed() {
    let _turn = turn();
    let metrics = row("rss/sparse-trim").unwrap().run(&System, BRIEF).unwrap();
    let value = |name: &str| {
        let mut found = metrics.iter().filter(|metric| metric.metric == name);
        found.next().unwrap_or_else(|| panic!("no {name}")).value
    };
    assert_eq!(value("trims"), 1.0);
    assert!(value(PEAK) > f64::from(1 << 30), "{}", value(PEAK));
    assert!(
        value(RESIDENT) < f64::from(256 << 20),
        "{}",
        value(RESIDENT)
    );
}
