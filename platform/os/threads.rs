//! Threads: the worker, CPUs, sleep.
#![allow(unsafe_code)] // Functions of the contract are unsafe, and forward to functions that are.

use core::sync::atomic::AtomicU32;

use super::Os;
#[cfg(feature = "fake")]
use crate::fake::Call;
use crate::{Cpus, Error, Worker, system};

impl Os {
    /// Starts `body(argument)` on a thread that the C library does not know, with all signals
    /// blocked; the start allocates nothing. The thread ends when `body` returns. Behind a fake no
    /// thread is started.
    ///
    /// # Errors
    /// [`Error::NoMemory`] (memory, or the limit of threads), [`Error::Other`]: nothing runs.
    ///
    /// # Safety
    /// The worker's last thread, if there was one, has ended (see [`Os::join_worker`]) or belonged
    /// to the process that forked this one. `body` calls only the functions of this page, takes
    /// only locks without a rank, and uses no thread-local variable.
    pub unsafe fn start_worker(
        self,
        worker: &'static Worker,
        body: fn(usize),
        argument: usize,
    ) -> Result<(), Error> {
        inject!(self, StartWorker);
        #[cfg(feature = "fake")]
        if self.fake.is_some() {
            return Ok(());
        }
        // SAFETY: the worker has no thread and `body` is modest, as the caller promises in `#
        // Safety`.
        unsafe { system::worker::start(worker, body, argument) }
    }

    /// Waits until the worker's thread has ended: that thread makes no system call any more.
    pub fn join_worker(self, worker: &Worker) {
        system::worker::join(worker);
    }

    /// The kernel's number of this thread, which the C library knows without a system call; 0 where
    /// it does not, as for a thread that it did not start.
    pub fn thread_id(self) -> u32 {
        system::process::thread_id()
    }

    /// Names this thread; the kernel keeps the first 15 bytes.
    pub fn name_thread(self, name: &core::ffi::CStr) {
        system::worker::name_thread(name);
    }

    /// Lets this thread run only where nothing else wants to (SCHED_IDLE), or like any other
    /// (SCHED_OTHER). For a [`Worker`]'s thread. The answer is whether the kernel agreed: the way
    /// back from idle needs CAP_SYS_NICE, or a RLIMIT_NICE that allows the thread's nice value.
    pub fn run_idle(self, idle: bool) -> bool {
        // Behind a fake the caller is a thread of the test.
        #[cfg(feature = "fake")]
        if self.fake.is_some() {
            return true;
        }
        system::worker::run_idle(idle)
    }

    /// Nanoseconds that this thread has run (CLOCK_THREAD_CPUTIME_ID).
    pub fn thread_time(self) -> u64 {
        system::process::thread_time()
    }

    /// Lets this thread run on these CPUs only, as far as the process may use them.
    ///
    /// # Errors
    /// [`Error::Other`]: the process may use none of them, or there are none.
    pub fn run_on(self, cpus: &Cpus) -> Result<(), Error> {
        system::affinity::run_on(cpus)
    }

    /// The CPUs on which this thread or the process's first one may run.
    pub fn pinned_to(self) -> Cpus {
        system::affinity::pinned_to()
    }

    /// Sleeps while `word` has `value`, for at most `ns` nanoseconds, or until [`Os::wake`].
    pub fn sleep(self, word: &AtomicU32, value: u32, ns: u64) {
        system::futex::wait(word, value, Some(ns));
    }

    /// Wakes a thread that sleeps on the word.
    pub fn wake(self, word: &AtomicU32) {
        system::futex::wake(word);
    }
}
