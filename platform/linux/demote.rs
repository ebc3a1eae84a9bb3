//! Moves memory off hugetlb pages in place, while other threads may write to it.
//!
//! Before a fork whose copies the hugetlb pool could not serve, the allocator moves SuperSlabs to
//! transparent or small pages. This module copies the contents to new memory, which then takes the
//! old memory's addresses by one `mremap`. A write of another thread in between would be lost, so
//! userfaultfd write-protects the old pages while they are copied: a thread that writes waits, and
//! then continues on the new pages. Where the process may not use userfaultfd, this works only
//! while no other thread writes.
#![allow(unsafe_code)] // Replaces mappings.

use core::ffi::c_ulong;
use core::mem::size_of;

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, MremapFlags, ProtFlags, UserfaultfdFlags};

use super::call::call;
use super::map::{self, pointer};
use super::{file, numa, worker};
use crate::{Error, HUGE, NodeId};

const API: u64 = 0xAA;
const FEATURE_WP: u64 = 1 << 0;
const FEATURE_WP_HUGETLB: u64 = 1 << 12;
const USER_MODE_ONLY: u32 = 1;
const REGISTER_WP: u64 = 1 << 1;
const PROTECT: u64 = 1 << 0;

/// An ioctl number of userfaultfd that reads and writes `T`.
const fn request<T>(number: c_ulong) -> c_ulong {
    3 << 30 | (size_of::<T>() as c_ulong) << 16 | (API as c_ulong) << 8 | number
}

#[repr(C)]
struct Handshake {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Protect {
    start: u64,
    len: u64,
    mode: u64,
}

/// See [`crate::Os::demote`].
///
/// # Safety
/// The conditions of [`crate::Os::demote`].
pub unsafe fn demote(
    addr: usize,
    len: usize,
    bind: Option<NodeId>,
    workers: usize,
) -> Result<(), Error> {
    let stack = (&raw const bind).addr();
    if (addr..addr + len).contains(&stack) {
        // The program has given this thread a stack from the heap: the thread would wait for
        // itself.
        return Err(Error::Unsupported);
    }
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place, so this touches no existing mapping. The additional
    // hugepage leaves room to align.
    let room = unsafe { mm::mmap_anonymous(core::ptr::null_mut(), len + HUGE, access, flags)? };
    let room = room.expose_provenance();
    let copy = room.next_multiple_of(HUGE);
    if let Some(node) = bind {
        // Memory of another node is better than none.
        let _ = numa::bind(copy, len, node);
    }
    // SAFETY: `len` bytes at `copy` lie within the fresh mapping, and `addr` is the caller's range
    // (`# Safety`).
    let done = unsafe { copy_and_replace(copy, addr, len, workers) };
    // SAFETY: what is left of the fresh mapping, which nobody else knows of: all of it if nothing
    // was moved.
    unsafe {
        if done.is_err() {
            map::unreserve(room, len + HUGE);
        } else {
            if copy > room {
                map::unreserve(room, copy - room);
            }
            map::unreserve(copy + len, room + HUGE - copy);
        }
    }
    done
}

/// Copies the range to `copy` and lets the copy take the range's addresses.
///
/// # Safety
/// The conditions of [`demote`]; `copy` is a fresh mapping of at least `len` bytes.
unsafe fn copy_and_replace(
    copy: usize,
    addr: usize,
    len: usize,
    workers: usize,
) -> Result<(), Error> {
    // SAFETY: `copy` is a fresh mapping of this length (`# Safety`).
    unsafe {
        // This is advice: a kernel without transparent hugepages gives small pages.
        let _ = mm::madvise(pointer(copy), len, Advice::LinuxHugepage);
        // Where the call is refused, the copying touches the pages: the caller knows that there is
        // memory for them.
        let _ = map::populate(copy, len);
    }
    // If a signal handler of this thread wrote to the range, it would wait for ever, or its write
    // would be lost.
    let mask = worker::set_signal_mask(!0);
    // SAFETY: the promises of `# Safety` are the same; the copy is populated and the signals are
    // blocked.
    let done = unsafe { replace(copy, addr, len, workers) };
    worker::set_signal_mask(mask);
    done
}

/// Copies and replaces the range while other threads that write to it wait.
///
/// # Safety
/// The conditions of [`copy_and_replace`]; the new mapping is populated, and this thread blocks all
/// signals.
unsafe fn replace(copy: usize, addr: usize, len: usize, workers: usize) -> Result<(), Error> {
    let guard = match protect(addr, len) {
        Ok(guard) => Some(guard),
        Err(_) if threads() == Some(1 + workers) => None,
        Err(error) => return Err(error),
    };
    // SAFETY: both ranges are mapped and do not overlap (`# Safety`). No other thread writes to the
    // old one: while `guard` lives the kernel lets them wait, and without `guard` the process has
    // none but the workers. The kernel replaces the old mapping in one step; writers continue when
    // `guard` is closed.
    unsafe {
        core::ptr::copy_nonoverlapping(addr as *const u8, copy as *mut u8, len);
        let moved = mm::mremap_fixed(pointer(copy), len, len, MremapFlags::MAYMOVE, pointer(addr));
        match moved {
            Ok(_) => Ok(()),
            Err(Errno::NOMEM) => Err(Error::NoMemory),
            // A filter forbids the call. To map anew and to copy back is not one step, which is
            // nobody's business where this is the only thread.
            Err(_) if threads() == Some(1 + workers) => {
                drop(guard);
                map_anew(copy, addr, len)
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Puts new memory in the place of the range, and what `copy` has into it, and unmaps `copy`.
///
/// # Safety
/// The conditions of [`replace`], and no other thread runs that uses the range.
unsafe fn map_anew(copy: usize, addr: usize, len: usize) -> Result<(), Error> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the contents are in `copy` (`# Safety`). An error comes before the old mapping is
    // gone: the new one is as long and asks for no pages.
    unsafe {
        mm::mmap_anonymous(pointer(addr), len, access, flags)?;
        core::ptr::copy_nonoverlapping(copy as *const u8, addr as *mut u8, len);
        map::unreserve(copy, len);
    }
    Ok(())
}

/// Lets writers to the range wait until the descriptor is closed.
fn protect(addr: usize, len: usize) -> Result<OwnedFd, Error> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    // SAFETY: the descriptor is used only for the caller's range.
    let open = |flags| unsafe { mm::userfaultfd(flags) };
    // A process without privileges may only let writes from user mode wait; a system call that
    // writes fails with EFAULT.
    let guard = open(flags)
        .or_else(|_| open(flags | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY)))?;
    let (start, len) = (addr as u64, len as u64);
    let mut handshake = Handshake {
        api: API,
        features: FEATURE_WP | FEATURE_WP_HUGETLB,
        ioctls: 0,
    };
    let mut register = Register {
        start,
        len,
        mode: REGISTER_WP,
        ioctls: 0,
    };
    let mut protect = Protect {
        start,
        len,
        mode: PROTECT,
    };
    // SAFETY: each number is the request of userfaultfd that takes this structure.
    unsafe {
        ioctl(&guard, 0x3F, &mut handshake)?;
        ioctl(&guard, 0x00, &mut register)?;
        ioctl(&guard, 0x06, &mut protect)?;
    }
    Ok(guard)
}

/// Makes a request of userfaultfd.
///
/// # Safety
/// `number` is a request of userfaultfd whose argument is a `T`.
unsafe fn ioctl<T>(guard: &OwnedFd, number: c_ulong, argument: &mut T) -> Result<(), Error> {
    let arguments = [
        guard.as_raw_fd() as usize,
        request::<T>(number) as usize,
        (&raw mut *argument).addr(),
    ];
    loop {
        // SAFETY: the kernel reads and writes one `T` (`# Safety`).
        match unsafe { call(libc::SYS_ioctl, arguments) } {
            Ok(_) => return Ok(()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::NOMEM) => return Err(Error::NoMemory),
            Err(_) => return Err(Error::Unsupported),
        }
    }
}

/// The number of this process's threads; `None` if the kernel does not say.
fn threads() -> Option<usize> {
    let mut buffer = [0; 4096];
    file::field(file::read(b"/proc/self/status", &mut buffer)?, b"Threads:")
}
