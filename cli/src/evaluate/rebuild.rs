//! Builds of this program without a layer of theap, made by cargo from the sources in the current
//! directory.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The builds: their names and their layers.
const BUILDS: [(&str, &str); 3] = [
    ("without magazines", "shared-pool,drain"),
    ("without shared pool", "magazines,drain"),
    ("without drain", "magazines,shared-pool"),
];

/// Makes all builds and returns their names and programs.
///
/// # Errors
/// Fails outside the workspace, and if cargo fails.
pub fn all() -> Result<Vec<(String, PathBuf)>> {
    let root = env::current_dir()?;
    ensure!(
        root.join("cli/Cargo.toml").exists(),
        "--rebuild needs theap's sources: run it in the directory of the workspace"
    );
    BUILDS
        .iter()
        .map(|(name, layers)| Ok(((*name).into(), build(&root, name, layers)?)))
        .collect()
}

fn build(root: &Path, name: &str, layers: &str) -> Result<PathBuf> {
    let target = root.join("target/evaluate").join(name.replace(' ', "-"));
    eprintln!("building theap {name}");
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--package", "theap-cli"])
        .args([
            "--no-default-features",
            "--features",
            layers,
            "--target-dir",
        ])
        .arg(&target)
        // This build does not need the library that it would embed.
        .env("THEAP_NO_EMBED", "1")
        .current_dir(root)
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "cargo could not build theap {name}");
    Ok(target.join("release/theap"))
}
