//! `theap bench` as a person or a script runs it.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// One quick round.
fn bench(scratch: &TempDir, options: &[&str]) -> Output {
    Command::new(assert_cmd::cargo::cargo_bin!("theap"))
        .args(["bench", "--quick", "--rounds", "1"])
        .args(options)
        .env("XDG_CACHE_HOME", scratch.path())
        .env_remove("LD_PRELOAD")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn rows_are_measured_under_the_preloaded_library() {
    let scratch = tempfile::tempdir().unwrap();
    let (json, html) = (scratch.path().join("j"), scratch.path().join("h"));
    let files = [
        "--json",
        json.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
    ];
    let rows = ["--rows", "burst/100x64,btree,rss/floor"];
    let output = bench(&scratch, &[&rows[..], &files[..]].concat());
    assert!(output.status.success(), "{}", said(&output));

    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let verdicts = report["verdicts"].as_array().unwrap();
    let rows: Vec<_> = verdicts
        .iter()
        .map(|verdict| verdict["row"].as_str().unwrap())
        .collect();
    assert_eq!(rows, ["burst/100x64", "btree", "rss/floor"]);
    assert!(
        verdicts
            .iter()
            .all(|verdict| verdict["to_best"].as_f64().unwrap() > 0.0)
    );
    assert_eq!(report["failures"].as_array().unwrap().len(), 0);

    let page = fs::read_to_string(html).unwrap();
    roxmltree::Document::parse_with_options(
        &page,
        roxmltree::ParsingOptions {
            allow_dtd: true,
            ..Default::default()
        },
    )
    .unwrap();
    assert!(page.contains("<svg") && page.contains("burst/100x64"));
}

/// A library that loads, but is not where malloc comes from.
#[test]
fn a_library_without_malloc_gets_no_figure() {
    let scratch = tempfile::tempdir().unwrap();
    let source = scratch.path().join("a.c");
    let library = scratch.path().join("liba.so");
    fs::write(&source, "int a;\n").unwrap();
    let compiler = Command::new("cc")
        .args(["-shared", "-o"])
        .args([&library, &source])
        .status();
    assert!(compiler.unwrap().success());
    let with = format!("a={}", library.display());
    let output = bench(&scratch, &["--rows", "rss/floor", "--with", &with]);
    let said = said(&output);
    assert!(said.contains("no figure of a on rss/floor"), "{said}");
    assert!(said.contains("\"malloc\" is not the one of"), "{said}");
}

#[test]
fn rows_that_are_not_there_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let output = bench(&scratch, &["--rows", "no-such"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no row's name contains no-such"));
}
