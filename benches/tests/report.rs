//! The meaning of figures: verdicts, goals, and the file that keeps them, on records made by hand.
#![allow(missing_docs)]

use std::fs;

use theap_bench::Record;
use theap_bench::row::{Category, PEAK, ROWS};
use theap_bench::suite::{Entrant, Failure, Goal, Mode, Report, Role, Run, Summary};

const MIB: f64 = 1024.0 * 1024.0;

fn entrant(name: &str, role: Role) -> Entrant {
    Entrant {
        name: name.into(),
        role,
        version: "1".into(),
    }
}

fn record(row: &str, allocator: &str, median: f64) -> Record {
    let row = ROWS.iter().find(|known| known.name == row).unwrap();
    Record {
        workload: row.name.into(),
        allocator: allocator.into(),
        pages: "default".into(),
        metric: row.metric().into(),
        unit: "Mop/s".into(),
        median,
        min: median / 2.0,
        max: median * 2.0,
        rounds: 3,
    }
}

fn report(mode: Mode, records: Vec<Record>) -> Report {
    Report {
        mode,
        cpus: 2,
        host: vec![
            ("processor".into(), "2 × abacus".into()),
            ("kernel".into(), "6.1".into()),
        ],
        runs: vec![Run {
            date: "2026-01-01T00:00:00Z".into(),
            load: "0 0 0".into(),
            rounds: 3,
            millis: 1,
        }],
        entrants: vec![
            entrant("theap", Role::Subject),
            entrant("theap-small", Role::SmallPages),
            entrant("mimalloc", Role::Peer),
            entrant("other", Role::Peer),
            entrant("null", Role::Limit),
            entrant("slower", Role::Variant),
        ],
        records,
        failures: Vec::new(),
    }
}

/// A record of the row's peak, where that is not the row's own figure.
fn peak(row: &str, allocator: &str, median: f64) -> Option<Record> {
    let record = record(row, allocator, median);
    (record.metric != PEAK).then(|| Record {
        metric: PEAK.into(),
        ..record
    })
}

/// On every row theap has `theap`, mimalloc `mimalloc`, the limit 100.
fn everywhere(mode: Mode, theap: f64, mimalloc: f64) -> Report {
    let records = ROWS.iter().flat_map(|row| {
        let limit = (row.category == Category::HitPath).then(|| record(row.name, "null", 100.0));
        let pair = [
            record(row.name, "theap", theap),
            record(row.name, "mimalloc", mimalloc),
        ];
        let peaks = [
            peak(row.name, "theap", theap),
            peak(row.name, "mimalloc", mimalloc),
        ];
        let peaks = peaks.into_iter().flatten();
        pair.into_iter().chain(limit).chain(peaks)
    });
    report(mode, records.collect())
}

fn set(report: &mut Report, row: &str, allocator: &str, median: f64) {
    let mut records = report.records.iter_mut();
    let found = records.find(|record| record.workload == row && record.allocator == allocator);
    found.unwrap().median = median;
}

fn add(report: &mut Report, row: &str, allocator: &str, median: f64) {
    report.records.push(record(row, allocator, median));
}

fn goal(report: &Report, about: &str) -> Goal {
    let goals = Summary::new(report).goals();
    goals
        .into_iter()
        .find(|goal| goal.goal.contains(about))
        .unwrap()
}

/// The best peer is the fastest, on rows about memory the smallest, where theap's figure is that of
/// small pages.
#[test]
fn verdicts_compare_with_the_best_peer() {
    let records = [
        ("server", "theap", 30.0),
        ("server", "mimalloc", 10.0),
        ("server", "other", 20.0),
        ("server", "null", 40.0),
        ("server", "slower", 15.0),
        ("rss/floor", "theap", 9.0),
        ("rss/floor", "theap-small", 6.0),
        ("rss/floor", "mimalloc", 4.0),
        ("rss/floor", "other", 5.0),
    ];
    let records = records.map(|(row, allocator, median)| record(row, allocator, median));
    let report = report(Mode::InProcess, records.to_vec());
    let summary = Summary::new(&report);
    let verdicts = summary.verdicts();
    assert_eq!(verdicts.len(), 2);
    assert_eq!(verdicts[0].best.as_deref(), Some("other"));
    assert_eq!(verdicts[0].to_best, Some(1.5));
    assert_eq!(verdicts[0].to_limit, Some(0.75));
    assert_eq!(verdicts[1].best.as_deref(), Some("mimalloc"));
    assert_eq!(verdicts[1].to_best, Some(1.5));
    assert_eq!(verdicts[1].to_limit, None);
    let mean = summary.mean(Category::HitPath, &report.entrants[2]);
    assert!((mean.unwrap() - 3.0).abs() < 1e-9);
    let variants = summary.variant_lines();
    assert_eq!(variants[1], ["server", "0.50"]);
    assert_eq!(variants[2], ["rss/floor", "-"]);
}

#[test]
fn goals_are_met_missed_or_open() {
    let mut all = everywhere(Mode::InProcess, 80.0, 40.0);
    let small = "bursts up to 1 KiB";
    let met = goal(&all, small);
    // Five mixes, and bursts of three lengths and four sizes.
    assert_eq!((met.met, met.rows), (Some(true), (17, 17)));
    assert_eq!(met.measured, Some(2.0));
    assert_eq!(goal(&all, "(pairs, ring)").met, Some(true));
    assert_eq!(goal(&all, "0.75").met, Some(true));

    set(&mut all, "burst/100x1k", "theap", 50.0);
    set(&mut all, "ring/8", "mimalloc", 41.0);
    let missed = goal(&all, small);
    assert_eq!((missed.met, missed.at), (Some(false), Some("burst/100x1k")));
    assert_eq!(missed.misses.len(), 1);
    assert_eq!(missed.misses[0].measured, 1.25);
    assert_eq!(goal(&all, "(pairs, ring)").misses[0].row, "ring/8");
    assert_eq!(goal(&all, "not below the best").met, Some(true));
    assert_eq!(goal(&all, "0.75").at, Some("burst/100x1k"));

    all.replace("burst/100x1k", Vec::new(), Vec::new());
    let open = goal(&all, small);
    assert_eq!((open.met, open.rows), (None, (16, 17)));
    set(&mut all, "mixed/256", "theap", 1.0);
    assert_eq!(
        goal(&all, small).met,
        Some(false),
        "one row is enough to miss"
    );
}

#[test]
fn threads_apart_are_compared_for_each_cpu() {
    let mut all = everywhere(Mode::InProcess, 80.0, 40.0);
    for row in ["apart/2", "apart/8", "apart/32", "apart/128"] {
        set(&mut all, row, "theap", 150.0);
    }
    let scaling = goal(&all, "threads apart");
    assert_eq!((scaling.met, scaling.rows), (Some(true), (4, 4)));
    assert_eq!(scaling.measured, Some(150.0 / 160.0));
    all.cpus = 4;
    assert_eq!(
        goal(&all, "threads apart").met,
        Some(false),
        "eight threads on four CPUs"
    );
}

/// The bound of single rows is for those that are large under either, the mean is over all.
#[test]
fn memory_is_compared_with_mimallocs() {
    let mut all = everywhere(Mode::InProcess, 10.0 * MIB, 10.0 * MIB);
    set(&mut all, "rss/floor", "theap", 15.0 * MIB);
    let large = goal(&all, "above 16 MiB");
    assert_eq!((large.met, large.rows), (None, (0, 0)), "none is large");
    assert_eq!(goal(&all, "1.1 of mimalloc").met, Some(true));
    set(&mut all, "rss/server", "theap", 17.0 * MIB);
    let large = goal(&all, "above 16 MiB");
    assert_eq!((large.met, large.at), (Some(false), Some("rss/server")));
    for row in ROWS.iter().filter(|row| row.category == Category::Memory) {
        set(&mut all, row.name, "theap", 12.0 * MIB);
    }
    assert_eq!(goal(&all, "1.1 of mimalloc").met, Some(false));
}

/// Each bound of what is left is about one way to run theap, and open without its figure.
#[test]
fn what_is_left_is_compared_on_the_side_that_the_goal_names() {
    let mut all = everywhere(Mode::InProcess, 900.0 * MIB, 10.0 * MIB);
    let others = [
        ("theap-thp", Role::Transparent),
        ("theap-small-bg", Role::SmallBackground),
        ("theap-thp-bg", Role::TransparentBackground),
        ("system", Role::Peer),
    ];
    let others = others.map(|(name, role)| entrant(name, role));
    all.entrants.extend(others);
    assert_eq!(goal(&all, "24 MiB").met, None);
    add(&mut all, "rss/100-resting", "theap-thp", 24.0 * MIB);
    let met = goal(&all, "24 MiB");
    assert_eq!((met.met, met.measured), (Some(true), Some(24.0)));

    add(&mut all, "rss/100-resting", "theap-small", 14.0 * MIB);
    assert_eq!(goal(&all, "times glibc").met, None);
    add(&mut all, "rss/100-resting", "system", 8.0 * MIB);
    let missed = goal(&all, "times glibc");
    assert_eq!((missed.met, missed.measured), (Some(false), Some(1.75)));

    for row in ["rss/freed-200m", "rss/freed-90k"] {
        add(&mut all, row, "theap-small-bg", 5.0 * MIB);
        assert_eq!(goal(&all, "all freed").met, None, "one mode is not both");
        add(&mut all, row, "theap-thp-bg", 15.0 * MIB);
    }
    let both = goal(&all, "all freed");
    assert_eq!((both.met, both.measured), (Some(true), Some(15.0)));
    set(&mut all, "rss/freed-90k", "theap-thp-bg", 17.0 * MIB);
    let missed = goal(&all, "all freed");
    assert_eq!(
        (missed.met, missed.at),
        (Some(false), Some("rss/freed-90k"))
    );
}

/// The peaks of rows about what is left count beside those of the other rows about memory.
#[test]
fn peaks_are_compared_with_the_leanest_peers() {
    let mut all = everywhere(Mode::Preloaded, 21.0 * MIB, 20.0 * MIB);
    let mean = goal(&all, "of the leanest");
    let rows = ROWS.iter().filter(|row| row.category.is_memory()).count();
    assert_eq!((mean.met, mean.rows), (Some(true), (rows, rows)));
    assert!((mean.measured.unwrap() - 1.05).abs() < 1e-9);
    all.entrants.push(entrant("jemalloc", Role::Peer));
    all.records.extend(peak("rss/pool", "jemalloc", 10.0 * MIB));
    assert_eq!(goal(&all, "of the leanest").met, Some(false));
    all.entrants.push(entrant("glibc", Role::Peer));
    all.records.extend(peak("rss/pool", "glibc", 1.0 * MIB));
    let mean = goal(&all, "of the leanest").measured.unwrap();
    assert!(mean < 1.1, "glibc is no measure: {mean}");
}

/// Rust programs have no operators to measure, so their goals do not wait for them.
#[test]
fn a_mode_without_cpp_has_neither_its_rows_nor_its_goals() {
    let all = everywhere(Mode::InProcess, 80.0, 40.0);
    let rows = ROWS.iter().filter(|row| row.category.is_speed());
    let speed = rows.filter(|row| !row.is_of(&["new-delete"])).count();
    assert_eq!(goal(&all, "not below the best peer").rows, (speed, speed));
    let goals = Summary::new(&all).goals();
    assert!(
        goals
            .iter()
            .all(|goal| !goal.goal.contains("new and delete"))
    );
    let preloaded = everywhere(Mode::Preloaded, 44.0, 40.0);
    let operators = goal(&preloaded, "new and delete");
    assert_eq!((operators.met, operators.rows), (Some(true), (3, 3)));
}

/// Large blocks have goals in both modes, the one of a sparse heap in operations a second.
#[test]
fn large_blocks_have_goals_in_both_modes() {
    for mode in [Mode::InProcess, Mode::Preloaded] {
        let mut all = everywhere(mode, 2.5, 2.0);
        assert_eq!(goal(&all, "sparse heap").met, Some(true));
        assert_eq!(goal(&all, "mixes of large").rows, (5, 5));
        set(&mut all, "sparse/3m-16000", "theap", 1.9);
        assert_eq!(goal(&all, "sparse heap").at, Some("sparse/3m-16000"));
        set(&mut all, "large/burst-300k", "mimalloc", 2.6);
        let missed = goal(&all, "mixes of large").misses;
        assert_eq!(missed[0].row, "large/burst-300k");
    }
}

/// The times of a heap that grows are better the less they are, on the pages that theap chooses,
/// and have a bound in each page mode.
#[test]
fn growth_is_compared_in_each_page_mode() {
    let row = "growth/512m-ahead";
    let mut all = everywhere(Mode::InProcess, 90.0, 100.0);
    for (name, role) in [
        ("theap-thp", Role::Transparent),
        ("theap-hugetlb", Role::Hugetlb),
        ("system", Role::Peer),
    ] {
        all.entrants.push(entrant(name, role));
    }
    add(&mut all, row, "system", 80.0);
    add(&mut all, row, "theap-small", 70.0);
    let verdicts = Summary::new(&all).verdicts();
    let verdict = verdicts.iter().find(|verdict| verdict.row == row).unwrap();
    assert_eq!(verdict.best.as_deref(), Some("system"));
    assert_eq!(verdict.to_best, Some(90.0 / 80.0));
    assert_eq!(goal(&all, "without a pool").met, None, "a mode is missing");
    add(&mut all, row, "theap-thp", 60.0);
    let missed = goal(&all, "without a pool");
    assert_eq!(
        (missed.met, missed.measured),
        (Some(false), Some(90.0 / 80.0))
    );
    set(&mut all, row, "theap", 80.0);
    assert_eq!(goal(&all, "without a pool").met, Some(true));
    assert_eq!(goal(&all, "warmer, hugetlb").met, None);
    add(&mut all, row, "theap-hugetlb", 81.0);
    assert_eq!(goal(&all, "warmer, hugetlb").met, Some(false));
}

/// Fewer instructions are better on every row of a counted run, and rows of several threads have
/// neither figures nor goals there.
#[test]
fn counted_runs_compare_instructions() {
    let counted = |allocator: &str, metric: &str, median: f64| {
        let rows = ROWS.iter().filter(|row| Mode::Counted.has(row));
        let one = rows.map(|row| Record {
            metric: metric.to_owned().into(),
            ..record(row.name, allocator, median)
        });
        one.collect::<Vec<_>>()
    };
    let records = [
        counted("theap", "instructions", 36.0),
        counted("mimalloc", "instructions", 50.0),
        counted("other", "instructions", 40.0),
        counted("theap", "read_modify_writes", 2.0),
    ];
    let mut all = report(Mode::Counted, records.concat());
    let summary = Summary::new(&all);
    let verdicts = summary.verdicts();
    assert!(
        verdicts
            .iter()
            .all(|verdict| verdict.best.as_deref() == Some("other"))
    );
    assert!(verdicts.iter().all(|verdict| verdict.to_best == Some(0.9)));
    assert_eq!(summary.goals().len(), 2);
    let writes = summary.metric_lines("read_modify_writes");
    assert_eq!(writes.len(), 1 + verdicts.len());
    assert_eq!(
        (&*writes[0].join(" "), &*writes[1].join(" ")),
        ("row theap", "mixed/256 2 [1–4]")
    );
    let mean = goal(&all, "geometric mean at most 0.9");
    let rows = ROWS.iter().filter(|row| row.category.has_one_thread());
    let rows = rows.filter(|row| !row.is_of(&["new-delete"])).count();
    assert_eq!((mean.met, mean.rows), (Some(true), (rows, rows)));
    assert_eq!(goal(&all, "400,000").met, Some(true));
    set(&mut all, "large/400000", "theap", 61.0);
    assert_eq!(goal(&all, "400,000").met, Some(false));
    assert_eq!(goal(&all, "geometric mean at most 0.9").met, Some(false));
}

#[test]
fn preloaded_libraries_have_goals_of_their_own() {
    let mut all = everywhere(Mode::Preloaded, 46.5, 40.0);
    assert_eq!(Summary::new(&all).goals().len(), 3 + 4 + 11);
    assert_eq!(goal(&all, "1.15 of mimalloc").met, Some(true));
    set(&mut all, "server", "theap", 37.9);
    assert_eq!(goal(&all, "0.95").misses[0].row, "server");
    all.replace("btree", Vec::new(), Vec::new());
    let mean = goal(&all, "1.15 of mimalloc");
    assert_eq!(mean.met, None, "a mean of all rows");
}

#[test]
fn later_figures_of_a_row_replace_all_earlier_ones() {
    let scratch = tempfile::tempdir().unwrap();
    let [a, b] = ["a.json", "b.json"].map(|name| scratch.path().join(name));
    let first = report(
        Mode::InProcess,
        vec![
            record("server", "theap", 1.0),
            record("server", "mimalloc", 2.0),
            record("btree", "theap", 3.0),
        ],
    );
    let mut second = report(Mode::InProcess, vec![record("server", "theap", 4.0)]);
    second.failures.push(Failure {
        row: "lists".into(),
        allocator: "theap".into(),
        error: "it fell".into(),
    });
    second.entrants.push(entrant("new", Role::Peer));
    first.save(&a).unwrap();
    second.save(&b).unwrap();
    assert_eq!(
        Report::load(&[&a]).unwrap(),
        Some(first.clone()),
        "nothing is lost"
    );

    let both = Report::load(&[&a, &b]).unwrap().unwrap();
    let figures = both.records.iter();
    let figures: Vec<_> = figures
        .map(|record| (&*record.workload, record.median))
        .collect();
    assert_eq!(figures, [("btree", 3.0), ("server", 4.0)]);
    assert_eq!(both.runs.len(), 2);
    assert_eq!(both.entrants.len(), 7);
    assert!(both.has("lists") && !both.has("vectors"));
    assert_eq!(both.subject_failed().unwrap().error, "it fell");
    let left = fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(left, 2, "no file in part is left");

    second.host[1].1 = "6.2".into();
    assert!(
        second.clone().merge(first.clone()).is_err(),
        "another kernel"
    );
    second.host = first.host.clone();
    second.mode = Mode::Preloaded;
    assert!(second.merge(first).is_err(), "another way in");
}
