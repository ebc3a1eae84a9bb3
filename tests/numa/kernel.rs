//! The nodes, CPUs and pages of the kernel: functions that ask for them and that change them.

use std::path::PathBuf;
use std::{fs, io, mem, ptr};

const PAGE: usize = 4 << 10;

/// The kernel's list in this file, like `0-3,8`.
pub fn list(path: &str) -> Vec<usize> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let ranges = text.trim().split(',').filter(|range| !range.is_empty());
    ranges
        .flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse::<usize>().unwrap()..=last.parse().unwrap()
        })
        .collect()
}

/// The nodes that have memory.
pub fn nodes() -> Vec<usize> {
    list("/sys/devices/system/node/has_memory")
}

/// The CPUs of a node that are online.
pub fn cpus(node: usize) -> Vec<usize> {
    list(&format!("/sys/devices/system/node/node{node}/cpulist"))
}

/// Lets the calling thread run on this CPU alone, from now on.
pub fn pin(cpu: usize) {
    // SAFETY: a zeroed set is empty; the kernel reads it.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        let done = libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
        assert_eq!(done, 0, "CPU {cpu}: {}", io::Error::last_os_error());
    }
}

/// The nodes of the touched pages of a range, as the kernel tells them.
pub fn nodes_of(start: *const u8, len: usize) -> Vec<usize> {
    let first = start as usize & !(PAGE - 1);
    let pages: Vec<usize> = (first..start as usize + len).step_by(PAGE).collect();
    let mut status = vec![-1i32; pages.len()];
    // SAFETY: without a list of targets the kernel moves nothing, and `status` has room for every
    // page.
    let asked = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            pages.len(),
            pages.as_ptr(),
            ptr::null::<i32>(),
            status.as_mut_ptr(),
            0,
        )
    };
    assert_eq!(asked, 0, "{}", io::Error::last_os_error());
    status
        .into_iter()
        .filter_map(|node| usize::try_from(node).ok())
        .collect()
}

/// Pages of a node's hugetlb pool. When the value is dropped, the pool gets its old size back.
pub struct Pool(PathBuf, String);

impl Pool {
    pub fn set(node: usize, pages: usize) -> Self {
        let directory = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB");
        let file = PathBuf::from(directory).join("nr_hugepages");
        let pool = Self(file.clone(), fs::read_to_string(&file).unwrap());
        fs::write(&file, pages.to_string()).unwrap();
        let got = fs::read_to_string(&file).unwrap();
        assert_eq!(got.trim(), pages.to_string(), "node {node}");
        pool
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = fs::write(&self.0, &self.1);
    }
}

/// The nodes that have CPUs and no memory.
pub fn without_memory() -> Vec<usize> {
    let online = list("/sys/devices/system/node/online");
    let homes = nodes();
    online
        .into_iter()
        .filter(|node| !homes.contains(node) && !cpus(*node).is_empty())
        .collect()
}

/// A control group whose processes may use the memory of one node. It is removed when the value is
/// dropped.
pub struct CpuSet(pub PathBuf);

impl CpuSet {
    pub fn new(node: usize) -> Self {
        let root = PathBuf::from("/sys/fs/cgroup");
        fs::write(root.join("cgroup.subtree_control"), "+cpuset").unwrap();
        let group = root.join("theap-numa-test");
        fs::create_dir(&group).unwrap();
        fs::write(group.join("cpuset.mems"), node.to_string()).unwrap();
        Self(group)
    }
}

impl Drop for CpuSet {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Takes a CPU offline, or brings it online again.
pub fn plug(cpu: usize, on: bool) {
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    fs::write(file, if on { "1" } else { "0" }).unwrap();
}

/// Brings a CPU online again when the value is dropped, also after a panic.
pub struct Replug(pub usize);

impl Drop for Replug {
    fn drop(&mut self) {
        plug(self.0, true);
    }
}

/// A node and a CPU of it that can go offline, while another one of the node stays.
pub fn pluggable() -> (usize, usize) {
    let candidate = |node| {
        let cpus = cpus(node);
        let file = |cpu: &usize| format!("/sys/devices/system/cpu/cpu{cpu}/online");
        let cpu = cpus
            .iter()
            .rev()
            .find(|cpu| fs::exists(file(cpu)).unwrap())?;
        (cpus.len() > 1).then_some((node, *cpu))
    };
    nodes()
        .into_iter()
        .rev()
        .find_map(candidate)
        .expect("a CPU to unplug")
}
