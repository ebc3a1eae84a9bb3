//! Finding `libtheap.so`: the library of the installation, or else the one that this program
//! carries.
//!
//! A loader needs a path, even in descendants that have closed every descriptor. So the library
//! that this program carries is written to the user's cache. A file there is used only if it holds
//! the same bytes, and if nobody but this user and root can replace it. It is written under a
//! random name and renamed.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use etcetera::BaseStrategy;
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::process::geteuid;

/// The library that build.rs has built; nothing if `THEAP_NO_EMBED` was set then.
const EMBEDDED: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The variable that names libraries to a loader.
pub const PRELOAD: &str = "LD_PRELOAD";

const NAME: &str = "libtheap.so";

/// The permissions that a trusted file or directory may not give to others than its owner.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// In a directory with this bit only a file's owner may rename it.
const STICKY: u32 = 0o1000;

/// The library that the user asked for, else the library of the installation (`../lib`), else the
/// library that this program carries, else the library beside this program.
///
/// # Errors
/// Says what to do if there is no library.
pub fn find(asked: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = asked {
        return named(path);
    }
    let program = env::current_exe().context("cannot find this program")?;
    let here = program.parent().unwrap_or(Path::new("/"));
    let installed = here.join("../lib").join(NAME);
    if installed.is_file() {
        return named(&installed);
    }
    if let Some(bytes) = EMBEDDED {
        return cached(bytes);
    }
    let beside = here.join(NAME);
    ensure!(
        beside.is_file(),
        "this program was built without {NAME}, and there is none beside it nor in ../lib; name one with --library"
    );
    named(&beside)
}

/// The path of a library, as the kernel shows it in a process that has mapped the library.
///
/// # Errors
/// Fails if there is no such file, or if `LD_PRELOAD` cannot express its path.
pub fn named(path: &Path) -> Result<PathBuf> {
    let real = fs::canonicalize(path).with_context(|| format!("cannot use {}", path.display()))?;
    ensure!(real.is_file(), "{} is no library", real.display());
    expressible(&real)?;
    Ok(real)
}

fn expressible(path: &Path) -> Result<()> {
    let bytes = path.as_os_str().as_bytes();
    ensure!(
        !bytes.iter().any(|byte| b" :$".contains(byte)),
        "{PRELOAD} cannot name {}: blanks, colons and dollar signs have a meaning in it",
        path.display()
    );
    Ok(())
}

/// The value of [`PRELOAD`]: `library` in front of the libraries that it names already.
pub fn preload(library: &Path) -> OsString {
    let mut value = library.as_os_str().to_owned();
    if let Some(present) = env::var_os(PRELOAD).filter(|present| !present.is_empty()) {
        value.push(":");
        value.push(present);
    }
    value
}

/// A file with these bytes, in the first directory that can be trusted and that `LD_PRELOAD` can
/// express.
fn cached(bytes: &[u8]) -> Result<PathBuf> {
    let base = etcetera::base_strategy::Xdg::new().ok();
    let cache = base.as_ref().map(|base| {
        // The home must be there already: this program makes none. A failure shows in the next
        // step.
        let _ = make(&base.cache_dir());
        base.cache_dir().join("theap")
    });
    let runtime = base.and_then(|base| base.runtime_dir());
    let shared = env::temp_dir().join(format!("theap-{}", geteuid().as_raw()));
    // The cache comes first: the runtime directory goes when the user logs out, while the user's
    // programs may go on.
    let directories = [
        cache,
        runtime.map(|directory| directory.join("theap")),
        Some(shared),
    ];
    let mut failure = anyhow!("there is no home, no runtime directory and no temporary directory");
    for directory in directories.into_iter().flatten() {
        match write(bytes, &directory) {
            Ok(path) => return Ok(path),
            Err(error) => failure = error.context(directory.display().to_string()),
        }
    }
    Err(failure.context(format!(
        "cannot write {NAME} to any directory; install it, or name one with --library"
    )))
}

/// Makes a directory for this user alone, unless it is there already.
///
/// Fails if the parent cannot be trusted: root would use a directory that another user controls.
fn make(directory: &Path) -> Result<()> {
    if directory.exists() {
        return Ok(());
    }
    let parent = directory.parent().context("it has no parent directory")?;
    unchangeable(&fs::canonicalize(parent)?)?;
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes the library to the directory, unless it is there already, and returns its path.
fn write(bytes: &[u8], directory: &Path) -> Result<PathBuf> {
    make(directory)?;
    let directory = fs::canonicalize(directory)?;
    expressible(&directory)?;
    trusted(&directory)?;
    let flags = statvfs(&directory).map_err(io::Error::from)?.f_flag;
    ensure!(
        !flags.contains(StatVfsMountFlags::NOEXEC),
        "nothing can be executed in it (noexec)"
    );

    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let path = directory.join(format!("libtheap-{:016x}.so", hasher.finish()));
    if !holds(&path, bytes) {
        let mut file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&directory)?;
        file.write_all(bytes)?;
        file.persist(&path)?;
    }
    Ok(path)
}

/// Whether the path is a file of this user alone with these bytes.
fn holds(path: &Path, bytes: &[u8]) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && is_ours(&file))
        && fs::read(path).is_ok_and(|found| found == bytes)
}

fn is_ours(file: &fs::Metadata) -> bool {
    file.uid() == geteuid().as_raw() && file.mode() & WRITABLE_BY_OTHERS == 0
}

/// Fails unless the directory is this user's alone, and nobody but this user and root can replace
/// it. Its path has no symbolic links.
fn trusted(directory: &Path) -> Result<()> {
    ensure!(
        is_ours(&fs::symlink_metadata(directory)?),
        "it belongs to another user, or others may write to it"
    );
    directory.parent().map_or(Ok(()), unchangeable)
}

/// Fails if anybody but this user and root can replace an entry of the directory. Its path has no
/// symbolic links.
fn unchangeable(directory: &Path) -> Result<()> {
    for above in directory.ancestors() {
        let found = fs::symlink_metadata(above)?;
        let owned = [0, geteuid().as_raw()].contains(&found.uid());
        let open = found.mode() & WRITABLE_BY_OTHERS != 0 && found.mode() & STICKY == 0;
        if !owned || open {
            bail!("others may change {}", above.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_is_written_once_and_found_again() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("theap");
        let path = write(b"library", &directory).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"library");
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        let written = fs::metadata(&path).unwrap();
        assert_eq!(write(b"library", &directory).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().ino(), written.ino());
        assert_ne!(write(b"another", &directory).unwrap(), path);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
        assert!(write(b"library", &scratch.path().join("no/home/theap")).is_err());
    }

    #[test]
    fn what_another_could_have_put_there_is_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let path = write(b"library", scratch.path()).unwrap();

        fs::write(&path, b"altered").unwrap();
        write(b"library", scratch.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"library");

        mode(&path, 0o666);
        write(b"library", scratch.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

        let elsewhere = scratch.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        write(b"library", scratch.path()).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn a_directory_that_others_may_change_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("theap");
        fs::create_dir(&directory).unwrap();
        mode(&directory, 0o777);
        assert!(write(b"library", &directory).is_err());
        mode(&directory, 0o700);
        assert!(write(b"library", &directory).is_ok());
        mode(scratch.path(), 0o777);
        assert!(write(b"library", &directory).is_err());
        mode(scratch.path(), 0o1777);
        assert!(write(b"library", &directory).is_ok());
    }

    #[test]
    fn a_path_that_the_loader_would_take_apart_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a b.so");
        fs::write(&path, b"").unwrap();
        assert!(named(&path).is_err());
        assert!(named(scratch.path()).is_err());
    }
}
