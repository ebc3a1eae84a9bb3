//! Hosts that bound what a process may have.

use super::tree::Tree;
use super::{expect, one};

const GROUP: &str = "/sys/fs/cgroup/system.slice/service";

#[test]
fn overcommit_and_mappings() {
    let (id, path) = ("memory.overcommit", "/proc/sys/vm/overcommit_memory");
    let fix = "sysctl -w vm.overcommit_memory=0";
    one(path, "1", id, "good", "1 (always)", "");
    one(path, "2", id, "note", "2 (never), 7 GiB left", fix);
    one(
        path,
        "3",
        id,
        "unknown",
        "/proc/sys/vm/overcommit_memory has 3",
        "",
    );
    // The values are less than a quarter of the memory, and less than nothing.
    for (limit, found) in [
        ("5242879", "2 (never), 4.0 GiB left"),
        ("9", "2 (never), 0 bytes left"),
    ] {
        let memory = format!(
            "MemTotal: 16777216 kB\nMemAvailable: 9 kB\nCommitLimit: {limit} kB\nCommitted_AS: 1048576 kB"
        );
        let tree = Tree::fit().with(&[(path, "2"), ("/proc/meminfo", &memory)]);
        expect(tree, id, "missing", found, fix);
    }

    let (id, path) = ("memory.max_map_count", "/proc/sys/vm/max_map_count");
    let fix = "sysctl -w vm.max_map_count=65530";
    one(path, "1024", id, "note", "1024 for a process", fix);
    // 1 TiB takes 524288 pages of 2 MiB.
    let large = "MemTotal: 1073741824 kB\nMemAvailable: 1073741824 kB";
    let tree = Tree::fit().with(&[("/proc/meminfo", large)]);
    let fix = "sysctl -w vm.max_map_count=524288";
    expect(tree, id, "note", "65530 for a process", fix);
}

#[test]
fn limits_of_the_process() {
    let limits = |addresses: &str, data: &str, locked: &str| {
        Tree::fit().with(&[(
            "/proc/self/limits",
            &format!(
                "Limit Soft Limit Hard Limit Units\nMax data size {data} bytes\n\
                 Max locked memory {locked} bytes\nMax address space {addresses} bytes"
            ),
        )])
    };
    let none = "unlimited unlimited";
    let soft = |bytes: u64| format!("{bytes} unlimited");
    let hard = |bytes: u64| format!("{bytes} {bytes}");
    let tree = limits(&soft(16 << 30), none, none);
    let report = expect(tree, "limits.as", "note", "16 GiB", "ulimit -v unlimited");
    assert_eq!(report.not_good(), ["limits.as"]);
    let tree = limits(&hard(16 << 30), none, none);
    let lift = "prlimit --pid $$ --as=unlimited";
    expect(tree, "limits.as", "note", "16 GiB", lift);
    let tree = limits(&soft(7 << 20), none, none);
    expect(
        tree,
        "limits.as",
        "missing",
        "7 MiB: theap needs 8 MiB",
        "ulimit",
    );
    let tree = limits(none, &soft(1 << 30), none);
    expect(tree, "limits.data", "note", "1 GiB", "ulimit -d unlimited");
    let tree = limits(none, none, &hard(8 << 20));
    let lift = "prlimit --pid $$ --memlock=unlimited";
    let report = expect(tree, "limits.memlock", "note", "8 MiB", lift);
    assert_eq!(report.not_good(), ["limits.memlock"]);
    let tree = limits("x 1", "1", "");
    let report = expect(tree, "limits.as", "unknown", "/proc/self/limits has", "");
    assert_eq!(
        report.not_good(),
        ["limits.as", "limits.data", "limits.memlock"]
    );
    assert_eq!(report.code, 0);
}

#[test]
fn control_groups_of_version_2() {
    let memory = format!("{GROUP}/memory.max");
    let lift = format!("echo max > {memory}");
    let gib = "1073741824";
    one(
        &memory,
        gib,
        "cgroup.memory",
        "note",
        "1 GiB of the host's 16 GiB",
        &lift,
    );
    // A limit beyond the memory counts as none.
    one(
        &memory,
        "68719476736",
        "cgroup.memory",
        "good",
        "no limit",
        "",
    );
    // The tightest limit counts, wherever it is.
    let above = "/sys/fs/cgroup/system.slice/memory.max";
    let tree = Tree::fit().with(&[(&memory, gib), (above, "536870912")]);
    let lift = format!("echo max > {above}");
    expect(tree, "cgroup.memory", "note", "512 MiB of", &lift);
    let high = format!("{GROUP}/memory.high");
    let lift = format!("echo max > {high}");
    one(
        &high,
        gib,
        "cgroup.memory_high",
        "note",
        "above 1 GiB",
        &lift,
    );

    let id = "cgroup.hugetlb";
    let pages = format!("{GROUP}/hugetlb.2MB.max");
    let lift = format!("echo max > {pages}");
    one(&pages, "0", id, "missing", "none allowed", &lift);
    one(&pages, "1048576", id, "missing", "none allowed", &lift);
    one(
        &pages,
        gib,
        id,
        "note",
        "512 (1 GiB) of the pool's 1024",
        &lift,
    );
    one(&pages, "4294967296", id, "good", "2048 (4 GiB)", "");
    let reserved = format!("{GROUP}/hugetlb.2MB.rsvd.max");
    let lift = format!("echo max > {reserved}");
    one(&reserved, "0", id, "missing", "none allowed", &lift);
}

#[test]
fn control_groups_of_version_1_and_of_containers() {
    let mounts = |root: &str| {
        format!(
            "31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             32 30 0:28 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             33 30 0:29 {root} /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb"
        )
    };
    let unlimited = "9223372036854771712";
    let first = |group: &str, root: &str, directory: &str| {
        Tree::fit().with(&[
            (
                "/proc/self/cgroup",
                &format!("4:memory:{group}\n3:hugetlb:{group}\n1:name=systemd:/\n0::/"),
            ),
            ("/proc/self/mountinfo", &mounts(root)),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", unlimited),
            (
                &format!("/sys/fs/cgroup/memory{directory}/memory.limit_in_bytes"),
                "1073741824",
            ),
            (
                &format!("/sys/fs/cgroup/hugetlb{directory}/hugetlb.2MB.limit_in_bytes"),
                "0",
            ),
        ])
    };
    // The paths are those that the host has, those in a container whose group is the mount's root,
    // and those of a container that does not see the mount's root from its own group.
    for (group, root, directory) in [
        ("/docker/abc", "/", "/docker/abc"),
        ("/docker/abc", "/docker/abc", ""),
        ("/", "/../..", ""),
        ("/../other", "/", ""),
    ] {
        let memory = format!("/sys/fs/cgroup/memory{directory}/memory.limit_in_bytes");
        let lift = format!("echo -1 > {memory}");
        let tree = first(group, root, directory);
        let report = expect(tree, "cgroup.memory", "note", "1 GiB of", &lift);
        assert_eq!(report.get("cgroup.hugetlb", "verdict"), "missing");
        assert_eq!(report.get("cgroup.memory_high", "verdict"), "good");
    }
    let tree =
        first("/", "/", "").with(&[("/sys/fs/cgroup/memory/memory.limit_in_bytes", unlimited)]);
    expect(tree, "cgroup.memory", "good", "no limit", "");

    let unmounted = |group: &str| {
        Tree::fit().with(&[("/proc/self/cgroup", &format!("4:memory:{group}\n0::/"))])
    };
    expect(unmounted("/"), "cgroup.memory", "good", "no limit", "");
    let found = "the memory controller's group /a is not mounted here";
    expect(unmounted("/a"), "cgroup.memory", "unknown", found, "");
    let tree = Tree::fit().without(&["/proc/self/cgroup"]);
    expect(tree, "cgroup.memory", "good", "no limit", "");
}
