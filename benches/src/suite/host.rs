//! Facts about the host that a suite is measured on.
#![allow(unsafe_code)] // glibc's version

use std::env;
use std::ffi::CStr;
use std::fs;

use procfs::process::Process;
use procfs::{CpuInfo, Current, LoadAverage, Meminfo};
use rustix::system::uname;

/// The kernel's setting of transparent hugepages.
const THP: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Facts about this host that figures depend on, and theap's variables in the environment, each
/// with its name. A fact that cannot be read is "unknown".
pub fn host() -> Vec<(String, String)> {
    let unknown = || "unknown".to_owned();
    let cpu = CpuInfo::current().ok();
    let model = cpu.as_ref().and_then(|cpu| cpu.model_name(0));
    let memory = Meminfo::current().ok();
    let total = memory
        .as_ref()
        .map(|memory| format!("{} MiB", memory.mem_total >> 20));
    let pool = memory.as_ref().and_then(|memory| {
        let (total, free) = (memory.hugepages_total?, memory.hugepages_free?);
        Some(format!("{total} pages, {free} free"))
    });
    let thp = fs::read_to_string(THP).map_or_else(|_| unknown(), |text| text.trim().into());
    let policy = Process::myself().and_then(|process| process.stat()).ok();
    let policy = match policy.and_then(|stat| stat.policy) {
        Some(1 | 2) => "real time".to_owned(),
        Some(_) => "ordinary".to_owned(),
        None => unknown(),
    };
    let facts = [
        (
            "processor",
            format!("{} × {}", cpus(), model.unwrap_or("unknown")),
        ),
        ("kernel", uname().release().to_string_lossy().into_owned()),
        ("memory", total.unwrap_or_else(unknown)),
        ("transparent hugepages", thp),
        ("hugetlb pool", pool.unwrap_or_else(unknown)),
        ("priority", policy),
        ("variables", variables()),
    ];
    facts.map(|(name, found)| (name.to_owned(), found)).to_vec()
}

/// Tells whether the hugetlb pool has so many bytes free.
pub(super) fn has_hugepages(bytes: u64) -> bool {
    let memory = Meminfo::current().ok();
    let free = memory.and_then(|memory| Some(memory.hugepages_free? * memory.hugepagesize?));
    free.is_some_and(|free| free >= bytes)
}

/// The number of CPUs that this process may use.
pub(super) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The mean numbers of processes that are ready to run, over 1, 5 and 15 minutes.
pub(super) fn load() -> String {
    LoadAverage::current().map_or_else(
        |_| "unknown".into(),
        |load| format!("{} {} {}", load.one, load.five, load.fifteen),
    )
}

/// theap's environment variables and their values; the children inherit them.
fn variables() -> String {
    let mut set: Vec<String> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("THEAP_"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    set.sort();
    if set.is_empty() {
        "none".into()
    } else {
        set.join(" ")
    }
}

/// The name and version of glibc, for example `glibc 2.36`.
pub fn glibc() -> String {
    // SAFETY: gnu_get_libc_version has no precondition; it returns a constant string that ends in
    // NUL.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    format!("glibc {}", version.to_string_lossy())
}
