//! The CPUs that threads run on.

use core_affinity::CoreId;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::Error;

/// Keeps the calling thread, and the threads that it starts, on this CPU.
///
/// # Errors
/// Fails if the process may not use the CPU.
pub(crate) fn pin_to(cpu: usize) -> Result<(), Error> {
    // core_affinity panics on numbers that its fixed set of CPUs has no room for.
    let known = cpu < libc::CPU_SETSIZE as usize;
    if known && core_affinity::set_for_current(CoreId { id: cpu }) {
        return Ok(());
    }
    Err(Error::Setup(format!(
        "cannot pin a thread to CPU {cpu}; pin to one of those in Cpus_allowed_list of /proc/self/status"
    )))
}

/// Keeps the calling thread, and the threads that it starts, on one of the CPUs that it may use:
/// the next CPU for each `nth`, and after the last one the first again.
///
/// # Errors
/// Fails if the kernel refuses.
pub(crate) fn pin_by_turn(nth: usize) -> Result<(), Error> {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let cpu = cpus.get(nth % cpus.len().max(1));
    match cpu {
        Some(&cpu) if core_affinity::set_for_current(cpu) => Ok(()),
        _ => Err(Error::Setup(format!("cannot keep thread {nth} on one CPU"))),
    }
}

/// The CPUs that the calling thread might use before a workload pinned it. When this value is
/// dropped, the thread may use them again.
pub(crate) struct Affinity(CpuSet);

impl Affinity {
    /// Remembers the calling thread's CPUs.
    ///
    /// # Errors
    /// Fails if the kernel does not tell them.
    pub(crate) fn keep() -> Result<Self, Error> {
        sched_getaffinity(None)
            .map(Self)
            .map_err(|error| Error::Setup(format!("cannot tell the allowed CPUs: {error}")))
    }

    /// These CPUs, the last first: interrupts mostly go to the first.
    pub(crate) fn cpus(&self) -> Vec<usize> {
        let all = (0..CpuSet::MAX_CPU).rev();
        all.filter(|&cpu| self.0.is_set(cpu)).collect()
    }
}

impl Drop for Affinity {
    fn drop(&mut self) {
        // The thread had this affinity before. If the set was narrowed meanwhile, it stays pinned.
        let _ = sched_setaffinity(None, &self.0);
    }
}
