//! `theap compare -- COMMAND` as a person or a script runs it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Runs `theap compare`, two rounds on small pages, with a cache of its own.
fn compare(cache: &TempDir, options: &[&str], command: &[&str]) -> Output {
    Command::new(assert_cmd::cargo::cargo_bin!("theap"))
        .args(["compare", "--rounds", "2", "--pages", "small"])
        .args(options)
        .arg("--")
        .args(command)
        .env("XDG_CACHE_HOME", cache.path())
        .env_remove("LD_PRELOAD")
        .output()
        .unwrap()
}

fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// Fails unless the comparison failed with this code and one line that says this, and no figures.
fn failed(output: &Output, code: i32, complaint: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(complaint), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(text(&output.stdout), "");
}

fn records(file: &Path) -> Vec<Value> {
    let figures: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    figures["records"].as_array().unwrap().clone()
}

fn median(records: &[Value], allocator: &str, metric: &str) -> f64 {
    let found = records
        .iter()
        .find(|record| record["allocator"] == allocator && record["metric"] == metric);
    found.unwrap()["median"].as_f64().unwrap()
}

/// The metrics of a command with their units, and the rounds in which each is measured.
const METRICS: [(&str, &str, usize); 10] = [
    ("wall_time", "ms", 2),
    ("cpu_time", "ms", 2),
    ("user_time", "ms", 2),
    ("system_time", "ms", 2),
    ("minor_faults", "faults", 2),
    ("major_faults", "faults", 2),
    ("peak_rss", "bytes", 2),
    ("thp_at_exit", "bytes", 2),
    ("hugetlb_at_exit", "bytes", 2),
    ("syscalls", "calls", 1),
];

#[test]
fn a_program_is_measured_on_both_sides() {
    let scratch = scratch();
    let input = scratch.path().join("lines");
    let lines: String = (0..100_000)
        .map(|n: u64| format!("{}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    fs::write(&input, lines).unwrap();
    let input = input.to_str().unwrap();
    let json = scratch.path().join("figures.json");
    let options = ["--syscalls", "--json", json.to_str().unwrap()];
    let output = compare(&scratch, &options, &["sort", input]);
    assert_eq!(text(&output.stderr), "", "a pipe gets no progress");
    assert_eq!(output.status.code(), Some(0));
    let table = text(&output.stdout);
    assert!(
        table.contains("theap small") && table.contains("counted by ptrace"),
        "{table}"
    );
    assert!(!table.contains("\n1844"), "sort's output is discarded");

    let records = records(&json);
    let mut expected = BTreeSet::new();
    for (allocator, pages) in [("system", "default"), ("theap", "small")] {
        expected.extend(METRICS.map(|(metric, unit, rounds)| {
            format!("sort {input}|{allocator}|{pages}|{metric}|{unit}|{rounds}")
        }));
    }
    let seen: BTreeSet<String> = records
        .iter()
        .map(|record| {
            let [workload, allocator, pages, metric, unit] =
                ["workload", "allocator", "pages", "metric", "unit"]
                    .map(|key| record[key].as_str().unwrap());
            let rounds = &record["rounds"];
            format!("{workload}|{allocator}|{pages}|{metric}|{unit}|{rounds}")
        })
        .collect();
    assert_eq!(seen, expected);
    for allocator in ["system", "theap"] {
        for metric in ["wall_time", "minor_faults", "peak_rss", "syscalls"] {
            assert!(
                median(&records, allocator, metric) > 0.0,
                "{allocator} {metric}"
            );
        }
        // sort reads its 2 MB of input into memory.
        assert!(median(&records, allocator, "peak_rss") > 2e6);
    }
}

/// Hugetlb pages of the host while the value lives; `None` if the test cannot have them. Other
/// tests that want them wait.
struct Hugepages {
    before: String,
    _lock: fs::File,
}

const POOL: &str = "/proc/sys/vm/nr_hugepages";

impl Hugepages {
    fn exactly(pages: usize) -> Option<Self> {
        let lock = fs::File::create(std::env::temp_dir().join("theap-hugetlb.lock")).unwrap();
        lock.lock().unwrap();
        let before = fs::read_to_string(POOL).unwrap_or_default();
        let pool = Self {
            before,
            _lock: lock,
        };
        let set = fs::write(POOL, pages.to_string()).is_ok()
            && fs::read_to_string(POOL).is_ok_and(|found| found.trim() == pages.to_string());
        if !set {
            eprintln!("skipped: {POOL} cannot be set to {pages}");
        }
        set.then_some(pool)
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        let _ = fs::write(POOL, &self.before);
    }
}

/// A program that touches as many MiB as its argument says, without transparent hugepages.
const TOUCH: &str = "#include <stdlib.h>\n#include <string.h>\n#include <sys/prctl.h>\n\
    int main(int n, char **v) { size_t m = (size_t)atoi(v[n - 1]) << 20;\n\
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); char *p = malloc(m); memset(p, 1, m); return p[m / 2] != 1; }\n";

#[test]
fn a_side_that_fell_back_to_small_pages_is_refused() {
    let scratch = scratch();
    let (source, program) = (scratch.path().join("touch.c"), scratch.path().join("touch"));
    fs::write(&source, TOUCH).unwrap();
    let built = Command::new("cc")
        .arg("-o")
        .args([&program, &source])
        .status();
    assert!(built.unwrap().success());
    let Some(_pool) = Hugepages::exactly(24) else {
        return;
    };
    let compare = |mebibytes: &str| {
        let run = || {
            Command::new(env!("CARGO_BIN_EXE_theap"))
                .args(["compare", "--rounds", "1", "--pages", "hugetlb", "--"])
                .arg(&program)
                .arg(mebibytes)
                .env("XDG_CACHE_HOME", scratch.path())
                .output()
                .unwrap()
        };
        // Another program on theap may hold pages of the pool for a moment.
        let mut output = run();
        for _ in 0..20 {
            if output.status.success() == (mebibytes == "20")
                && !text(&output.stderr).contains("cannot serve")
            {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
            output = run();
        }
        output
    };
    failed(&compare("80"), 1, "were not on hugetlb pages");
    let output = compare("20");
    assert_eq!(text(&output.stderr), "");
    assert!(text(&output.stdout).contains("theap hugetlb"));
}

#[test]
fn another_library_is_a_side_of_its_own() {
    let scratch = scratch();
    // A copy of theap's library stands for another allocator's.
    compare(&scratch, &[], &["true"]);
    let placed = fs::read_dir(scratch.path().join("theap")).unwrap().next();
    let copy = scratch.path().join("other.so");
    fs::copy(placed.unwrap().unwrap().path(), &copy).unwrap();
    let with = format!("--with=other={}", copy.display());
    let output = compare(&scratch, &[&with], &["sh", "-c", "true"]);
    let table = text(&output.stdout);
    assert!(table.contains(" other |"), "{table}");

    failed(
        &compare(&scratch, &[&with, &with], &["true"]),
        1,
        "two allocators named other",
    );
}

#[test]
fn a_library_that_is_no_allocator_is_found_out() {
    let scratch = scratch();
    let source = scratch.path().join("empty.c");
    let library = scratch.path().join("empty.so");
    fs::write(&source, "int nothing_of_malloc;\n").unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    assert!(built.unwrap().success());
    let with = format!("--with=empty={}", library.display());
    failed(
        &compare(&scratch, &[&with], &["true"]),
        1,
        "malloc is not the one of",
    );
    fs::write(&library, "not a library").unwrap();
    failed(
        &compare(&scratch, &[&with], &["true"]),
        1,
        "cannot be preloaded",
    );
}

#[test]
fn a_program_with_its_own_malloc_is_found_out() {
    let scratch = scratch();
    let source = scratch.path().join("own.c");
    let program = scratch.path().join("own");
    fs::write(
        &source,
        "void *malloc(unsigned long size) { static char b[1 << 20]; static unsigned long at; \
         at += (size + 15) & ~15ul; return b + at; }\nvoid free(void *p) { (void)p; }\nint main(void) { return 0; }\n",
    )
    .unwrap();
    let built = Command::new("cc")
        .args(["-fno-builtin", "-rdynamic", "-o"])
        .args([&program, &source])
        .status();
    assert!(built.unwrap().success());
    let output = compare(&scratch, &[], &[program.to_str().unwrap()]);
    failed(&output, 1, "own");
    assert!(text(&output.stderr).contains("malloc is not the one of"));
}

#[test]
fn a_command_must_end_alike_on_every_side() {
    let scratch = scratch();
    let output = compare(
        &scratch,
        &[],
        &["sh", "-c", "test -z \"$LD_PRELOAD\" || exit 7"],
    );
    failed(
        &output,
        1,
        "theap (small pages) failed (round 1): the command ended with exit status: 7",
    );

    let output = compare(&scratch, &[], &["sh", "-c", "exit 3"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        text(&output.stderr),
        "note: every run ended with exit status: 3\n"
    );
}

#[test]
fn a_run_that_leaves_the_library_counts_for_nothing() {
    let scratch = scratch();
    let script = "test -z \"$LD_PRELOAD\" || exec env -u LD_PRELOAD true; exec true";
    let output = compare(&scratch, &[], &["sh", "-c", script]);
    failed(&output, 1, "the run is another allocator's");
}

#[test]
fn only_the_first_output_is_shown_and_there_is_no_input() {
    let scratch = scratch();
    let output = compare(
        &scratch,
        &["--show-output"],
        &["sh", "-c", "echo shown; wc -c"],
    );
    let said = text(&output.stdout);
    assert_eq!(said.matches("shown\n").count(), 1, "{said}");
    assert!(said.starts_with("shown\n0\n"), "{said}");
}

#[test]
fn descendants_and_signals_are_part_of_a_run() {
    let scratch = scratch();
    let json = scratch.path().join("figures.json");
    let options = ["--syscalls", "--json", json.to_str().unwrap()];
    let script =
        "trap : USR1; kill -USR1 $$; head -c 30000000 /dev/zero | tail -c 30000000 >/dev/null";
    let output = compare(&scratch, &options, &["sh", "-c", script]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // tail keeps the lines that it may have to write.
    for allocator in ["system", "theap"] {
        let peak = median(&records(&json), allocator, "peak_rss");
        assert!((30e6..90e6).contains(&peak), "{allocator} {peak}");
    }
}

#[test]
fn what_cannot_be_compared_has_its_own_exit_code() {
    let scratch = scratch();
    failed(
        &compare(&scratch, &[], &["no-such"]),
        127,
        "command not found",
    );
    failed(&compare(&scratch, &[], &["/tmp"]), 126, "is a directory");
    failed(
        &compare(&scratch, &["--set", "pages=thp"], &["true"]),
        1,
        "use --pages to say which pages",
    );
    let output = compare(&scratch, &["--workload", "burst"], &["true"]);
    assert_eq!(output.status.code(), Some(2));
    let output = compare(&scratch, &["--ops", "5"], &["true"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn options_of_a_command_need_one() {
    for option in ["--syscalls", "--show-output", "--reserve=1M"] {
        let output = Command::new(assert_cmd::cargo::cargo_bin!("theap"))
            .args(["compare", option])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{option}");
    }
}
