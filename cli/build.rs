//! Builds `libtheap.so` with its own profile and puts it into the program, so that one installed
//! `theap` is enough.
//!
//! The program carries no library where the library's sources are not beside these, or where
//! `THEAP_NO_EMBED` is set. Packagers set it when they install the library as a file of its own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The sources of the library, as paths from this directory.
const SOURCES: [&str; 7] = [
    "../Cargo.toml",
    "../Cargo.lock",
    "../build.rs",
    "../src",
    "../arch",
    "../platform",
    "../preload",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=THEAP_NO_EMBED");
    let out = PathBuf::from(variable("OUT_DIR"));
    let manifest = Path::new("../preload/Cargo.toml");
    let wanted = env::var_os("THEAP_NO_EMBED").is_none_or(|value| value.is_empty());
    let library = (wanted && manifest.exists()).then(|| build(manifest, &out.join("library")));
    let source = match library {
        Some(path) => format!("Some(include_bytes!({:?}))", path.display().to_string()),
        None => "None".into(),
    };
    fs::write(out.join("embedded.rs"), source).expect("OUT_DIR is writable");
}

/// Builds the library below `directory` and returns where it is.
fn build(manifest: &Path, directory: &Path) -> PathBuf {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    // The program may be built for another C library; the programs that it runs are the host's.
    let host = variable("HOST");
    let status = Command::new(variable("CARGO"))
        .args(["build", "--quiet", "--package", "theap-preload"])
        .args(["--profile", "preload", "--target", &host])
        .arg("--manifest-path")
        .arg(manifest)
        // This cargo needs a directory of its own, because the outer cargo holds the lock of the
        // other.
        .arg("--target-dir")
        .arg(directory)
        // The outer build may have lints, coverage or a model checker for its own code only.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "libtheap.so cannot be built; THEAP_NO_EMBED=1 builds the program without it"
    );
    directory.join(host).join("preload/libtheap.so")
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
