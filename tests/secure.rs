//! A program that gained rights when it was executed reads no `THEAP_*` variable. The test runs a
//! set-uid copy of itself that another user owns. It needs root, and a file system that honours
//! set-uid; without them it says that it is skipped.
#![allow(unsafe_code)] // Calls getauxval and the allocator.

use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::{env, fs};
use theap::{OPTIONS, raw};

const NOBODY: u32 = 65534;

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test secure"]
fn scenario() {
    // SAFETY: the call has no precondition.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    println!("secure: {secure}");
    let block = raw::alloc(100);
    // SAFETY: the block is live.
    unsafe { raw::free(block) };
}

/// Runs a copy of this test with every option set to nonsense. Returns whether the copy was secure,
/// and what it wrote to standard error.
fn run(set_uid: bool) -> Option<(bool, String)> {
    let copy = env::temp_dir().join(format!("theap-secure-{}-{set_uid}", std::process::id()));
    fs::copy(env::current_exe().unwrap(), &copy).unwrap();
    let prepared = !set_uid || chown(&copy, Some(NOBODY), Some(NOBODY)).is_ok();
    let mode = if set_uid { 0o4755 } else { 0o755 };
    fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).unwrap();
    let output = Command::new(&copy)
        .args(["--exact", "scenario", "--ignored", "--nocapture"])
        .envs(OPTIONS.iter().map(|row| (row.variable, "nonsense")))
        .output();
    fs::remove_file(&copy).unwrap();
    let output = output
        .ok()
        .filter(|output| prepared && output.status.success())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Some((said.contains("secure: true"), errors))
}

#[test]
fn a_set_uid_program_ignores_the_environment() {
    let (secure, said) = run(false).unwrap();
    assert!(!secure && said.lines().count() == OPTIONS.len(), "{said}");
    match run(true) {
        Some((true, said)) => assert_eq!(said, ""),
        _ => eprintln!("skipped: no set-uid program can be made here"),
    }
}
