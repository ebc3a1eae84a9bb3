//! The library that provides a program's `malloc`. The program's own loader tells it: the loader
//! binds all symbols, says to which files, and does not run the program. A name in `LD_PRELOAD`
//! proves nothing: that library may fail to load, export no `malloc`, or come after one that the
//! program brings.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The file that `malloc` of `image` is bound to in the environment of `command`, which runs
/// `image`.
///
/// # Errors
/// Fails if the loader does not tell, or if it binds two callers to different files.
pub fn provider_of_malloc(command: &mut Command) -> Result<PathBuf> {
    let output = command
        .env("LD_TRACE_LOADED_OBJECTS", "1") // Load and go no further,
        .env("LD_WARN", "yes") // but bind,
        .env("LD_BIND_NOW", "1") // everything,
        .env("LD_DEBUG", "bindings") // and say so,
        .env_remove("LD_DEBUG_OUTPUT") // on standard error.
        .output()
        .context("cannot ask the loader")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if let Some(line) = said.lines().find(|line| line.starts_with("ERROR: ld.so")) {
        bail!("{}", line.trim_start_matches("ERROR: "));
    }
    let files: BTreeSet<&str> = said.lines().filter_map(provider_in).collect();
    let list = Vec::from_iter(files).join(" and ");
    ensure!(
        !list.is_empty(),
        "the loader of the program binds no malloc"
    );
    fs::canonicalize(&list).with_context(|| format!("the program's malloc is in {list}"))
}

/// Whether the file is the C library.
pub fn is_libc(file: &Path) -> bool {
    file.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("libc.so"))
}

/// The file that `malloc` is bound to in a line of the loader's output, which reads
/// ``binding file A [0] to B [0]: normal symbol `malloc' …``.
fn provider_in(line: &str) -> Option<&str> {
    let (files, symbol) = line.split_once("]: normal symbol `")?;
    if !symbol.starts_with("malloc'") {
        return None;
    }
    let (_, to) = files.split_once("] to ")?;
    to.rsplit_once(" [").map(|(file, _)| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_is_the_second_file() {
        let line =
            "  7:\tbinding file /bin/a [0] to /lib/b.so [0]: normal symbol `malloc' [GLIBC_2.2.5]";
        assert_eq!(provider_in(line), Some("/lib/b.so"));
        assert_eq!(provider_in(&line.replace("malloc'", "malloc_trim'")), None);
        assert_eq!(provider_in("  7:\tcalling init: /lib/b.so"), None);
    }
}
