//! The allocator's own thread, which cannot be started under Miri.
#![allow(unsafe_code)] // The signature of `start` is that of `linux/worker.rs`.

use core::ffi::CStr;

use crate::Error;

/// A thread that never runs.
#[derive(Debug)]
pub struct Worker(());

impl Worker {
    /// A worker that never ran.
    pub const fn new() -> Self {
        Worker(())
    }

    /// Whether the worker's thread runs.
    pub fn exists(&self) -> bool {
        false
    }

    /// In a forked child: notes that the worker's thread was the parent's.
    pub fn forget(&self) {}
}

impl Default for Worker {
    fn default() -> Self {
        Worker::new()
    }
}

/// See [`crate::Os::start_worker`].
///
/// # Safety
/// This has no precondition, as nothing starts.
pub unsafe fn start(
    _worker: &'static Worker,
    _body: fn(usize),
    _argument: usize,
) -> Result<(), Error> {
    Err(Error::Unsupported)
}

/// See [`crate::Os::join_worker`].
pub fn join(_worker: &Worker) {}

/// See [`crate::Os::name_thread`].
pub fn name_thread(_name: &CStr) {}

/// See [`crate::Os::run_idle`].
pub fn run_idle(_idle: bool) -> bool {
    true
}
