//! The CPUs on which threads may run, as the kernel has it.

use rustix::thread::{self, CpuSet, Pid};

use crate::{Cpu, Cpus, Error};

/// See [`crate::Os::run_on`].
pub fn run_on(cpus: &Cpus) -> Result<(), Error> {
    let mut set = CpuSet::new();
    for cpu in (0..CpuSet::MAX_CPU as u32).filter(|&cpu| cpus.has(Cpu(cpu))) {
        set.set(cpu as usize);
    }
    Ok(thread::sched_setaffinity(None, &set)?)
}

/// See [`crate::Os::pinned_to`].
pub fn pinned_to() -> Cpus {
    let main = rustix::process::getpid();
    let mut all = Cpus::none();
    for thread in [None, Some(main)] {
        add_cpus_of(thread, &mut all);
    }
    all
}

/// Adds the CPUs on which a thread (`None`: the caller) may run.
fn add_cpus_of(thread: Option<Pid>, cpus: &mut Cpus) {
    if let Ok(set) = thread::sched_getaffinity(thread) {
        for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)) {
            cpus.add(Cpu(cpu as u32));
        }
    }
}
