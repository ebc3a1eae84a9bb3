//! The rows of the suite in one process, briefly.
#![allow(unsafe_code)] // a contender that lies is an allocator, too

use std::alloc::System;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use theap::Theap;
use theap_bench::row::{Budget, Category, PEAK, ROWS, row};
use theap_bench::suite::{Role, Side, Summary};
use theap_bench::{Contender, Error, Null, Record, delegate};

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
fn the_null_allocator_runs_the_hit_path() {
    let _turn = turn();
    static NULL: Null = Null::new();
    for row in ROWS.iter().filter(|row| row.category == Category::HitPath) {
        let outcome = row.run(&NULL, BRIEF);
        outcome.unwrap_or_else(|error| panic!("{}: {error}", row.name));
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

delegate!(Mislabelled);

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

fn side(name: &str, role: Role) -> Side {
    Side {
        name: name.into(),
        role,
        program: "true".into(),
        arguments: Vec::new(),
        environment: Vec::new(),
    }
}

fn record(row: &str, allocator: &str, metric: &'static str, median: f64) -> Record {
    Record {
        workload: row.into(),
        allocator: allocator.into(),
        pages: "default".into(),
        metric: metric.into(),
        unit: "Mop/s".into(),
        median,
        min: median,
        max: median,
        rounds: 1,
    }
}

/// The best peer is the fastest, on rows about memory the smallest, where theap's figure is that of small pages.
#[test]
fn verdicts_compare_with_the_best_peer() {
    let sides = [
        side("theap", Role::Subject),
        side("theap-small", Role::SmallPages),
        side("a", Role::Peer),
        side("b", Role::Peer),
        side("null", Role::Limit),
    ];
    let records = [
        record("server", "theap", "throughput", 30.0),
        record("server", "a", "throughput", 10.0),
        record("server", "b", "throughput", 20.0),
        record("server", "null", "throughput", 40.0),
        record("rss/floor", "theap", PEAK, 9.0),
        record("rss/floor", "theap-small", PEAK, 6.0),
        record("rss/floor", "a", PEAK, 4.0),
        record("rss/floor", "b", PEAK, 5.0),
    ];
    let summary = Summary::new(&sides, &records);
    let verdicts = summary.verdicts();
    assert_eq!(verdicts.len(), 2);
    assert_eq!(verdicts[0].best.as_deref(), Some("b"));
    assert_eq!(verdicts[0].to_best, Some(1.5));
    assert_eq!(verdicts[0].to_limit, Some(0.75));
    assert_eq!(verdicts[1].best.as_deref(), Some("a"));
    assert_eq!(verdicts[1].to_best, Some(1.5));
    assert_eq!(verdicts[1].to_limit, None);
    let mean = summary.mean(Category::HitPath, &sides[2]);
    assert!((mean.unwrap() - 3.0).abs() < 1e-9);
}
