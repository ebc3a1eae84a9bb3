//! Hosts with and without hugepages.

use super::tree::Tree;
use super::{NODE, expect, one};

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
const GIGANTIC: &str = "/sys/kernel/mm/hugepages/hugepages-1048576kB";
const THP: &str = "/sys/kernel/mm/transparent_hugepage";

#[test]
fn pools_of_hugepages() {
    let id = "hugetlb.pool";
    let pool = |name: &str| format!("{POOL}/{name}");
    let (nr, free, reserved) = (
        pool("nr_hugepages"),
        pool("free_hugepages"),
        pool("resv_hugepages"),
    );
    let found = "1024 (2 GiB), 1000 free";
    expect(Tree::fit(), id, "good", found, "");
    // A quarter of 8 GiB is 1024 pages.
    let dry = || Tree::fit().with(&[(&nr, "0"), (&free, "0")]);
    let none = "none in the pool";
    let report = expect(dry(), id, "missing", none, "sysctl -w vm.nr_hugepages=1024");
    assert_eq!((report.code, report.not_good()), (1, vec![id]));
    // The sysctl is about the default size only.
    let memory = "MemTotal: 16777216 kB\nMemFree: 8388608 kB\nHugepagesize: 1048576 kB";
    let tree = dry().with(&[("/proc/meminfo", memory)]);
    expect(tree, id, "missing", none, &format!("echo 1024 > {nr}"));
    // The pool is reported even where the memory cannot be read.
    let tree = dry().without(&["/proc/meminfo"]);
    expect(tree, id, "missing", none, &format!("echo 512 > {nr}"));

    let grown = "sysctl -w vm.nr_hugepages=2048";
    one(&free, "0", id, "missing", "1024 (2 GiB), 0 free", grown);
    one(
        &reserved,
        "1000",
        id,
        "missing",
        "1024 (2 GiB), 0 free",
        grown,
    );
    one(&free, "15", id, "note", "1024 (2 GiB), 15 free: one", grown);
    one(&reserved, "900", id, "good", "1024 (2 GiB), 100 free", "");
    let tree = dry().with(&[(&pool("nr_overcommit_hugepages"), "64")]);
    let on_demand = "0 (0 bytes), 0 free, up to 64 on demand";
    expect(tree, id, "note", on_demand, "sysctl");

    let tree = Tree::fit().without(&[
        "/sys/kernel/mm/hugepages",
        &format!("{NODE}/node0/hugepages"),
    ]);
    let report = expect(tree, id, "missing", "not supported", "boot a kernel with");
    assert_eq!(report.not_good(), [id]);
}

#[test]
fn pages_of_1_gib() {
    let id = "hugetlb.1g";
    let tree = |free| {
        Tree::fit().with(&[
            (&format!("{GIGANTIC}/nr_hugepages"), "4"),
            (&format!("{GIGANTIC}/free_hugepages"), free),
        ])
    };
    let demote = format!("echo 3 > {GIGANTIC}/demote");
    let report = expect(tree("3"), id, "note", "4, 3 free", &demote);
    assert_eq!(report.code, 0);
    let old = tree("3").without(&[&format!("{GIGANTIC}/demote_size")]);
    let release = format!("echo 1 > {GIGANTIC}/nr_hugepages");
    expect(old, id, "note", "4, 3 free", &release);
    expect(tree("0"), id, "good", "4, none free", "");
    expect(
        Tree::fit().without(&[GIGANTIC]),
        id,
        "good",
        "not supported",
        "",
    );
}

#[test]
fn transparent_hugepages() {
    let id = "thp.enabled";
    let enabled = format!("{THP}/enabled");
    let allow = format!("echo madvise > {enabled}");
    one(&enabled, "[always] madvise never", id, "good", "always", "");
    one(
        &enabled,
        "always madvise [never]",
        id,
        "note",
        "never",
        &allow,
    );
    let own = format!("{THP}/hugepages-2048kB/enabled");
    let allow_own = format!("echo madvise > {own}");
    one(
        &own,
        "always inherit madvise [never]",
        id,
        "note",
        "never",
        &allow_own,
    );
    let tree = Tree::fit()
        .with(&[(&enabled, "always madvise [never]")])
        .without(&[&format!("{THP}/hugepages-2048kB")]);
    expect(tree, id, "note", "never", &allow);

    // The host has neither a pool nor these pages: there is not one hugepage.
    let dry = |tree: Tree| tree.with(&[(&format!("{POOL}/free_hugepages"), "0")]);
    let tree = Tree::fit().with(&[(&enabled, "always madvise [never]")]);
    let report = expect(dry(tree), id, "missing", "never", &allow);
    assert_eq!(report.not_good(), ["hugetlb.pool", id]);
    let report = expect(
        Tree::fit().without(&[THP]),
        id,
        "note",
        "not supported",
        "boot a kernel",
    );
    assert_eq!(report.not_good(), [id]);
    let tree = dry(Tree::fit().without(&[THP]));
    expect(tree, id, "missing", "not supported", "boot a kernel");
}

#[test]
fn defrag_and_khugepaged() {
    let id = "thp.defrag";
    let path = format!("{THP}/defrag");
    let fix = format!("echo defer+madvise > {path}");
    for (text, verdict, found) in [
        (
            "[always] defer defer+madvise madvise never",
            "note",
            "always: every",
        ),
        (
            "always [defer] defer+madvise madvise never",
            "note",
            "defer: first",
        ),
        (
            "always defer [defer+madvise] madvise never",
            "good",
            "defer+madvise",
        ),
        (
            "always defer defer+madvise madvise [never]",
            "note",
            "never: nobody",
        ),
    ] {
        let fix = if verdict == "good" { "" } else { &fix };
        one(&path, text, id, verdict, found, fix);
    }
    let id = "thp.max_ptes_none";
    let path = format!("{THP}/khugepaged/max_ptes_none");
    let fix = format!("echo 64 > {path}");
    one(&path, "511", id, "note", "511: khugepaged bloats", &fix);
    one(&path, "64", id, "good", "64", "");
    let off = (format!("{THP}/enabled"), "always madvise [never]");
    let tree = Tree::fit().with(&[(&path, "511"), (&off.0, off.1)]);
    expect(tree, id, "good", "511, without effect", "");
}
