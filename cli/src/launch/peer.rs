//! Another allocator's library, as `--with NAME=FILE` names it.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::library;
use crate::arguments::name_and_file;

/// Another allocator.
#[derive(Clone)]
pub struct Peer {
    /// The name under which its figures are shown.
    pub name: String,
    /// The library that is preloaded.
    pub library: PathBuf,
}

/// An allocator from `NAME=FILE`.
///
/// # Errors
/// Fails if the text is not of that form, or if there is no such file.
pub fn parse(text: &str) -> Result<Peer> {
    let (name, file) = name_and_file(text, "NAME=FILE")?;
    Ok(Peer {
        name,
        library: library::named(Path::new(&file))?,
    })
}

/// Fails if a side has the name already.
///
/// # Errors
/// Says which name is taken.
pub fn name_is_free<'a>(name: &str, mut taken: impl Iterator<Item = &'a str>) -> Result<()> {
    ensure!(
        !taken.any(|other| other == name),
        "there are two allocators named {name}"
    );
    Ok(())
}
