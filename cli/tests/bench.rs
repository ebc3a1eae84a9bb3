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

/// Fails unless the text is well-formed XML.
fn parsed(text: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    roxmltree::Document::parse_with_options(text, options).unwrap()
}

#[test]
fn rows_are_measured_under_the_preloaded_library() {
    let scratch = tempfile::tempdir().unwrap();
    let (json, html) = (scratch.path().join("j"), scratch.path().join("h"));
    let [json_option, html_option] = [&json, &html].map(|path| path.to_str().unwrap());
    let files = ["--json", json_option, "--html", html_option];
    let rows = ["--rows", "burst/100x64,btree,rss/floor"];
    let output = bench(&scratch, &[&rows[..], &files[..]].concat());
    assert!(output.status.success(), "{}", said(&output));

    let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
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
    assert_eq!(report["goals"].as_array().unwrap().len(), 18);
    assert_eq!(report["mode"], "preloaded");
    assert!(report["runs"][0]["date"].as_str().unwrap().ends_with('Z'));
    let entrants = report["entrants"].as_array().unwrap();
    let system = entrants.iter().find(|entrant| entrant["name"] == "system");
    let glibc = system.unwrap()["version"].as_str().unwrap();
    assert!(glibc.starts_with("glibc 2."), "{glibc}");

    let page = fs::read_to_string(&html).unwrap();
    let heads = parsed(&page);
    let heads = heads.descendants().filter(|node| node.has_tag_name("th"));
    let heads: Vec<_> = heads.filter_map(|node| node.text()).collect();
    assert!(heads.contains(&"to best") && heads.contains(&"rows that miss it"));
    assert!(page.contains("<svg") && page.contains("burst/100x64"));
    assert!(
        !page.contains("src=") && !page.contains("href="),
        "it loads nothing"
    );

    measured_again_and_shown(&scratch, json_option);
}

/// Measures more rows into the file of a report: the rows that the file has stay, others are added,
/// and a document gets all of them.
fn measured_again_and_shown(scratch: &TempDir, json: &str) {
    let before: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let rows = ["--rows", "btree,apart/1", "--json", json, "--resume"];
    let output = bench(scratch, &rows);
    assert!(output.status.success(), "{}", said(&output));
    let after: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let before = before["records"].as_array().unwrap();
    let after = after["records"].as_array().unwrap();
    assert!(before.len() < after.len() && before[..] == after[..before.len()]);

    let docs = scratch.path().join("docs.md");
    fs::write(&docs, "# Mine\n\nProse.\n").unwrap();
    let output = bench(scratch, &["--from", json, "--docs", docs.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    let text = fs::read_to_string(&docs).unwrap();
    assert!(text.starts_with("# Mine\n\nProse.\n"), "{text}");
    for wanted in [
        "<!-- suite: preloaded-goals -->",
        "| btree ",
        "| apart/1 ",
        "| processor ",
        "(docs/preloaded-hit-path.svg)",
    ] {
        assert!(text.contains(wanted), "no {wanted} in {text}");
    }
    let chart = scratch.path().join("docs/preloaded-memory.svg");
    let chart = fs::read_to_string(chart).unwrap();
    let chart = parsed(&chart);
    let texts: Vec<_> = chart
        .descendants()
        .filter_map(|node| node.text().map(str::trim))
        .collect();
    assert!(
        texts.contains(&"rss/floor") && texts.contains(&"system"),
        "{texts:?}"
    );

    fs::write(json, "{}").unwrap();
    let output = bench(scratch, &["--from", json]);
    assert!(said(&output).contains("is no report"), "{}", said(&output));
}

/// The call that gives memory back is the library's own, and only the rows of what is left have the
/// sides with the background thread.
#[test]
fn what_is_left_is_measured_on_every_side() {
    let scratch = tempfile::tempdir().unwrap();
    let json = scratch.path().join("j");
    let rows = ["--rows", "rss/sparse-trim,rss/floor"];
    // A peer that is no allocator gets no figure, and keeps those out that the host has.
    let with = ["--with", "none=/proc/self/exe", "--json"];
    let json_option = json.to_str().unwrap();
    let output = bench(&scratch, &[&rows[..], &with[..], &[json_option]].concat());
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    let records = report["records"].as_array().unwrap();
    let figures = |row: &str, metric: &str| -> Vec<(String, f64)> {
        let found = records
            .iter()
            .filter(|record| record["workload"] == row && record["metric"] == metric);
        let figure = |record: &Value| {
            let allocator = record["allocator"].as_str().unwrap();
            (allocator.to_owned(), record["median"].as_f64().unwrap())
        };
        found.map(figure).collect()
    };
    let trims = figures("rss/sparse-trim", "trims");
    assert_eq!(trims.len(), 6, "{trims:?}");
    assert!(trims.iter().all(|(_, trims)| *trims == 1.0), "{trims:?}");
    for (allocator, left) in figures("rss/sparse-trim", "rss_at_rest") {
        let mib = left / 1024.0 / 1024.0;
        assert!((2.0..600.0).contains(&mib), "{allocator}: {mib} MiB");
    }
    let peaks = figures("rss/floor", "peak_rss");
    let sides: Vec<_> = peaks.iter().map(|(allocator, _)| &**allocator).collect();
    assert_eq!(sides, ["theap", "theap-small", "system"]);
}

/// A library that loads, but does not provide malloc.
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
    assert!(said.contains("error: \"malloc\" comes from "), "{said}");
    assert!(
        said.contains(&format!(", not from {}", library.display())),
        "{said}"
    );
}

#[test]
fn documents_need_an_extension() {
    let scratch = tempfile::tempdir().unwrap();
    let docs = scratch.path().join("report");
    // The command would refuse the unknown row after this check.
    let output = bench(
        &scratch,
        &["--rows", "no-such", "--docs", docs.to_str().unwrap()],
    );
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.contains("give the report an extension"), "{said}");
}

#[test]
fn rows_that_are_not_there_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let output = bench(&scratch, &["--rows", "no-such"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no row's name contains no-such"));
}
