//! What holds for the source as a whole: inside `src/` a layer names only those below it (api -> front -> heap ->
//! pool), nothing there is written for a machine or asks the operating system itself, and `docs/operations.md` lists
//! every option, counter and figure as the code has it.

use std::fs;
use std::path::{Path, PathBuf};
use theap::{COUNTERS, OPTIONS, Stats};

/// A layer, the layers that it must not name, and what of them it may name all the same.
const LAYERS: [(&str, &[&str], &[&str]); 3] = [
    // Which word says who owns a span is the heap's to define and the pool's to read.
    ("pool", &["heap", "front", "api"], &["heap::ownership"]),
    ("heap", &["front", "api"], &[]),
    // The option `reserve` is a call of `warm_up` at start.
    ("front", &["api"], &["api::warm_up"]),
];

/// What belongs in `arch/` and `platform/`.
const NOT_HERE: [&str; 5] = ["asm!", "core::arch", "std::arch", "rustix", "libc"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All source files below a directory, with their code: comments are left out.
fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.lines().map(|line| line.split("//").next().unwrap());
            found.push((path, code.collect::<Vec<_>>().join("\n")));
        }
    }
    found
}

/// The paths below the crate's root that the code names, also in a group (`crate::{a, b::c}`) and through `super`.
fn named(code: &str) -> Vec<String> {
    let path_end = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
    let mut paths = Vec::new();
    for rest in code
        .split("crate::")
        .skip(1)
        .chain(code.split("super::").skip(1))
    {
        let list = rest.strip_prefix('{').map_or_else(
            || rest.split(path_end).next().unwrap(),
            |group| group.split('}').next().unwrap(),
        );
        paths.extend(
            list.split(',')
                .map(|path| path.trim().split(path_end).next().unwrap().to_owned()),
        );
    }
    paths
}

fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn layers_name_only_those_below_them() {
    for (layer, forbidden, allowed) in LAYERS {
        let files = sources(&root().join("src").join(layer));
        assert!(!files.is_empty());
        for (file, code) in files {
            for path in named(&code) {
                let wrong = forbidden.iter().any(|parent| is_below(&path, parent))
                    && !allowed.iter().any(|parent| is_below(&path, parent));
                assert!(!wrong, "{} names {path}", file.display());
            }
        }
    }
}

#[test]
fn the_names_in_code_are_found() {
    let code = "use crate::{Error, front::slow, heap};\nuse super::super::api;\nlet _ = crate::heap::Heap::new(a, b);";
    let mut paths = named(code);
    paths.sort();
    assert_eq!(
        paths,
        ["", "Error", "api", "front::slow", "heap", "heap::Heap::new"]
    );
}

#[test]
fn machine_and_system_are_left_to_their_crates() {
    for (file, code) in sources(&root().join("src")) {
        for word in NOT_HERE {
            assert!(!code.contains(word), "{} has {word}", file.display());
        }
    }
}

/// Asserts that the document has this row; the message is what to paste.
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
    let stats = format!("{:?}", Stats::default());
    let fields = stats
        .trim_start_matches("Stats { ")
        .split(", ")
        .map(|field| field.split(':').next().unwrap());
    for field in fields.take_while(|&field| field != "totals") {
        let row = format!("| `{field}` | ");
        assert!(
            document.lines().any(|line| line.starts_with(&row)),
            "docs/operations.md lacks `{field}`"
        );
    }
}
