//! A host made of files: a fit one, to be changed by each test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// The `/proc` and `/sys` of a fit host: one node, 16 GiB, 8 CPUs, a pool of 1024 pages.
const FIT: &[(&str, &str)] = &[
    (
        "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
        "1024",
    ),
    (
        "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
        "1000",
    ),
    (
        "/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages",
        "0",
    ),
    (
        "/sys/kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages",
        "0",
    ),
    (
        "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages",
        "0",
    ),
    (
        "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
        "0",
    ),
    (
        "/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages",
        "0",
    ),
    (
        "/sys/kernel/mm/hugepages/hugepages-1048576kB/resv_hugepages",
        "0",
    ),
    (
        "/sys/kernel/mm/hugepages/hugepages-1048576kB/surplus_hugepages",
        "0",
    ),
    (
        "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_overcommit_hugepages",
        "0",
    ),
    (
        "/sys/kernel/mm/hugepages/hugepages-1048576kB/demote_size",
        "2048kB",
    ),
    (
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "always [madvise] never",
    ),
    (
        "/sys/kernel/mm/transparent_hugepage/defrag",
        "always defer defer+madvise [madvise] never",
    ),
    (
        "/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none",
        "0",
    ),
    (
        "/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled",
        "always [inherit] madvise never",
    ),
    (
        "/proc/meminfo",
        "MemTotal: 16777216 kB\nMemFree: 7340032 kB\nMemAvailable: 8388608 kB\n\
                       CommitLimit: 8388608 kB\nCommitted_AS: 1048576 kB\nHugepagesize: 2048 kB",
    ),
    ("/proc/sys/vm/overcommit_memory", "0"),
    ("/proc/sys/vm/max_map_count", "65530"),
    ("/proc/sys/vm/zone_reclaim_mode", "0"),
    ("/proc/sys/kernel/numa_balancing", "0"),
    ("/proc/sys/kernel/osrelease", "6.8.0-31-generic"),
    ("/proc/sys/kernel/version", "#31-Ubuntu SMP PREEMPT_DYNAMIC"),
    (
        "/proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n\
                           Max data size             unlimited            unlimited            bytes     \n\
                           Max locked memory         unlimited            unlimited            bytes     \n\
                           Max address space         unlimited            unlimited            bytes     ",
    ),
    (
        "/proc/self/status",
        "Name:\ttheap\nCpus_allowed_list:\t0-7\nMems_allowed_list:\t0",
    ),
    ("/proc/self/cgroup", "0::/system.slice/service"),
    (
        "/proc/self/mountinfo",
        "23 1 0:21 / /sys rw - sysfs sysfs rw\n\
                              30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw",
    ),
    ("/sys/fs/cgroup/system.slice/service/memory.max", "max"),
    ("/sys/fs/cgroup/system.slice/service/memory.high", "max"),
    ("/sys/fs/cgroup/system.slice/service/hugetlb.2MB.max", "max"),
    ("/sys/fs/cgroup/system.slice/memory.max", "max"),
    ("/sys/devices/system/node/online", "0"),
    ("/sys/devices/system/node/node0/cpulist", "0-7"),
    ("/sys/devices/system/node/node0/distance", "10"),
    (
        "/sys/devices/system/node/node0/meminfo",
        "Node 0 MemTotal: 16777216 kB\nNode 0 MemFree: 7340032 kB",
    ),
    (
        "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
        "1024",
    ),
    (
        "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages",
        "1000",
    ),
    ("/sys/devices/system/cpu/online", "0-7"),
    ("/sys/devices/system/cpu/isolated", "4-7"),
    ("/sys/devices/system/cpu/nohz_full", "4-7"),
    (
        "/sys/devices/system/clocksource/clocksource0/current_clocksource",
        "tsc",
    ),
    (
        "/sys/devices/system/clocksource/clocksource0/available_clocksource",
        "tsc hpet acpi_pm",
    ),
];

/// A host's files.
pub struct Tree {
    directory: TempDir,
}

impl Tree {
    /// A host without any file.
    pub fn empty() -> Self {
        Tree {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// A host to which every check says good.
    pub fn fit() -> Self {
        Tree::empty().with(FIT)
    }

    /// A fit host with a second node of 16 GiB, CPUs 8 to 15 and 512 pages.
    pub fn two_nodes() -> Self {
        let pool = "/sys/devices/system/node/node1/hugepages/hugepages-2048kB";
        Tree::fit().with(&[
            ("/sys/devices/system/node/online", "0-1"),
            ("/sys/devices/system/node/node0/distance", "10 21"),
            ("/sys/devices/system/node/node1/distance", "21 10"),
            ("/sys/devices/system/node/node1/cpulist", "8-15"),
            (
                "/sys/devices/system/node/node1/meminfo",
                "Node 1 MemTotal: 16777216 kB\nNode 1 MemFree: 4194304 kB",
            ),
            (&format!("{pool}/nr_hugepages"), "512"),
            (&format!("{pool}/free_hugepages"), "512"),
            ("/sys/devices/system/cpu/online", "0-15"),
            (
                "/proc/self/status",
                "Cpus_allowed_list:\t0-15\nMems_allowed_list:\t0-1",
            ),
        ])
    }

    /// The paths of all files of a fit host.
    pub fn fit_paths() -> impl Iterator<Item = &'static str> {
        FIT.iter().map(|(path, _)| *path)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    /// Writes files, each with a line's end after its text as the kernel does.
    pub fn with(self, files: &[(&str, &str)]) -> Self {
        for (path, text) in files {
            self.put(path, format!("{text}\n").as_bytes());
        }
        self
    }

    /// Writes one file.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Removes files or whole directories.
    pub fn without(self, paths: &[&str]) -> Self {
        for path in paths.iter().map(|path| self.path(path)) {
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
        self
    }

    /// Puts a directory in the place of a file, so that reading it fails even for root.
    pub fn unreadable(self, path: &str) -> Self {
        let tree = self.without(&[path]);
        fs::create_dir(tree.path(path)).unwrap();
        tree
    }

    /// `theap doctor` for this host.
    pub fn doctor(&self) -> Command {
        doctor(self.directory.path())
    }

    /// The findings of `theap doctor --json` about this host.
    pub fn examine(&self) -> Report {
        Report::of(self.doctor())
    }
}

/// `theap doctor` for the host under `root`.
pub fn doctor(root: &Path) -> Command {
    let mut command = Command::cargo_bin("theap").expect("cargo built the program");
    command.arg("doctor").arg("--root").arg(root);
    command
}

/// A run's exit status and findings by id.
pub struct Report {
    /// Exit status.
    pub code: i32,
    /// Findings by id.
    pub findings: BTreeMap<String, Value>,
}

impl Report {
    /// Runs the command with `--json` and holds its answer to what every answer must be.
    pub fn of(mut command: Command) -> Report {
        let output = command.arg("--json").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let list: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let total = list.len();
        let subjects: BTreeSet<&str> = list.iter().filter_map(|f| f["subject"].as_str()).collect();
        assert_eq!(subjects.len(), total, "subjects are unique");
        let findings: BTreeMap<String, Value> = list
            .into_iter()
            .inspect(check_schema)
            .map(|finding| (finding["id"].as_str().unwrap().to_owned(), finding))
            .collect();
        assert_eq!(findings.len(), total, "ids are unique");
        let missing = findings.values().any(|f| f["verdict"] == "missing");
        let code = output.status.code().expect("it was not killed");
        assert_eq!(code, i32::from(missing));
        Report { code, findings }
    }

    /// A field of a finding, empty if null.
    pub fn get(&self, id: &str, field: &str) -> &str {
        self.findings[id][field].as_str().unwrap_or("")
    }

    /// Ids of all findings that are not good.
    pub fn not_good(&self) -> Vec<&str> {
        let not_good = self.findings.iter().filter(|(_, f)| f["verdict"] != "good");
        not_good.map(|(id, _)| id.as_str()).collect()
    }
}

fn check_schema(finding: &Value) {
    let object = finding.as_object().unwrap();
    let keys: Vec<&str> = object.keys().map(String::as_str).collect();
    let mut expected = ["id", "subject", "found", "verdict", "fix", "brings"];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    for key in ["id", "subject", "found", "verdict"] {
        assert!(!object[key].as_str().unwrap().is_empty(), "{finding}");
    }
    let remedy = match object["verdict"].as_str().unwrap() {
        "good" | "unknown" => false,
        "note" | "missing" => true,
        other => panic!("no verdict: {other}"),
    };
    for key in ["fix", "brings"] {
        let text = object[key].as_str();
        assert_eq!(
            text.is_some_and(|text| !text.is_empty()),
            remedy,
            "{finding}"
        );
        assert!(text.is_none_or(|text| !text.contains('\n')), "{finding}");
    }
}
