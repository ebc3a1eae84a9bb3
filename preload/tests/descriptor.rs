//! Descriptor 2 belongs to the program: a message that does not end the process is written only
//! while the descriptor is what it was when the library was loaded.
#![allow(missing_docs)]

mod library;

use library::{compile, library, preloaded, scratch, succeed};
use std::fs;
use std::path::Path;
use std::process::Command;

const OUT_OF_MEMORY: &str = "theap: out of memory: ";

/// What `descriptor.c` writes to standard error when it does this, and to its data file.
fn run(name: &str, what: &str) -> (String, String) {
    let program = compile("descriptor.c", name, &[]);
    let data = scratch(&format!("data-{name}")).join("data");
    let output = succeed(limited(&mut preloaded(20, program)).arg(what).arg(&data));
    (
        String::from_utf8(output.stderr).unwrap(),
        fs::read_to_string(data).unwrap(),
    )
}

fn limited(command: &mut Command) -> &mut Command {
    command
        .env("THEAP_ADDRESS_SPACE", "64M")
        .env("THEAP_PAGES", "small")
}

#[test]
fn nothing_is_written_into_a_data_file() {
    let (said, data) = run("data", "data");
    assert_eq!((said.as_str(), data.as_str()), ("", "DATA"));
}

#[test]
fn the_same_file_gets_the_message() {
    let (said, data) = run("same", "same");
    assert!(
        said.starts_with(OUT_OF_MEMORY) && said.lines().count() == 1,
        "{said}"
    );
    assert_eq!(data, "");
}

#[test]
fn a_closed_descriptor_gets_nothing() {
    let (said, data) = run("closed", "closed");
    assert_eq!((said.as_str(), data.as_str()), ("", ""));
}

/// The descriptor is closed when the process starts, and the first file that it opens gets the
/// number.
#[test]
fn a_descriptor_that_was_closed_at_the_start_gets_nothing() {
    let program = compile("descriptor.c", "late", &[]);
    let data = scratch("data-late").join("data");
    let script = |program: &Path| {
        format!(
            "LD_PRELOAD={} exec {} data {} 2>&-",
            library().display(),
            program.display(),
            data.display()
        )
    };
    succeed(limited(Command::new("sh").args(["-c", &script(&program)])));
    assert_eq!(fs::read_to_string(data).unwrap(), "DATA");
}

#[test]
fn what_nobody_can_serve_says_nothing() {
    let (said, data) = run("absurd", "absurd");
    assert_eq!((said.as_str(), data.as_str()), ("", ""));
}
