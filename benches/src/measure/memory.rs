//! The process's memory, as the kernel counts it. hugetlb pages are not part of a process's
//! resident size, so they are added: a reading without them would call them free.

use procfs::process::{Process, Status};

use crate::error::Error;

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

fn status() -> Result<Status, Error> {
    Process::myself()
        .and_then(|process| process.status())
        .map_err(|error| Error::Setup(format!("cannot read /proc/self/status: {error}")))
}
