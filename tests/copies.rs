//! Libraries that have theap as their global allocator, loaded and unloaded in any order with
//! threads and forks, and several copies of theap in one process.
#![allow(unsafe_code)] // Loads libraries and calls them.

mod child;

use child::passes;
use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Barrier, Mutex, OnceLock};
use std::{env, fs, thread};
use theap::raw;

/// The library, built once for this test program. Its scenarios find it by a variable.
fn plugin() -> &'static Path {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    PLUGIN.get_or_init(|| built("PLUGIN_OF_THEAP_TESTS", "plugin", &[]))
}

/// A library of a theap that is made otherwise. To try one of another version: build
/// `tests/plugin/plugin.rs` with that, and name the library in the variable.
fn other() -> &'static Path {
    static OTHER: OnceLock<PathBuf> = OnceLock::new();
    let features = ["--no-default-features", "--features", "stats"];
    OTHER.get_or_init(|| built("OTHER_PLUGIN_OF_THEAP_TESTS", "other-plugin", &features))
}

/// The library that the variable names, or else one built with these arguments.
fn built(variable: &str, name: &str, features: &[&str]) -> PathBuf {
    /// Both come to be in the same file first.
    static BUILDING: Mutex<()> = Mutex::new(());
    if let Some(path) = env::var_os(variable) {
        return path.into();
    }
    let _building = BUILDING.lock().unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin");
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--package",
            "theap",
            "--example",
            "plugin",
        ])
        .args(features)
        .arg("--target-dir")
        .arg(&target)
        .status();
    assert!(built.unwrap().success());
    let library = target.join(name).with_extension("so");
    fs::copy(target.join("debug/examples/libplugin.so"), &library).unwrap();
    library
}

/// A loaded library.
#[derive(Clone, Copy)]
struct Library(*mut c_void);

// SAFETY: the loader's handles may be used by any thread.
unsafe impl Send for Library {}
// SAFETY: as for Send.
unsafe impl Sync for Library {}

impl Library {
    fn open(path: &Path) -> Self {
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the library's constructors are Rust's own.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null(), "{}", path.display());
        Self(library)
    }

    fn close(self) {
        // SAFETY: open, and closed once.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
    }

    fn find(self, name: &str) -> *mut c_void {
        let name = CString::new(name).unwrap();
        // SAFETY: the library is open.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!found.is_null());
        found
    }

    fn work(self) {
        // SAFETY: the library has this function, of this type.
        let work: extern "C" fn(usize) -> usize = unsafe { std::mem::transmute(self.find("work")) };
        assert_eq!(work(600), 2 * 299 * 300 / 2);
    }

    fn new_number(self, number: u64) -> usize {
        // SAFETY: as above.
        let new: extern "C" fn(u64) -> *mut u64 =
            unsafe { std::mem::transmute(self.find("new_number")) };
        new(number).expose_provenance()
    }

    fn drop_number(self, number: usize) -> u64 {
        // SAFETY: as above.
        let drop: extern "C" fn(*mut u64) -> u64 =
            unsafe { std::mem::transmute(self.find("drop_number")) };
        drop(std::ptr::with_exposed_provenance_mut(number))
    }
}

fn addresses() -> usize {
    child::memory("VmSize")
}

/// Threads that use the library, and end before it is closed or afterwards.
fn come_and_go() {
    let mut first = None;
    for round in 0..100 {
        let (library, used, closed) = (Library::open(plugin()), Barrier::new(3), Barrier::new(3));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    library.work();
                    used.wait();
                    if round % 2 == 0 {
                        closed.wait();
                    }
                });
            }
            used.wait();
            if round % 2 == 0 {
                library.close();
                closed.wait();
            }
        });
        if round % 2 != 0 {
            library.close();
        }
        let first = *first.get_or_insert_with(addresses);
        assert!(
            addresses() < first + (64 << 20),
            "addresses leak, round {round}"
        );
    }
}

/// A fork after the library was closed; then it is opened anew, with its old heap.
fn fork_after_closing() {
    let library = Library::open(plugin());
    let number = library.new_number(7);
    library.close();
    // SAFETY: the child uses the library and ends.
    match unsafe { libc::fork() } {
        0 => {
            Library::open(plugin()).work();
            // SAFETY: nothing of the parent's is to be done again.
            unsafe { libc::_exit(0) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the kernel writes the status.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
    assert_eq!(Library::open(plugin()).drop_number(number), 7);
}

/// Two copies of the library, one that is made otherwise, and the program's own heap: four copies
/// of theap, each with blocks that other threads free.
fn several() {
    let copy = plugin().with_file_name(format!("libcopy-{}.so", std::process::id()));
    fs::copy(plugin(), &copy).unwrap();
    let libraries = [plugin(), &copy, other()].map(Library::open);
    fs::remove_file(&copy).unwrap();
    let own = raw::alloc(100).expose_provenance();
    let numbers = libraries.map(|library| library.new_number(5));
    thread::spawn(move || {
        for (library, number) in libraries.into_iter().zip(numbers) {
            library.work();
            assert!(!theap::owns(std::ptr::with_exposed_provenance(number)));
            assert_eq!(library.drop_number(number), 5);
        }
        // SAFETY: a live block of this heap.
        unsafe { raw::free(std::ptr::with_exposed_provenance_mut(own)) };
    })
    .join()
    .unwrap();
    libraries.into_iter().for_each(Library::close);
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test copies"]
fn scenario() {
    match child::role().as_deref() {
        Some("come-and-go") => come_and_go(),
        Some("fork") => fork_after_closing(),
        Some("several") => several(),
        _ => {}
    }
}

fn run(scenario: &str) {
    // The C library's heap takes addresses for each thread otherwise.
    let variables = [
        ("PLUGIN_OF_THEAP_TESTS", plugin().to_str().unwrap()),
        ("OTHER_PLUGIN_OF_THEAP_TESTS", other().to_str().unwrap()),
        ("THEAP_PAGES", "small"),
        ("MALLOC_ARENA_MAX", "1"),
    ];
    passes(scenario, &variables);
}

#[test]
fn threads_may_outlive_a_library() {
    run("come-and-go");
}

#[test]
fn forks_may_come_after_a_library() {
    run("fork");
}

#[test]
fn copies_do_not_meet() {
    run("several");
}
