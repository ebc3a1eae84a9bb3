//! Builds the probe library with cargo in a directory of its own, and loads it.
#![allow(unsafe_code)] // Loads a library and calls its functions.

use std::ffi::{CStr, CString, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, mem};

/// The library's functions.
#[derive(Clone, Copy)]
pub struct Probe {
    /// The calling thread's slot.
    pub get: extern "C" fn() -> *mut c_void,
    /// Changes the calling thread's slot.
    pub set: extern "C" fn(*mut c_void),
    /// The value that a slot holds at first.
    pub empty: extern "C" fn() -> *const c_void,
    /// The CPU number or -1.
    pub cpu: extern "C" fn() -> i64,
}

/// Builds the library in cargo's profile `profile` ("dev", "release"), with the slot's twin in it
/// or the slot of this machine; returns its path.
pub fn build(profile: &str, twin: bool) -> PathBuf {
    let kind = if twin { "twin" } else { "tuned" };
    let dir = env::temp_dir().join(format!(
        "theap-probe-{}-{kind}-{profile}",
        std::process::id()
    ));
    fs::create_dir_all(dir.join("src")).unwrap();
    let arch = env!("CARGO_MANIFEST_DIR");
    let manifest = format!(
        "[package]\nname = \"probe\"\nversion = \"1.2.3\"\nedition = \"2024\"\n\
         [lib]\ncrate-type = [\"cdylib\"]\n[features]\ntwin = []\n\
         [dependencies]\ntheap-arch = {{ path = {arch:?} }}\n\
         [profile.dev]\npanic = \"abort\"\n[profile.release]\npanic = \"abort\"\n\
         [profile.lto]\ninherits = \"release\"\nlto = true\ncodegen-units = 1\n[workspace]\n"
    );
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.join("src/lib.rs"), include_str!("library.rs")).unwrap();
    let target = dir.join("target");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--offline", "--profile", profile]);
    cargo.args(if twin {
        &["--features", "twin"][..]
    } else {
        &[]
    });
    cargo
        .current_dir(&dir)
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("LD_PRELOAD");
    let output = cargo.output().expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let folder = if profile == "dev" { "debug" } else { profile };
    let library = dir.join("libprobe.so");
    fs::copy(target.join(folder).join("libprobe.so"), &library).unwrap();
    fs::remove_dir_all(target).unwrap();
    library
}

/// Removes what [`build`] made.
pub fn remove(library: &Path) {
    fs::remove_dir_all(library.parent().unwrap()).unwrap();
}

/// Loads the library at run time.
pub fn load(library: &Path) -> Probe {
    let path = CString::new(library.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the library has no constructors; it stays loaded.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null(), "{} loads", library.display());
    find(handle).expect("the probe's functions")
}

/// The functions behind a handle of `dlopen`; `None` if they are not there.
pub fn find(handle: *mut c_void) -> Option<Probe> {
    let symbol = |name: &CStr| {
        // SAFETY: a valid handle and a terminated name.
        let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    };
    // SAFETY: the library defines these functions with these types.
    unsafe {
        Some(Probe {
            get: mem::transmute::<*mut c_void, extern "C" fn() -> *mut c_void>(symbol(
                c"probe_get",
            )?),
            set: mem::transmute::<*mut c_void, extern "C" fn(*mut c_void)>(symbol(c"probe_set")?),
            empty: mem::transmute::<*mut c_void, extern "C" fn() -> *const c_void>(symbol(
                c"probe_empty",
            )?),
            cpu: mem::transmute::<*mut c_void, extern "C" fn() -> i64>(symbol(c"probe_cpu")?),
        })
    }
}
