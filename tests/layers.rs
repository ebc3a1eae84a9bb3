//! Rules that hold for the source as a whole. A crate depends only on crates below it, and a room
//! of `src/` names only rooms below it. No rooms of a crate name each other in a circle. Nothing in
//! `src/` is written for one machine or asks the operating system itself. `docs/operations.md`
//! lists every option, counter and figure as the code has it.

mod rooms;
mod source;

use rooms::{Crate, circles, upward};
use serde_json::Value;
use source::{files, root};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use theap::{COUNTERS, ClassStats, HeapStats, OPTIONS, Resident, Stats};

/// The packages of the workspace, from the lowest floor to the highest. A package depends only on
/// packages of lower floors.
const PACKAGES: &[&[&str]] = &[
    &["theap-arch", "theap-platform"],
    &["theap"],
    &["theap-preload", "theap-bench"],
    &["theap-cli"],
];

/// The rooms of `src/`, from the lowest floor to the highest. A room names rooms of its own floor
/// and of those below it. `pool` stands for the files in that directory that compose its rooms.
const FLOORS: &[&[&str]] = &[
    &["sync", "geometry", "choices", "contract"],
    &["classes", "messages"],
    &["gate"],
    &["config", "stats"],
    &["pool::policy", "pool::heap_lock", "pool::scan"],
    &["pool::figures", "pool::addresses"],
    &["pool::affinity"],
    &["pool::metadata"],
    &["pool::ground", "pool::supers"],
    &["pool::pages"],
    &["pool::spans", "pool::heaps"],
    &["pool::reclaim"],
    &["pool::warmer"],
    &["pool::node"],
    &["pool::runs"],
    &["pool"],
    &["heap"],
    &["front"],
    &["crash", "placement", "residence"],
    &["process"],
    &["api", "hot"],
    &["lib"],
];

/// The files that belong to no target, because tests compile them.
const COMPILED_APART: [&str; 1] = ["arch/tests/probe/library.rs"];

/// Words that may stand in `arch/` and `platform/` only.
const NOT_HERE: [&str; 5] = ["asm!", "core::arch", "std::arch", "rustix", "libc"];

/// The text of a source file without its comments.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let code = text.lines().map(|line| line.split("//").next().unwrap());
    code.collect::<Vec<_>>().join("\n")
}

/// The workspace's packages, as cargo describes them.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

/// The root files of a package's libraries, programs, tests and the like. The flag tells whether
/// the file is for tests only.
fn targets(package: &Value) -> Vec<(PathBuf, bool)> {
    let targets = package["targets"].as_array().unwrap().iter();
    targets
        .map(|target| {
            let kind = target["kind"][0].as_str().unwrap();
            let tests = ["test", "bench", "example", "custom-build"].contains(&kind);
            (PathBuf::from(text(target, "src_path")), tests)
        })
        .collect()
}

/// The packages of the workspace on which a package depends, for any purpose.
fn dependencies(package: &Value) -> Vec<&str> {
    let list = package["dependencies"].as_array().unwrap().iter();
    list.filter(|one| !one["path"].is_null())
        .map(|one| text(one, "name"))
        .collect()
}

#[test]
fn a_package_depends_only_on_those_below_it() {
    let floor = |name: &str| {
        let floor = PACKAGES.iter().position(|names| names.contains(&name));
        floor.unwrap_or_else(|| panic!("{name} has no floor: add it to PACKAGES"))
    };
    for package in packages() {
        let name = text(&package, "name");
        for other in dependencies(&package) {
            assert!(floor(other) < floor(name), "{name} depends on {other}");
        }
    }
}

#[test]
fn rooms_of_src_name_only_those_below_them() {
    let graph = Crate::read(root(), &root().join("src/lib.rs")).graph(&FLOORS.concat());
    let problems = upward(&graph, FLOORS);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn no_rooms_name_each_other_in_a_circle() {
    let mut problems = Vec::new();
    for package in packages() {
        for (file, _) in targets(&package).iter().filter(|(_, tests)| !tests) {
            let known = match text(&package, "name") {
                "theap" => FLOORS.concat(),
                _ => Vec::new(),
            };
            let graph = Crate::read(root(), file).graph(&known);
            let found = circles(&graph).into_iter();
            problems.extend(found.map(|circle| format!("{}: {circle}", file.display())));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_file_is_a_module_of_some_target() {
    let mut missed = Vec::new();
    for package in packages() {
        let reached: BTreeSet<_> = targets(&package)
            .iter()
            .flat_map(|(file, _)| Crate::read(Path::new(""), file).files())
            .collect();
        let directory = Path::new(text(&package, "manifest_path")).parent().unwrap();
        // A directory with a manifest is another package.
        let own = |directory: &Path| !directory.join("Cargo.toml").exists();
        missed.extend(
            files(directory, &["rs"], &own)
                .into_iter()
                .filter(|file| !reached.contains(file)),
        );
    }
    assert_eq!(missed, COMPILED_APART.map(|file| root().join(file)));
}

#[test]
fn machine_and_system_are_left_to_their_crates() {
    let files = files(&root().join("src"), &["rs"], &|_| true);
    assert!(!files.is_empty());
    for file in files {
        let code = code(&file);
        for word in NOT_HERE {
            assert!(!code.contains(word), "{} has {word}", file.display());
        }
    }
}

/// Asserts that the document has this row; on failure the message has the row to paste.
fn has_row(document: &str, cells: &[&str]) {
    let row = format!("| {} |", cells.join(" | "));
    assert!(
        document.lines().any(|line| line == row),
        "docs/operations.md lacks\n{row}"
    );
}

#[test]
fn operations_are_documented() {
    let document = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    for row in OPTIONS {
        let [name, variable, default] =
            [row.name, row.variable, row.default].map(|code| format!("`{code}`"));
        has_row(
            &document,
            &[&name, &variable, &default, row.values, row.doc],
        );
    }
    for (name, meaning) in COUNTERS {
        has_row(&document, &[&format!("`{name}`"), meaning.trim()]);
    }
    let fields = |shown: String| {
        let (_, shown) = shown.split_once(" { ").unwrap();
        let fields = shown.split(", ");
        let names = fields.map(|field| field.split(':').next().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let stats = fields(format!("{:?}", Stats::default())).into_iter();
    let stats = stats.take_while(|field| field != "totals");
    let heap = fields(format!("{:?}", HeapStats::default()));
    let resident = fields(format!("{:?}", Resident::default()));
    for field in stats.chain(heap).chain(resident) {
        let row = format!("| `{field}` | ");
        assert!(
            document.lines().any(|line| line.starts_with(&row)),
            "docs/operations.md lacks `{field}`"
        );
    }
    for (name, _) in ClassStats::default().list() {
        let named = |line: &str| {
            line.starts_with("| `classes` | Of each") && line.contains(&format!("`{name}`"))
        };
        assert!(
            document.lines().any(named),
            "docs/operations.md lacks `{name}` of classes"
        );
    }
}
