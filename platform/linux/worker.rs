//! A thread of the allocator's own, started without the C library: `pthread_create` allocates, and
//! the allocator starts the thread in the middle of an allocation.
//!
//! This module asks the kernel directly (`clone`), and gives the thread memory of its own:
//!
//! ```text
//! | guard page | stack | thread-local block | thread control block |
//!                      ^ stack grows down    ^ %fs
//! ```
//!
//! The C library does not know the thread. The thread-local block is zero but for the words by
//! which `%fs` points to itself. That is enough for the stack protector and for `errno`: the block
//! reaches down to where `errno` lies in every thread. So the thread must use no other thread-local
//! variable: no `std::thread_local!`, no lock with a rank in debug builds, no allocation. All its
//! signals are blocked. The thread ends by returning. After its last use of the memory the kernel
//! clears the thread's number and wakes the thread that waits for this. The next start uses the
//! same memory again.
#![allow(unsafe_code)] // clone, and the memory of a thread.

use core::ffi::{CStr, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use rustix::mm::{self, MapFlags, MprotectFlags, ProtFlags};
use rustix::thread::futex;

use super::map::pointer;
use crate::{Error, PAGE};

const STACK: usize = 128 << 10;
/// Bytes for the C library's descriptor of a thread, which lies above `%fs` and has less than 2.5
/// KiB in glibc and in musl.
const CONTROL: usize = PAGE;
/// Bytes below `errno`, for the thread-local variables next to it.
const MARGIN: usize = PAGE;
const ARCH_GET_FS: c_int = 0x1003;

/// A thread that runs, or that [`Os::start_worker`](crate::Os::start_worker) may start. All-zero
/// memory is a worker that never ran.
#[derive(Debug)]
pub struct Worker {
    /// The kernel's number of the thread, 0 when there is none. The kernel writes it.
    pub(crate) tid: AtomicU32,
    /// The address of the thread's memory once it has some, which nobody ever unmaps; else 0.
    memory: AtomicUsize,
    /// The thread's function, a `fn(usize)`, and its argument.
    body: AtomicPtr<()>,
    argument: AtomicUsize,
}

impl Worker {
    /// A worker that never ran.
    pub const fn new() -> Self {
        Worker {
            tid: AtomicU32::new(0),
            memory: AtomicUsize::new(0),
            body: AtomicPtr::new(ptr::null_mut()),
            argument: AtomicUsize::new(0),
        }
    }

    /// Whether the worker's thread runs.
    pub fn exists(&self) -> bool {
        self.tid.load(Ordering::Acquire) != 0
    }

    /// In a forked child: notes that the worker's thread was the parent's, and that there is none
    /// here.
    pub fn forget(&self) {
        self.tid.store(0, Ordering::Relaxed);
    }
}

impl Default for Worker {
    fn default() -> Self {
        Worker::new()
    }
}

/// See [`crate::Os::start_worker`].
///
/// # Safety
/// The conditions of [`crate::Os::start_worker`].
pub unsafe fn start(
    worker: &'static Worker,
    body: fn(usize),
    argument: usize,
) -> Result<(), Error> {
    // SAFETY: the call has no precondition.
    let errno = unsafe { libc::__errno_location() };
    // musl has it in the descriptor above.
    let below = thread_pointer()?.saturating_sub(errno as usize);
    let block = (below + MARGIN).next_multiple_of(PAGE);
    let memory = match worker.memory.load(Ordering::Relaxed) {
        0 => memory(block)?,
        memory => memory,
    };
    worker.memory.store(memory, Ordering::Relaxed);
    worker.body.store(body as *mut (), Ordering::Relaxed);
    worker.argument.store(argument, Ordering::Relaxed);
    // SAFETY: `memory` is mapped with a block of this size, and no thread uses it: the worker has
    // no thread (`# Safety`).
    unsafe { spawn(worker, memory + PAGE + STACK, block, errno) }
}

/// Starts the worker's thread with a stack that ends at `stack` and a thread-local block of `block`
/// bytes above it. Keeps `errno`, which is the program's.
///
/// # Safety
/// The stack, the block and the control block above are mapped as this module's header shows, and
/// no thread uses them. `errno` is this thread's.
unsafe fn spawn(
    worker: &'static Worker,
    stack: usize,
    block: usize,
    errno: *mut c_int,
) -> Result<(), Error> {
    let control = stack + block;
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    let tid = worker.tid.as_ptr();
    // SAFETY: the memory is mapped and no thread uses it (`# Safety`). The control block points to
    // itself, at the two places where the ABI and the C library expect it. `run` gets a worker that
    // lives for ever. The new thread inherits this thread's mask of signals, which blocks all until
    // this thread restores its own.
    let started = unsafe {
        let before = *errno;
        pointer(control).cast::<usize>().write(control);
        pointer(control + 16).cast::<usize>().write(control);
        let mask = set_signal_mask(!0);
        let started = libc::clone(
            run,
            pointer(stack),
            flags,
            ptr::from_ref(worker).cast_mut().cast(),
            tid,
            pointer(control),
            tid,
        );
        let error = *errno;
        set_signal_mask(mask);
        *errno = before;
        if started < 0 { Err(error) } else { Ok(()) }
    };
    started.map_err(|errno| rustix::io::Errno::from_raw_os_error(errno).into())
}

/// The thread's first and last function.
extern "C" fn run(worker: *mut c_void) -> c_int {
    // SAFETY: only `spawn` names this function. It passes a worker that lives for ever, in which
    // `start` has put a function of this type.
    unsafe {
        let worker = &*worker.cast::<Worker>();
        let body: *mut () = worker.body.load(Ordering::Relaxed);
        let body: fn(usize) = core::mem::transmute(body);
        body(worker.argument.load(Ordering::Relaxed));
    }
    0
}

/// Maps the memory of a thread whose thread-local block has `block` bytes, and answers its address.
fn memory(block: usize) -> Result<usize, Error> {
    let len = PAGE + STACK + block + CONTROL;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK;
    // SAFETY: the kernel chooses the place, so no existing mapping is touched.
    let memory = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags) }?
        .expose_provenance();
    let rights = MprotectFlags::READ | MprotectFlags::WRITE;
    // SAFETY: this function made the mapping just now; its first page stays closed.
    let opened = unsafe { mm::mprotect(pointer(memory + PAGE), len - PAGE, rights) };
    if let Err(errno) = opened {
        // SAFETY: this function made the mapping just now, and nobody else knows of it.
        let _ = unsafe { mm::munmap(pointer(memory), len) };
        return Err(errno.into());
    }
    Ok(memory)
}

/// Sets the mask of signals that this thread blocks, also of those that the C library keeps for
/// itself, and answers the mask before.
pub(super) fn set_signal_mask(mask: u64) -> u64 {
    let mut before = 0u64;
    // SAFETY: the kernel reads `mask` and writes `before`, one word each. The call cannot fail with
    // these arguments.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            &raw mut before,
            size_of::<u64>(),
        );
    }
    before
}

/// The address to which `%fs` points in this thread.
fn thread_pointer() -> Result<usize, Error> {
    let mut at = 0usize;
    // SAFETY: the kernel writes one word to `at`. An error would change errno; since Linux 2.6 this
    // call does not fail.
    match unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_FS, &raw mut at) } {
        0 => Ok(at),
        _ => Err(Error::Unsupported),
    }
}

/// See [`crate::Os::join_worker`].
pub fn join(worker: &Worker) {
    loop {
        let tid = worker.tid.load(Ordering::Acquire);
        if tid == 0 {
            return;
        }
        // The kernel wakes across processes, so the futex must not be a private one.
        let _ = futex::wait(&worker.tid, futex::Flags::empty(), tid, None);
    }
}

/// See [`crate::Os::run_idle`].
pub fn run_idle(idle: bool) -> bool {
    let policy = if idle {
        libc::SCHED_IDLE
    } else {
        libc::SCHED_OTHER
    };
    // The kernel's structure: that of some C libraries has more.
    let priority: libc::c_int = 0;
    // SAFETY: the kernel reads the priority. An error goes to the errno of the worker's thread,
    // which nobody reads.
    let answer =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) };
    answer == 0
}

/// See [`crate::Os::name_thread`].
pub fn name_thread(name: &CStr) {
    let _ = rustix::thread::set_name(name);
}
