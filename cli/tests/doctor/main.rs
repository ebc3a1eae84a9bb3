//! `theap doctor` on hosts made of files, and on the one that the tests run on.

mod hugepages;
mod limits;
mod machine;
mod tree;

use std::path::Path;

use tree::{Report, Tree, doctor};

const NODE: &str = "/sys/devices/system/node";

/// Asserts the verdict of one finding, and the beginnings of its text and of its remedy.
#[track_caller]
fn expect(tree: Tree, id: &str, verdict: &str, found: &str, fix: &str) -> Report {
    let report = tree.examine();
    let [v, f, x] = ["verdict", "found", "fix"].map(|field| report.get(id, field));
    assert!(
        v == verdict
            && f.starts_with(found)
            && x.starts_with(fix)
            && x.is_empty() == fix.is_empty(),
        "{id} is {v}: {f:?}, {x:?}"
    );
    report
}

/// [`expect`] for a fit host with one file changed, which must leave all other findings good.
#[track_caller]
fn one(path: &str, text: &str, id: &str, verdict: &str, found: &str, fix: &str) {
    let report = expect(Tree::fit().with(&[(path, text)]), id, verdict, found, fix);
    let others = if verdict == "good" { vec![] } else { vec![id] };
    assert_eq!(report.not_good(), others);
}

#[test]
fn a_fit_host_is_fit() {
    for tree in [Tree::fit(), Tree::two_nodes()] {
        let report = tree.examine();
        assert_eq!(report.not_good(), Vec::<&str>::new());
        assert_eq!(report.code, 0);
    }
}

#[test]
fn what_cannot_be_read_is_unknown_and_names_the_file() {
    let memory = "/proc/meminfo";
    let report = Tree::fit().unreadable(memory).examine();
    let unknown = ["cgroup.memory", "memory.available", "memory.max_map_count"];
    assert_eq!(report.not_good(), unknown);
    assert_eq!(report.code, 0);
    for id in unknown {
        assert_eq!(report.get(id, "verdict"), "unknown");
        assert!(
            report
                .get(id, "found")
                .starts_with("cannot read /proc/meminfo: ")
        );
    }
    let report = Tree::empty().examine();
    assert_eq!(report.get("hugetlb.pool", "verdict"), "missing");
    assert_eq!(report.get("thp.enabled", "verdict"), "missing");
    assert_eq!(report.get("limits.as", "verdict"), "unknown");
}

#[test]
fn no_file_can_make_it_fail() {
    let fit = Tree::fit().examine();
    let broken: [&[u8]; 8] = [
        b"",
        b"\n",
        b"nonsense",
        b"-1",
        b"18446744073709551615 kB",
        b"99999999999999999999",
        b"0-4294967295,:-[]:,/",
        b"MemTotal: \xff\xfe:\0::\n:::\n[]",
    ];
    for path in Tree::fit_paths() {
        // Report::of holds every run to the form and the exit status.
        let same = |tree: &Tree| assert!(tree.examine().findings.keys().eq(fit.findings.keys()));
        let tree = Tree::fit();
        for bytes in broken {
            tree.put(path, bytes);
            same(&tree);
        }
        let tree = tree.unreadable(path);
        same(&tree);
        same(&tree.without(&[path]));
    }
}

#[test]
fn the_page_for_people() {
    let report = Tree::two_nodes().with(&[("/proc/sys/vm/max_map_count", "9")]);
    let output = report.doctor().output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(!page.contains('\x1b'), "a pipe gets no colour");
    let total = report.examine().findings.len();
    let summary = format!(
        "This host is fit for theap: 0 missing, 1 to note, 0 unknown, {} good.",
        total - 1
    );
    assert_eq!(page.lines().last(), Some(summary.as_str()));
    // Subjects and findings stand in columns; a long list has one line for each part.
    let lines: Vec<&str> = page.lines().collect();
    let column = |text: &str| {
        let line = lines.iter().find(|line| line.contains(text));
        line.and_then(|line| line.find(text)).expect(text)
    };
    assert_eq!(
        column("node 0: 16 GiB, CPUs 0-7"),
        column("9 for a process")
    );
    let second = lines.iter().find(|line| line.contains("node 1: 16 GiB"));
    assert!(second.unwrap().trim_start().starts_with("node 1"));
    // A shortcoming has one line that says what to type and what it brings.
    let shortcoming = lines.iter().position(|line| line.starts_with("  note "));
    let remedy = "           sysctl -w vm.max_map_count=65530  # a heap on hugetlb pages may fill the memory";
    assert_eq!(lines[shortcoming.unwrap() + 1], remedy);

    let coloured = report.doctor().env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(coloured.stdout.contains(&b'\x1b'));
    let json = report
        .doctor()
        .env("CLICOLOR_FORCE", "1")
        .arg("--json")
        .output();
    assert!(!json.unwrap().stdout.contains(&b'\x1b'));
}

#[test]
fn this_host() {
    let report = Report::of(doctor(Path::new("/")));
    assert!(
        report
            .findings
            .keys()
            .eq(Tree::fit().examine().findings.keys())
    );
    let release = report.get("kernel.release", "verdict");
    assert_eq!(release, "good", "every Linux has a release");
    // The host may change between two runs: each is held to itself.
    let page = doctor(Path::new("/")).output().unwrap();
    let fit = String::from_utf8_lossy(&page.stdout).contains("This host is fit for theap");
    assert_eq!(page.status.code(), Some(i32::from(!fit)));
}

#[test]
fn every_check_is_documented() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tools.md");
    let text = std::fs::read_to_string(docs).unwrap();
    for id in Tree::fit().examine().findings.keys() {
        assert!(
            text.contains(&format!("\n| `{id}` |")),
            "{id} is not in docs/tools.md"
        );
    }
}
