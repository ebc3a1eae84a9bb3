//! `theap evaluate`: the report that it writes.
#![allow(missing_docs)]

use std::fs;

use assert_cmd::Command;

fn evaluate(out: &std::path::Path, topics: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_theap"));
    command
        .args([
            "evaluate", "--quick", "--rounds", "1", "--topic", topics, "--out",
        ])
        .arg(out);
    command
}

/// The cells of a table's row, by the beginning of its line.
fn row<'a>(report: &'a str, name: &str) -> Vec<&'a str> {
    let line = report
        .lines()
        .find(|line| line.starts_with(&format!("| {name}")))
        .unwrap_or_else(|| panic!("no row {name} in\n{report}"));
    line.split('|').map(str::trim).collect()
}

#[test]
fn the_report_keeps_prose_and_gets_new_tables() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("report.md");
    evaluate(&out, "superslabs,mid").assert().success();
    let first = fs::read_to_string(&out).unwrap();
    let heads = row(&first, "workload");
    for side in ["System", "theap", "classes 0-3", "classic"] {
        assert!(heads.contains(&side), "{heads:?}");
    }
    let superslabs: Vec<f64> = row(&first, "all-classes")[4..]
        .iter()
        .filter_map(|cell| cell.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(superslabs.len(), 3, "each configuration of theap: {first}");
    assert!(
        superslabs.iter().all(|&n| (25.0..200.0).contains(&n)),
        "{first}"
    );
    let svg = fs::read_to_string(directory.path().join("report/mid.svg")).unwrap();
    let chart = roxmltree::Document::parse(&svg).unwrap();
    let texts = chart.descendants().filter_map(|node| node.text());
    assert!(
        texts.filter(|text| text.contains("classic")).count() >= 3,
        "a bar a row"
    );

    fs::write(&out, first.clone() + "\nWhat it says: much.\n").unwrap();
    let output = evaluate(&out, "system-calls").assert().success();
    let second = fs::read_to_string(&out).unwrap();
    assert!(second.contains("\nWhat it says: much.\n") && second.contains("## System calls"));
    assert_eq!(
        row(&second, "all-classes"),
        row(&first, "all-classes"),
        "not measured again"
    );
    let calls = row(&second, "System calls 16-1024");
    let theap = heads.iter().position(|head| *head == "theap").unwrap();
    // A step of growth may come during the run.
    let count: f64 = calls[theap].parse().unwrap();
    assert!(count < 20.0, "hardly any in steady state: {calls:?}");
    let printed = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
    assert!(
        printed.contains("written: ") && printed.contains("| System calls"),
        "{printed}"
    );
}

#[test]
fn a_report_without_an_extension_is_refused_before_measuring() {
    let directory = tempfile::tempdir().unwrap();
    let output = evaluate(&directory.path().join("report"), "superslabs")
        .args(["--variant", "mine=/nowhere/theap"])
        .assert()
        .failure();
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("give the report an extension"), "{said}");
}

#[test]
fn a_variant_that_is_no_program_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let output = evaluate(&directory.path().join("report.md"), "superslabs")
        .args(["--variant", "mine=/nowhere/theap"])
        .assert()
        .failure();
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("under mine failed"), "{said}");
}
