//! Hosts with other nodes, CPUs, clocks and kernels.

use super::tree::Tree;
use super::{NODE, expect, one};

const CPU: &str = "/sys/devices/system/cpu";
const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0";

#[test]
fn nodes() {
    let report = Tree::two_nodes().examine();
    let found = "node 0: 16 GiB, CPUs 0-7; node 1: 16 GiB, CPUs 8-15";
    assert_eq!(report.get("numa.nodes", "found"), found);
    let distances = "from node 0: 10 21; from node 1: 21 10";
    assert_eq!(report.get("numa.distances", "found"), distances);

    // A quarter of the 4 GiB that are free on node 1.
    let pool = format!("{NODE}/node1/hugepages/hugepages-2048kB");
    let tree = Tree::two_nodes().with(&[(&format!("{pool}/free_hugepages"), "0")]);
    let found = "node 0: 1024, 1000 free; node 1: 512, 0 free";
    let fix = format!("echo 1024 > {pool}/nr_hugepages");
    let report = expect(tree, "hugetlb.nodes", "missing", found, &fix);
    assert_eq!(report.not_good(), ["hugetlb.nodes"]);
    let tree = Tree::two_nodes().without(&[&format!("{NODE}/node0/hugepages")]);
    expect(tree, "hugetlb.nodes", "good", "no pools by node", "");
}

#[test]
fn nodes_without_memory_or_cpus() {
    let pool = format!("{NODE}/node1/hugepages/hugepages-2048kB");
    // Node 1 has no memory: the threads of its CPUs live elsewhere, and nobody asks for its pool.
    let bare = (
        "/sys/devices/system/node/node1/meminfo",
        "Node 1 MemTotal: 0 kB\nNode 1 MemFree: 0 kB",
    );
    let tree = Tree::two_nodes().with(&[bare, (&format!("{pool}/free_hugepages"), "0")]);
    let found = "node 0: 16 GiB, CPUs 0-7; node 1: no memory, CPUs 8-15";
    let report = expect(
        tree,
        "numa.nodes",
        "note",
        found,
        "pin to CPUs of other nodes than 1",
    );
    assert_eq!(report.not_good(), ["numa.nodes"]);
    // Node 1 has no CPUs: its memory is for all.
    let tree = Tree::two_nodes().with(&[(&format!("{NODE}/node1/cpulist"), "")]);
    let found = "node 0: 16 GiB, CPUs 0-7; node 1: 16 GiB, no CPUs";
    expect(tree, "numa.nodes", "good", found, "");
    let tree = Tree::fit().without(&[NODE]);
    expect(
        tree,
        "numa.nodes",
        "good",
        "one node (a kernel without NUMA)",
        "",
    );
}

#[test]
fn between_nodes() {
    let tree = Tree::two_nodes().with(&[("/proc/self/status", "Mems_allowed_list:\t1")]);
    expect(
        tree,
        "numa.allowed",
        "note",
        "of nodes 1",
        "put 0-1 into cpuset.mems",
    );
    let tree = Tree::two_nodes().with(&[("/sys/devices/system/node/node1/distance", "21")]);
    expect(
        tree,
        "numa.distances",
        "unknown",
        "/sys/devices/system/node/node1/distance has",
        "",
    );
    for (path, name, id) in [
        (
            "/proc/sys/kernel/numa_balancing",
            "kernel.numa_balancing",
            "numa.balancing",
        ),
        (
            "/proc/sys/vm/zone_reclaim_mode",
            "vm.zone_reclaim_mode",
            "numa.zone_reclaim",
        ),
    ] {
        let fix = format!("sysctl -w {name}=0");
        expect(
            Tree::two_nodes().with(&[(path, "1")]),
            id,
            "note",
            "on (1)",
            &fix,
        );
        expect(
            Tree::two_nodes().without(&[path]),
            id,
            "good",
            "not supported",
            "",
        );
        one(path, "1", id, "good", "one node", "");
    }
}

#[test]
fn cpus() {
    let status = |list: &str| format!("Cpus_allowed_list:\t{list}\nMems_allowed_list:\t0");
    // The mask names CPUs that are not there.
    for (list, found) in [
        ("0-63", "8: 0-7 (of 8 online)"),
        ("2,4-5", "3: 2,4-5 (of 8 online)"),
    ] {
        one(
            "/proc/self/status",
            &status(list),
            "cpu.allowed",
            "good",
            found,
            "",
        );
    }

    let isolated = format!("{CPU}/isolated");
    let fix = "kernel command line: isolcpus=managed_irq,domain,4-7";
    one(&isolated, "", "cpu.isolated", "note", "none", fix);
    let tree = Tree::fit().without(&[&isolated]);
    expect(tree, "cpu.isolated", "note", "none", fix);
    one(&isolated, "5", "cpu.isolated", "good", "1: 5", "");

    let (id, nohz_full) = ("cpu.nohz_full", format!("{CPU}/nohz_full"));
    let fix = "kernel command line: nohz_full=4-7 rcu_nocbs=4-7";
    one(&nohz_full, "(null)", id, "note", "none", fix);
    one(&nohz_full, "", id, "note", "none", fix);
    one(
        &nohz_full,
        "4-6",
        id,
        "note",
        "3: 4-6, not on all isolated CPUs",
        fix,
    );
    let tree = Tree::fit().without(&[&nohz_full]);
    let fix = "kernel with CONFIG_NO_HZ_FULL=y and command line: nohz_full=4-7";
    expect(tree, id, "note", "not supported", fix);

    let alone = [
        (format!("{CPU}/online"), "0"),
        (isolated, ""),
        (nohz_full, ""),
    ];
    let alone = alone.each_ref().map(|(path, text)| (path.as_str(), *text));
    let report = expect(Tree::fit().with(&alone), id, "good", "one CPU", "");
    assert_eq!(
        report.get("cpu.isolated", "found"),
        "one CPU: nothing to keep free"
    );
}

#[test]
fn clock_sources() {
    let (id, current) = ("timer.clocksource", format!("{CLOCK}/current_clocksource"));
    let fix = format!("echo tsc > {current}");
    one(&current, "hpet", id, "note", "hpet", &fix);
    let available = format!("{CLOCK}/available_clocksource");
    let tree = Tree::fit().with(&[(&current, "acpi_pm"), (&available, "hpet acpi_pm")]);
    expect(
        tree,
        id,
        "note",
        "acpi_pm",
        "kernel command line: tsc=reliable",
    );
}

#[test]
fn releases() {
    let (mremap, populate) = ("kernel.move_hugetlb", "kernel.populate");
    let (locked, dont_unmap) = ("kernel.purge_locked", "kernel.move_pages");
    for (release, lacking) in [
        ("6.8.0-31-generic", &[][..]),
        ("5.18", &[]),
        ("5.17.15", &[locked]),
        ("5.15.0-1-amd64", &[mremap, locked]),
        ("5.10.0", &[mremap, populate, locked]),
        ("4.19.3", &[mremap, dont_unmap, populate, locked]),
        ("10.0", &[]),
    ] {
        let tree = Tree::fit().with(&[("/proc/sys/kernel/osrelease", release)]);
        let report = tree.examine();
        let mut lacking = lacking.to_vec();
        lacking.sort_unstable();
        assert_eq!(report.not_good(), lacking, "{release}");
        let missing = lacking.contains(&mremap) || lacking.contains(&populate);
        assert_eq!(report.code, i32::from(missing), "{release}");
    }
    let tree = Tree::fit().with(&[("/proc/sys/kernel/osrelease", "5.13.19")]);
    let found = "since Linux 5.14, this is 5.13";
    expect(tree, populate, "missing", found, "boot Linux 5.14 or later");
    let tree = Tree::fit().with(&[("/proc/sys/kernel/osrelease", "Linux")]);
    let found = "/proc/sys/kernel/osrelease has \"Linux\" for a release";
    expect(tree, populate, "unknown", found, "");
    let tree = Tree::fit().without(&["/proc/sys/kernel/version"]);
    expect(tree, "kernel.release", "good", "6.8.0-31-generic", "");
}
