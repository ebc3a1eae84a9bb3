//! The files of this repository, and their tokens.
#![allow(dead_code, reason = "each test program uses a part")]

pub mod tokens;

use std::fs;
use std::path::{Path, PathBuf};

/// Directories that hold nothing of ours: build results, and the files of git and of the fuzzer.
const SKIPPED: [&str; 4] = ["target", ".git", "artifacts", "corpus"];

/// The repository's directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a directory that have one of these extensions ("" for none), in order. The
/// search goes into the directories for which `enter` is true.
pub fn files(directory: &Path, extensions: &[&str], enter: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    let mut found = Vec::new();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            // Cargo puts a mark into the directories that it builds into, whatever their names are.
            let built = path.join("CACHEDIR.TAG").exists();
            if !built && !SKIPPED.contains(&name.as_str()) && enter(&path) {
                found.extend(files(&path, extensions, enter));
            }
            continue;
        }
        let extension = path.extension().unwrap_or_default();
        if extensions.iter().any(|one| extension == *one) {
            found.push(path);
        }
    }
    found
}
