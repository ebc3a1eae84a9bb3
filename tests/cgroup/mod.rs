//! Control groups of this machine: a test can run a process in a group with a limit.
#![allow(unsafe_code)] // The file unshares, mounts, and acts in a child between fork and exec.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A control group of its own, which is removed when the value is dropped.
pub struct Group {
    path: PathBuf,
}

#[allow(dead_code, reason = "no test uses all of it")]
impl Group {
    /// Makes a group of a controller with a limit. `limits` has the names of the limit's file in
    /// version 1 and in version 2 of control groups, and `value` goes into it. Where there is no
    /// such controller, or the test may not use it, the answer is `None` and a line says so.
    pub fn new(controller: &str, limits: [&str; 2], value: &str) -> Option<Self> {
        let made = mounted(controller)
            .or_else(|| mount(controller))
            .and_then(|root| Self::within(&root, limits, value));
        if made.is_none() {
            eprintln!("skipped: no {controller} controller that may be used");
        }
        made
    }

    /// Makes a group that may use this many MiB of memory, as `new` does.
    pub fn of_memory(mib: usize) -> Option<Self> {
        let bytes = (mib << 20).to_string();
        Self::new("memory", ["memory.limit_in_bytes", "memory.max"], &bytes)
    }

    fn within(root: &Path, limits: [&str; 2], value: &str) -> Option<Self> {
        let group = Self {
            path: root.join(format!("theap-{}-{value}", std::process::id())),
        };
        fs::create_dir(&group.path).ok()?;
        let set = |file| fs::write(group.path.join(file), value).is_ok();
        limits.into_iter().any(set).then_some(group)
    }

    /// Puts the command's process into the group from its start.
    pub fn hold(&self, command: &mut Command) {
        let processes = self.path.join("cgroup.procs");
        // SAFETY: the closure only opens, writes and closes a file, and copies a short path to the
        // stack: it is async-signal-safe, as the forked child needs.
        unsafe { command.pre_exec(move || fs::write(&processes, "0")) };
    }

    /// Runs a command whose process is in the group from its start.
    pub fn run(&self, mut command: Command) -> Output {
        self.hold(&mut command);
        command.output().unwrap()
    }

    /// Whether the kernel has killed a process of the group; `None` where it does not say.
    pub fn has_killed(&self) -> Option<bool> {
        let text = ["memory.oom_control", "memory.events"]
            .into_iter()
            .find_map(|file| fs::read_to_string(self.path.join(file)).ok())?;
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "))?;
        Some(count.trim() != "0")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// The directory where a controller is mounted, in version 1 or 2 of control groups.
fn mounted(controller: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        let root = Path::new(fields[1]);
        let has = match fields[2] {
            "cgroup" => fields[3].split(',').any(|option| option == controller),
            "cgroup2" => {
                let _ = fs::write(
                    root.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                );
                fs::read_to_string(root.join("cgroup.subtree_control"))
                    .is_ok_and(|on| on.split_whitespace().any(|name| name == controller))
            }
            _ => false,
        };
        has.then(|| root.to_owned())
    })
}

/// Mounts a controller that nobody has mounted, where it is mounted elsewhere, in a namespace that
/// only this thread and its children see.
fn mount(controller: &str) -> Option<PathBuf> {
    let root = Path::new("/sys/fs/cgroup").join(controller);
    let options = CString::new(controller).unwrap();
    let at = CString::new(root.to_str().unwrap()).unwrap();
    let change = |from: &CStr, to: &CStr, kind: &CStr, flags, options: &CStr| {
        // SAFETY: the strings live during the call, which acts in this thread's own namespace.
        let done = unsafe {
            libc::mount(
                from.as_ptr(),
                to.as_ptr(),
                kind.as_ptr(),
                flags,
                options.as_ptr().cast(),
            )
        };
        done == 0
    };
    // SAFETY: the call has no precondition; it concerns this thread alone.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0
        && change(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"")
        && change(c"none", c"/sys/fs/cgroup", c"tmpfs", 0, c"")
        && fs::create_dir(&root).is_ok()
        && change(c"none", &at, c"cgroup", 0, &options);
    done.then_some(root)
}
