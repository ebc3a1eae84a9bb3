//! `theap compare` as a person or a script runs it.

use std::collections::BTreeSet;
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

fn theap() -> Command {
    Command::cargo_bin("theap").expect("cargo built the program")
}

/// Parameters small enough for a debug build.
const TINY: [&str; 10] = [
    "--ops",
    "20000",
    "--slots",
    "64",
    "--bytes",
    "2MiB",
    "--requests",
    "2000",
    "--rounds",
    "2",
];

/// The workloads that need no option of theap.
const ALL: &str = "first-touch,first-touch-warm,growth,growth-warm,pinned-service,pinned-service-warm,\
                   random-mixed,burst,larson,producer-consumer";

/// Parameters of a child as its parent passes them.
const BURST: &str = r#"{"ops":1000,"sizes":[64,64],"slots":8,"bytes":1,"growth_rate":0,"requests":1,"request_rate":1,"threads":1,"rounds":1,"seed":1,"cpus":[]}"#;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

#[test]
fn every_workload_reports_every_metric_for_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("figures.json");
    let output = theap()
        .args(["compare", "--quick", "--pages", "small", "--handover", "50"])
        .args(["--workload", ALL, "--growth-rate", "20MiB", "--json"])
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

    let figures: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
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
    for record in figures["records"].as_array().unwrap() {
        let object = record.as_object().unwrap();
        assert_eq!(
            object.keys().map(String::as_str).collect::<BTreeSet<_>>(),
            keys
        );
        let [min, median, max] = ["min", "median", "max"].map(|key| object[key].as_f64().unwrap());
        assert!(min <= median && median <= max, "{record}");
        assert_eq!(object["rounds"], 2);
        let named = ["workload", "allocator", "metric"].map(|key| object[key].as_str().unwrap());
        seen.insert(named.map(String::from));
    }
    let expected = expected_metrics();
    let odd: Vec<_> = seen.symmetric_difference(&expected).collect();
    assert!(odd.is_empty(), "{odd:?}");
    check_latencies(figures["latencies"].as_array().unwrap());
}

fn expected_metrics() -> BTreeSet<[String; 3]> {
    const COMMON: &[&str] = &["wall_time", "minor_faults", "major_faults", "peak_rss"];
    const THREAD: &[&str] = &[
        "involuntary_switches",
        "voluntary_switches",
        "thread_minor_faults",
        "thread_major_faults",
    ];
    let mut expected = BTreeSet::new();
    for allocator in ["system", "theap"] {
        for workload in ALL.split(',') {
            let (timed, more): (&[&str], &[&str]) = match workload {
                "first-touch" | "first-touch-warm" => {
                    (&["alloc_touch"], &["time_per_op", "cost_per_mib"])
                }
                "growth" | "growth-warm" => (&["alloc_touch", "idle"], THREAD),
                "random-mixed" => (&["alloc_touch"], &["time_per_op"]),
                "burst" | "larson" | "producer-consumer" => (&[], &["time_per_op"]),
                _ => (&["response", "service", "idle"], THREAD),
            };
            let quantiles = ["p50", "p90", "p99", "p99.9", "p99.99", "p99.999", "max"];
            let times = timed
                .iter()
                .flat_map(|what| quantiles.map(|quantile| format!("{what}_{quantile}")));
            let others = COMMON.iter().chain(more).map(|metric| metric.to_string());
            let metrics = times.chain(others);
            expected.extend(metrics.map(|metric| [workload.into(), allocator.into(), metric]));
            if workload.ends_with("-warm") && allocator == "theap" {
                expected.insert([workload, allocator, "preparation"].map(String::from));
            }
        }
    }
    expected
}

/// Every distribution counts the operations of both rounds, and its quantiles and curve rise.
fn check_latencies(latencies: &[Value]) {
    // On each side three workloads have one distribution each, growth and its twin have two each,
    // and pinned-service has three.
    assert_eq!(latencies.len(), 26);
    for latency in latencies {
        if latency["workload"] == "pinned-service" && latency["what"] != "idle" {
            assert_eq!(latency["count"], 4000, "{latency}");
        }
        let quantile = |name: &str| latency["quantiles"][name].as_u64().unwrap();
        let rising = ["p50", "p90", "p99", "p99.9", "p99.99", "p99.999", "max"].map(quantile);
        assert!(rising.is_sorted() && rising[0] > 0, "{latency}");
        let curve = latency["curve"].as_array().unwrap();
        assert_eq!(
            curve.last().unwrap()[1].as_u64(),
            latency["quantiles"]["max"].as_u64()
        );
    }
}

#[test]
fn the_page_is_well_formed_and_has_one_curve_a_side() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("page.html");
    let output = theap()
        .args(["compare", "--pages", "small,auto", "--growth-rate", "20MiB"])
        .args(["--workload", "first-touch,growth,pinned-service", "--html"])
        .arg(&file)
        .args(TINY)
        .output()
        .unwrap();
    assert_eq!(text(&output.stderr), "");
    let page = std::fs::read_to_string(&file).unwrap();
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    let page = roxmltree::Document::parse_with_options(&page, options).unwrap();
    let figures = |start: &str| -> Vec<_> {
        let all = page
            .descendants()
            .filter(|node| node.has_tag_name((HTML, "figure")));
        all.filter(|node| node.attribute("id").unwrap().starts_with(start))
            .collect()
    };
    let count = |figure: roxmltree::Node, tag: &str| {
        figure
            .descendants()
            .filter(|node| node.tag_name().name() == tag && coloured(*node))
            .count()
    };
    let latencies = figures("latency-");
    assert_eq!(latencies.len(), 6); // growth has two distributions, and pinned-service has three.
    for figure in latencies.into_iter().chain(figures("memory-")) {
        assert_eq!(count(figure, "polyline"), 3, "a side a curve");
        let texts = figure
            .descendants()
            .filter(|node| node.tag_name().name() == "text");
        assert!(texts.count() >= 6, "axes have labels");
    }
    assert_eq!(figures("memory-").len(), 2);
    assert_eq!(count(figures("faults")[0], "rect"), 9);
    assert_eq!(count(figures("fault-cost")[0], "rect"), 3);
    let outside = page
        .descendants()
        .flat_map(|node| node.attributes())
        .find(|attribute| matches!(attribute.name(), "href" | "src"));
    assert!(outside.is_none(), "the page loads nothing: {outside:?}");
}

const HTML: &str = "http://www.w3.org/1999/xhtml";

/// Whether an element of a chart belongs to a side, and not to the text or the grid.
fn coloured(node: roxmltree::Node) -> bool {
    ["fill", "stroke"].into_iter().any(|name| {
        let paint = node.attribute(name).unwrap_or("none");
        paint.starts_with('#') && paint != "#808080"
    })
}

#[test]
fn a_workload_about_an_option_that_is_not_there_cannot_be_asked_for() {
    let known = follows_growth();
    let output = theap()
        .args(["compare", "--workload", "growth-ahead", "--pages", "small"])
        .args(TINY)
        .output()
        .unwrap();
    assert_eq!(output.status.success(), known);
    assert!(
        known || text(&output.stderr).starts_with("error: growth-ahead cannot run: prefault takes")
    );
}

fn follows_growth() -> bool {
    let row = theap::OPTIONS
        .iter()
        .find(|row| row.name == "prefault")
        .unwrap();
    row.values.split(", ").any(|value| value == "ahead")
}

#[test]
fn an_argument_may_be_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory
        .path()
        .join(std::ffi::OsStr::from_bytes(b"page\xff.html"));
    let output = theap()
        .args([
            "compare",
            "--pages",
            "small",
            "--workload",
            "burst",
            "--html",
        ])
        .arg(&file)
        .args(TINY)
        .output()
        .unwrap();
    assert_eq!(text(&output.stderr), "");
    assert!(file.is_file());
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
            "first-touch, first-touch-warm, growth",
        ),
        (
            ["compare", "--pages", "enormous"],
            "possible values: auto, hugetlb, hugetlb-1g, thp, small",
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

/// Compares the workload burst on small pages, with one more option.
fn compare_burst(option: [&str; 2]) -> Output {
    theap()
        .args(["compare", "--workload", "burst", "--pages", "small"])
        .args(option)
        .args(TINY)
        .output()
        .unwrap()
}

#[test]
fn a_failing_child_fails_the_comparison_with_its_reason() {
    let output = compare_burst(["--pin", "1000000"]);
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
    let output = compare_burst(["--json", "/no-such-place/f.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/no-such-place/f.json"));
}

/// Runs the workload burst in a child of its own, without a comparison around it.
fn child(allocator: &str, options: &[&str]) -> Output {
    theap()
        .env("THEAP_PAGES", "small")
        .args(["child", "--allocator", allocator, "--workload", "burst"])
        .args(options)
        .output()
        .unwrap()
}

#[test]
fn a_child_answers_in_json_or_says_why_not() {
    let output = child("system", &["--params", BURST]);
    assert_eq!(text(&output.stderr), "");
    let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reply["metrics"][0]["metric"], "wall_time");

    let output = child("none", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no allocator named none"));
}

#[test]
fn a_run_on_other_pages_than_it_says_fails() {
    let output = child("theap", &["--pages", "thp", "--params", BURST]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("error: the run was not on thp pages alone"),
        "{said}"
    );
}
