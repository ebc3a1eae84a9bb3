//! Builds `libtheap.so`, compiles the programs in `tests/c`, and runs programs with the library and
//! with a deadline.
#![allow(dead_code, reason = "each test program uses a part")]

pub mod programs;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const HERE: &str = env!("CARGO_MANIFEST_DIR");
const TEMP: &str = env!("CARGO_TARGET_TMPDIR");

/// The prefix into which this test program has installed the library.
pub fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| install("build", &[]))
}

/// The directory in which cargo builds the library of [`prefix`].
pub fn build_directory() -> PathBuf {
    Path::new(TEMP).join("build")
}

/// Builds the library in a directory of this name with these arguments of cargo, installs it, and
/// answers the prefix.
fn install(build: &str, arguments: &[&str]) -> PathBuf {
    let prefix = scratch("prefix");
    let status = Command::new(format!("{HERE}/install.sh"))
        .arg(&prefix)
        .args(arguments)
        .env("CARGO", env!("CARGO"))
        // The build has a directory of its own, as the outer cargo may hold the lock of the usual
        // one.
        .env("CARGO_TARGET_DIR", format!("{TEMP}/{build}"))
        .env_remove("DESTDIR")
        .status();
    assert!(status.unwrap().success(), "install.sh failed");
    prefix
}

/// The library with the feature `valgrind`.
pub fn library_for_valgrind() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        install("build-valgrind", &["--features", "valgrind"]).join("lib/libtheap.so")
    })
}

/// The library's path.
pub fn library() -> PathBuf {
    prefix().join("lib/libtheap.so")
}

/// Makes an empty directory with this name for this test program.
pub fn scratch(name: &str) -> PathBuf {
    let path = Path::new(TEMP).join(env!("CARGO_CRATE_NAME")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Compiles `tests/c/source`, with these arguments after it, to a file `name`, and answers its
/// path. No two callers give the same name.
pub fn compile(source: &str, name: &str, arguments: &[&str]) -> PathBuf {
    let compiler = match source.ends_with(".cpp") {
        true => ["c++", "-std=c++17"],
        false => ["cc", "-std=gnu11"],
    };
    let to = scratch(&format!("bin-{name}")).join(name);
    // The compiler must not know malloc: every call in the source is to be a call.
    let status = Command::new(compiler[0])
        .args([compiler[1], "-O1", "-g", "-fno-builtin", "-Wall", "-Wextra"])
        .arg("-Wno-alloc-size-larger-than")
        .arg("-pthread")
        .arg(format!("{HERE}/tests/c/{source}"))
        .arg("-o")
        .arg(&to)
        .args(arguments)
        .status();
    assert!(status.unwrap().success(), "cannot compile {source}");
    to
}

/// A command that `timeout` kills after `seconds`, without theap's options in its environment.
pub fn command(seconds: u32, program: impl AsRef<Path>) -> Command {
    within(seconds, program, None)
}

/// A [`command`] with the library preloaded into the program, and not into `timeout`.
pub fn preloaded(seconds: u32, program: impl AsRef<Path>) -> Command {
    preloading(seconds, program, &library())
}

/// A [`command`] with this build of the library preloaded.
pub fn preloading(seconds: u32, program: impl AsRef<Path>, library: &Path) -> Command {
    within(seconds, program, Some(library))
}

fn within(seconds: u32, program: impl AsRef<Path>, library: Option<&Path>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", &seconds.to_string(), "env"]);
    if let Some(library) = library {
        command.arg(format!("LD_PRELOAD={}", library.display()));
    }
    command.arg(program.as_ref());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("THEAP_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command that must succeed; shows its whole output if it fails.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {} (124 is the deadline)\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs a command that must succeed, and answers its standard output.
pub fn text(command: &mut Command) -> String {
    String::from_utf8(succeed(command).stdout).unwrap()
}

/// Hugetlb pages for as long as this value lives; other tests that want the pool wait.
pub struct Hugepages {
    before: String,
    _lock: File,
}

const POOL: &str = "/proc/sys/vm/nr_hugepages";

impl Hugepages {
    /// Makes the pool have at least this many pages. If nobody may change the pool it is `None`,
    /// and a message says so.
    pub fn take(pages: usize) -> Option<Hugepages> {
        let lock = File::create(std::env::temp_dir().join("theap-hugetlb.lock")).unwrap();
        lock.lock().unwrap();
        let before = fs::read_to_string(POOL).unwrap_or_default();
        let held = before.trim().parse().unwrap_or(0);
        if fs::write(POOL, pages.max(held).to_string()).is_err() {
            eprintln!("skipped: hugetlb (cannot change {POOL})");
            return None;
        }
        Some(Hugepages {
            before,
            _lock: lock,
        })
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        let _ = fs::write(POOL, &self.before);
    }
}
