//! `theap compare` as a person or a script runs it.

use std::collections::BTreeSet;

use assert_cmd::Command;
use serde_json::Value;

fn theap() -> Command {
    Command::cargo_bin("theap").expect("cargo built the program")
}

/// Parameters small enough for a debug build.
const TINY: [&str; 8] = [
    "--ops", "20000", "--slots", "64", "--bytes", "2MiB", "--rounds", "2",
];

/// Parameters of a child as its parent passes them.
const BURST: &str =
    r#"{"ops":1000,"sizes":[64,64],"slots":8,"bytes":1,"threads":1,"rounds":1,"seed":1,"cpus":[]}"#;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

#[test]
fn every_workload_reports_every_metric_for_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("figures.json");
    let output = theap()
        .args([
            "compare",
            "--quick",
            "--pages",
            "small",
            "--handover",
            "50",
            "--json",
        ])
        .arg(&file)
        .args(TINY)
        .output()
        .unwrap();
    assert_eq!(text(&output.stderr), "", "a pipe gets no progress");
    assert_eq!(output.status.code(), Some(0));
    let table = text(&output.stdout);
    assert!(
        table.contains("theap small") && !table.contains('\x1b'),
        "{table}"
    );

    let records: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let keys: BTreeSet<&str> = [
        "workload",
        "allocator",
        "pages",
        "metric",
        "unit",
        "median",
        "min",
        "max",
        "rounds",
    ]
    .into();
    let mut seen = BTreeSet::new();
    for record in &records {
        let object = record.as_object().unwrap();
        assert_eq!(
            object.keys().map(String::as_str).collect::<BTreeSet<_>>(),
            keys
        );
        let [min, median, max] = ["min", "median", "max"].map(|key| object[key].as_f64().unwrap());
        assert!(min <= median && median <= max, "{record}");
        assert_eq!(object["rounds"], 2);
        seen.insert(["workload", "allocator", "metric"].map(|key| object[key].as_str().unwrap()));
    }
    let common = [
        "wall_time",
        "time_per_op",
        "minor_faults",
        "major_faults",
        "peak_rss",
    ];
    let tail = [
        "alloc_touch_p50",
        "alloc_touch_p99",
        "alloc_touch_p99.9",
        "alloc_touch_p99.99",
        "alloc_touch_max",
    ];
    let mut expected = BTreeSet::new();
    for allocator in ["system", "theap"] {
        for workload in [
            "first-touch",
            "first-touch-warm",
            "random-mixed",
            "burst",
            "larson",
            "producer-consumer",
        ] {
            expected.extend(common.map(|metric| [workload, allocator, metric]));
        }
        for workload in ["first-touch", "first-touch-warm", "random-mixed"] {
            expected.extend(tail.map(|metric| [workload, allocator, metric]));
        }
    }
    expected.insert(["first-touch-warm", "theap", "preparation"]);
    assert_eq!(seen, expected);
}

#[test]
fn what_the_host_cannot_serve_is_told_with_a_command_to_type() {
    // No host has this many hugepages to spare.
    let asked = [
        "compare",
        "--workload",
        "first-touch",
        "--bytes",
        "1000000GiB",
        "--pages",
        "hugetlb",
    ];
    let output = theap().args(asked).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("sysctl -w vm.nr_hugepages=") || said.contains("without hugetlb"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn wrong_usage_exits_with_2() {
    for (arguments, complaint) in [
        (
            ["compare", "--workload", "no-such"],
            "first-touch, first-touch-warm, random-mixed",
        ),
        (
            ["compare", "--pages", "enormous"],
            "possible values: small, thp, hugetlb, auto",
        ),
        (["compare", "--sizes", "9-8"], "no range of block sizes"),
        (["compare", "--rounds", "0"], "not in 1.."),
    ] {
        let output = theap().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(complaint), "{said}");
    }
}

#[test]
fn a_failing_child_fails_the_comparison_with_its_reason() {
    let output = theap()
        .args([
            "compare",
            "--workload",
            "burst",
            "--pages",
            "small",
            "--pin",
            "1000000",
        ])
        .args(TINY)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("error: burst under system (default pages) failed"),
        "{said}"
    );
    assert!(
        said.contains("cannot pin a thread to CPU 1000000"),
        "{said}"
    );
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn an_unwritable_file_is_an_error_with_its_name() {
    let output = theap()
        .args([
            "compare",
            "--workload",
            "burst",
            "--pages",
            "small",
            "--json",
            "/no-such-place/f.json",
        ])
        .args(TINY)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/no-such-place/f.json"));
}

#[test]
fn a_child_answers_in_json_or_says_why_not() {
    let output = theap()
        .args([
            "child",
            "--allocator",
            "system",
            "--workload",
            "burst",
            "--params",
        ])
        .arg(BURST)
        .output()
        .unwrap();
    assert_eq!(text(&output.stderr), "");
    let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reply["metrics"][0]["metric"], "wall_time");

    let output = theap()
        .args(["child", "--allocator", "none", "--workload", "burst"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no allocator named none"));
}

#[test]
fn a_run_on_other_pages_than_it_says_fails() {
    let output = theap()
        .env("THEAP_PAGES", "small")
        .args([
            "child",
            "--allocator",
            "theap",
            "--workload",
            "burst",
            "--pages",
            "thp",
            "--params",
        ])
        .arg(BURST)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("error: the run was not on thp pages alone"),
        "{said}"
    );
}
