//! A thread of the allocator's own, started without the C library: `pthread_create` allocates, and the thread is wanted
//! in the middle of an allocation.
//!
//! The kernel is asked directly (`clone`), with memory of ours:
//!
//! ```text
//! | guard page | stack | thread-local block | thread control block |
//!                      ^ stack grows down    ^ %fs
//! ```
//!
//! The C library does not know the thread. Its block is zero but for the words by which `%fs` points to itself, which
//! is enough for the stack protector and for `errno`: the block reaches down to where `errno` lies in every thread. So
//! the thread must use no other thread-local variable: no `std::thread_local!`, no lock with a rank in debug builds,
//! no allocation. All its signals are blocked. It ends by returning; the kernel then clears its number and wakes who
//! waits for it, after its last use of the memory, which the next start uses again.
#![allow(unsafe_code)] // clone, and the memory of a thread.

use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use rustix::mm::{self, MapFlags, MprotectFlags, ProtFlags};
use rustix::thread::futex;

use super::map::pointer;
use crate::{Error, PAGE};

const STACK: usize = 128 << 10;
/// Room for what the C library keeps above `%fs`: its descriptor of a thread, less than 2.5 KiB.
const CONTROL: usize = PAGE;
/// Room below `errno`, for what lies next to it.
const MARGIN: usize = PAGE;
const ARCH_GET_FS: c_int = 0x1003;

/// A thread that runs, or may be started. All-zero is one that never ran.
#[derive(Debug)]
pub struct Worker {
    /// The kernel's number of the thread, 0 when there is none. The kernel writes it.
    pub(crate) tid: AtomicU32,
    /// Its memory, once there is one; never unmapped.
    memory: AtomicUsize,
    /// What it runs, and with what.
    body: AtomicUsize,
    argument: AtomicUsize,
}

impl Worker {
    /// A worker that never ran.
    pub const fn new() -> Self {
        Worker {
            tid: AtomicU32::new(0),
            memory: AtomicUsize::new(0),
            body: AtomicUsize::new(0),
            argument: AtomicUsize::new(0),
        }
    }
}

impl Worker {
    /// Whether it is one of the process's threads.
    pub fn exists(&self) -> bool {
        self.tid.load(Ordering::Acquire) != 0
    }

    /// In a forked child: its thread was the parent's.
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
/// As there.
pub unsafe fn start(
    worker: &'static Worker,
    body: fn(usize),
    argument: usize,
) -> Result<(), Error> {
    // SAFETY: errno is this thread's, and is the program's: it keeps its value.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let below = thread_pointer()? - errno as usize;
    let block = (below + MARGIN).next_multiple_of(PAGE);
    let memory = match worker.memory.load(Ordering::Relaxed) {
        0 => memory(block)?,
        memory => memory,
    };
    worker.memory.store(memory, Ordering::Relaxed);
    worker.body.store(body as usize, Ordering::Relaxed);
    worker.argument.store(argument, Ordering::Relaxed);
    let stack = memory + PAGE + STACK;
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
    // SAFETY: the memory is ours, mapped, and no thread's (the caller's promise); the control block points to itself,
    // at the two places where the ABI and the C library expect it. The thread starts with this thread's mask of
    // signals, all of them, which this thread gives back at once.
    let started = unsafe {
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
    // SAFETY: `start` passes a worker that lives for ever, with a function of this type in it.
    unsafe {
        let worker = &*worker.cast::<Worker>();
        let body: fn(usize) = core::mem::transmute(worker.body.load(Ordering::Relaxed));
        body(worker.argument.load(Ordering::Relaxed));
    }
    0
}

/// The memory of a thread whose thread-local block has so many bytes.
fn memory(block: usize) -> Result<usize, Error> {
    let len = PAGE + STACK + block + CONTROL;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK;
    // SAFETY: the kernel chooses the place, so no existing mapping is touched.
    let memory = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags) }?
        .expose_provenance();
    let rights = MprotectFlags::READ | MprotectFlags::WRITE;
    // SAFETY: the mapping is ours; its first page stays closed.
    let opened = unsafe { mm::mprotect(pointer(memory + PAGE), len - PAGE, rights) };
    if let Err(errno) = opened {
        // SAFETY: nobody else knows of the mapping.
        let _ = unsafe { mm::munmap(pointer(memory), len) };
        return Err(errno.into());
    }
    Ok(memory)
}

/// Sets the signals that this thread blocks, those of the C library too; those that it blocked before.
pub(super) fn set_signal_mask(mask: u64) -> u64 {
    let mut before = 0u64;
    // SAFETY: the kernel reads and writes one word each. It cannot fail with these arguments.
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

/// What `%fs` points to in this thread.
fn thread_pointer() -> Result<usize, Error> {
    let mut at = 0usize;
    // SAFETY: the kernel writes one word to `at`. An error would go to errno, of which a caller that never saw this
    // call fail since Linux 2.6 need not know.
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
        // The kernel wakes across processes, so the word is no private one.
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
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads the parameter. errno is the worker's own, which nobody reads.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            policy,
            &raw const parameter,
        )
    };
    answer == 0
}

/// See [`crate::Os::sleep`].
pub fn sleep(word: &AtomicU32, value: u32, ns: u64) {
    let timeout = futex::Timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as _,
    };
    // However it ends, the caller looks.
    let _ = futex::wait(word, futex::Flags::PRIVATE, value, Some(&timeout));
}

/// See [`crate::Os::wake`].
pub fn wake(word: &AtomicU32) {
    let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
}
