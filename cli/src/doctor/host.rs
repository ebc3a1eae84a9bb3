//! The host, as its `/proc` and `/sys` describe it.
//!
//! Every fact is read through [`Host`], under a root directory, so that tests can show any host.
//! Paths are given and reported as on the real host. The files are not trusted: a text of another
//! form than expected is an error that names the file.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use procfs::FromBufRead;

/// A list with a CPU or node above this number counts as a broken file.
const HIGHEST: u32 = 1 << 16;

/// A host whose files are read below a root directory.
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The host whose `/proc` and `/sys` are under `root`.
    pub fn at(root: PathBuf) -> Self {
        Host { root }
    }

    /// The text of a file, without blanks around it.
    pub fn text(&self, path: &str) -> Result<String> {
        let bytes = fs::read(self.root.join(path.trim_start_matches('/')))
            .with_context(|| format!("cannot read {path}"))?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The text of a file, or nothing if there is no such file: a feature that the kernel lacks has
    /// no files. Errors as for [`Host::text`].
    pub fn optional(&self, path: &str) -> Result<Option<String>> {
        match self.text(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) => match error.downcast_ref::<std::io::Error>() {
                Some(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// A file that holds one number.
    pub fn number(&self, path: &str) -> Result<u64> {
        parse(&self.text(path)?, path)
    }

    /// The value after `key:` in a file of such lines; nothing if the file has no such line. Lines
    /// may begin with other words, as in a node's `meminfo`.
    pub fn field(&self, path: &str, key: &str) -> Result<Option<String>> {
        let text = self.text(path)?;
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let line = lines.find(|(name, _)| name.split(' ').next_back() == Some(key));
        Ok(line.map(|(_, value)| value.trim().to_owned()))
    }

    /// The bytes that a field of a `meminfo` file tells; nothing if the file has no such line.
    pub fn memory_field(&self, path: &str, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.field(path, key)? else {
            return Ok(None);
        };
        let kib: u64 = parse(value.trim_end_matches(" kB"), path)?;
        Ok(Some(kib.saturating_mul(1 << 10)))
    }

    /// Bytes that a field of `/proc/meminfo` tells.
    pub fn memory(&self, key: &str) -> Result<u64> {
        self.memory_field("/proc/meminfo", key)?
            .with_context(|| format!("/proc/meminfo has no {key}"))
    }

    /// A file in a form that procfs knows; nothing if there is no such file.
    pub fn parsed<T: FromBufRead>(&self, path: &str) -> Result<Option<T>> {
        let Some(text) = self.optional(path)? else {
            return Ok(None);
        };
        T::from_buf_read(text.as_bytes())
            .map(Some)
            .with_context(|| format!("cannot understand {path}"))
    }

    /// A file that holds a list of CPUs or nodes, like `0-3,8`; nothing if there is no such file.
    pub fn list(&self, path: &str) -> Result<Option<BTreeSet<u32>>> {
        let text = self.optional(path)?;
        text.map(|text| parse_list(&text, path)).transpose()
    }
}

fn parse(text: &str, path: &str) -> Result<u64> {
    text.parse()
        .with_context(|| format!("{path} has {text:?} for a number"))
}

/// The members of a list like `0-3,8`, which was read from `path`.
pub fn parse_list(text: &str, path: &str) -> Result<BTreeSet<u32>> {
    let mut members = BTreeSet::new();
    // Some kernels print a set that was never given as a null pointer.
    if text.is_empty() || text == "(null)" {
        return Ok(members);
    }
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let ends = first.parse().ok().zip(last.parse().ok());
        let (first, last): (u32, u32) =
            ends.with_context(|| format!("{path} has {text:?} for a list"))?;
        ensure!(
            first <= last && last < HIGHEST,
            "{path} has {text:?} for a list"
        );
        members.extend(first..=last);
    }
    Ok(members)
}

/// Members as a list like `0-3,8`.
pub fn list(members: &BTreeSet<u32>) -> String {
    let mut text = String::new();
    let starts = members
        .iter()
        .filter(|&&m| m == 0 || !members.contains(&(m - 1)));
    for &first in starts {
        let last = (first..)
            .take_while(|m| members.contains(m))
            .last()
            .unwrap_or(first);
        let comma = if text.is_empty() { "" } else { "," };
        // Writing into a String cannot fail.
        let _ = match last - first {
            0 => write!(text, "{comma}{first}"),
            _ => write!(text, "{comma}{first}-{last}"),
        };
    }
    text
}

/// A number of bytes as people write it.
pub fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >> shift != 0) {
        None => format!("{bytes} bytes"),
        Some((shift, unit)) => {
            let value = bytes as f64 / (1u64 << shift) as f64;
            let digits = usize::from(!bytes.is_multiple_of(1 << shift));
            format!("{value:.digits$} {unit}")
        }
    }
}
