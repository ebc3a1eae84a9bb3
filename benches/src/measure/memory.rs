//! The process's memory, as the kernel counts it. hugetlb pages are not part of a process's
//! resident size, so they are added: a reading without them would call them free.

use procfs::process::{Process, Status};
use rustix::thread::disable_transparent_huge_pages;

use crate::error::Error;

/// The promise that the kernel backs nothing that the process touches by transparent hugepages,
/// whatever an allocator asks for, as long as this value lives.
pub(crate) struct SmallPages(());

impl SmallPages {
    /// Tells the kernel so.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn of_process() -> Result<Self, Error> {
        match disable_transparent_huge_pages(true) {
            Ok(()) => Ok(Self(())),
            Err(error) => Err(Error::Setup(format!(
                "cannot go without hugepages: {error}"
            ))),
        }
    }
}

impl Drop for SmallPages {
    fn drop(&mut self) {
        // The same call has succeeded before.
        let _ = disable_transparent_huge_pages(false);
    }
}

/// The most memory of the process so far, in bytes. Its hugetlb pages are counted at this moment.
pub(crate) fn peak_memory() -> Result<u64, Error> {
    let status = status()?;
    Ok((status.vmhwm.unwrap_or(0) + status.hugetlbpages.unwrap_or(0)) * 1024)
}

/// The memory of the process at this moment, in bytes.
pub(crate) fn present_memory() -> Result<u64, Error> {
    let status = status()?;
    Ok((status.vmrss.unwrap_or(0) + status.hugetlbpages.unwrap_or(0)) * 1024)
}

/// The memory of the process at this moment, in bytes, counted page by page: the kernel keeps the
/// figure of [`present_memory`] for each CPU or thread and adds up only now and then, which is too
/// coarse for a process with many threads. Pages that the process has only offered to the kernel
/// (MADV_FREE) count until the kernel takes them.
pub(crate) fn resident_memory() -> Result<u64, Error> {
    let rollup = Process::myself()
        .and_then(|process| process.smaps_rollup())
        .map_err(|error| Error::Setup(format!("cannot read /proc/self/smaps_rollup: {error}")))?;
    let maps = rollup.memory_map_rollup.0.iter();
    let small: Option<u64> = maps.map(|map| map.extension.map.get("Rss").copied()).sum();
    let small = small.filter(|&bytes| bytes > 0);
    let small = small.ok_or_else(|| Error::Setup("/proc/self/smaps_rollup has no Rss".into()))?;
    Ok(small + hugetlb_memory()?)
}

/// The hugetlb pages of the process at this moment, in bytes.
pub(crate) fn hugetlb_memory() -> Result<u64, Error> {
    Ok(status()?.hugetlbpages.unwrap_or(0) * 1024)
}

fn status() -> Result<Status, Error> {
    Process::myself()
        .and_then(|process| process.status())
        .map_err(|error| Error::Setup(format!("cannot read /proc/self/status: {error}")))
}
