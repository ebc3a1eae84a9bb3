//! Hugetlb pages in the place of reserved ranges. They are built and populated elsewhere: a pool or
//! control group that cannot serve them shows there as an error, where a page fault would be
//! SIGBUS.
#![allow(unsafe_code)] // The memory system calls.

use core::ptr;

use rustix::io::Errno;
use rustix::mm::{self, MapFlags, MremapFlags, ProtFlags};

use super::call::call;
use super::map::{
    close_hole_unless_refused, close_hole_unless_there, pointer, populate, unmap, unreserve,
};
use super::numa;
use crate::{Error, HUGE, HUGE_1G, NodeId, PageMode};

/// Puts hugetlb pages in the place of a reserved range, of which the first `touched` bytes are
/// populated.
///
/// # Safety
/// The conditions of [`super::map::map`].
pub unsafe fn map_hugetlb(
    addr: usize,
    (len, touched): (usize, usize),
    size: MapFlags,
    bind: Option<NodeId>,
) -> Result<(), Error> {
    let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | size;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place, so this touches no existing mapping.
    let built = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, access, flags) };
    let built = match built {
        Ok(built) => built.expose_provenance(),
        // The kernel has no hugetlb pages, or no pool of this size: to the caller both are an empty
        // pool.
        Err(_) => return Err(Error::NoHugepages),
    };
    let step = if size == MapFlags::HUGE_1GB {
        HUGE_1G
    } else {
        HUGE
    };
    // SAFETY: `built` is a fresh hugetlb mapping that nobody else knows of, and the range at `addr`
    // is aligned and only reserved (`# Safety`).
    unsafe {
        let ready = |at| {
            bind.map_or(Ok(()), |node| numa::bind(at, len, node))?;
            fill(at, touched, step)
        };
        let placed = ready(built).and_then(|()| place(built, addr, len));
        match placed {
            Ok(()) => return Ok(()),
            // After every failure the pages are still at `built`.
            Err(_) => unreserve(built, len),
        }
        // The kernel before 5.16 does not move such pages, nor does it behind some filters.
        if placed != Err(Error::Unsupported) {
            return placed;
        }
        if mm::mmap_anonymous(pointer(addr), len, access, flags | MapFlags::FIXED).is_err() {
            close_hole_unless_there(addr, len)?;
            return Err(Error::NoHugepages);
        }
        ready(addr).or_else(|error| unmap(addr, len, PageMode::Hugetlb).and(Err(error)))
    }
}

/// Populates hugetlb pages of `step` bytes.
///
/// # Errors
/// [`Error::NoHugepages`] if the pool or a control group does not give all pages.
///
/// # Safety
/// The pages are mapped, untouched, and the caller's alone.
pub unsafe fn fill(addr: usize, len: usize, step: usize) -> Result<(), Error> {
    for at in (addr..addr + len).step_by(step) {
        // The kernel itself writes to the page: where there is none it answers EFAULT, a touch of
        // this thread's would end in SIGBUS. What it writes, the mask of signals, is any call's
        // that writes a few bytes and needs no right.
        let mask = [libc::SIG_BLOCK as usize, 0, at, size_of::<u64>()];
        // SAFETY: nothing is blocked, as the set is null, and the page is the caller's alone (`#
        // Safety`).
        match unsafe { call(libc::SYS_rt_sigprocmask, mask) } {
            // SAFETY: the page is there now.
            Ok(_) => unsafe { pointer(at).cast::<u64>().write(0) },
            Err(Errno::FAULT) => return Err(Error::NoHugepages),
            // SAFETY: the caller's mapping.
            Err(_) => unsafe { populate(at, step) }.map_err(|_| Error::NoHugepages)?,
        }
    }
    Ok(())
}

/// Moves the hugetlb pages at `built` to `addr`.
///
/// # Errors
/// [`Error::Unsupported`]: the kernel, or a filter in front of it, does not move such pages.
/// [`Error::Lost`], or another error: as for [`super::map::map`]. The pages are still at `built`.
///
/// # Safety
/// `built` is a hugetlb mapping of `len` bytes that only the caller knows of; the range at `addr`
/// is as for [`super::map::map`].
unsafe fn place(built: usize, addr: usize, len: usize) -> Result<(), Error> {
    let flags = MremapFlags::MAYMOVE;
    // SAFETY: the target is reserved (`# Safety`), so the pages replace nothing of value.
    match unsafe { mm::mremap_fixed(pointer(built), len, len, flags, pointer(addr)) } {
        Ok(_) => Ok(()),
        Err(errno) => {
            // SAFETY: the range is reserved (`# Safety`), so it holds nothing of value.
            unsafe { close_hole_unless_refused(errno, addr, len) }?;
            Err(match errno {
                Errno::NOMEM => Error::NoMemory,
                _ => Error::Unsupported,
            })
        }
    }
}

/// See [`crate::Os::hugetlb_serves`].
pub fn hugetlb_serves(len: usize) -> bool {
    let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB;
    // SAFETY: the kernel chooses the place, and nothing is touched.
    let tried = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ, flags) };
    // SAFETY: mapped just now, and nobody else knows of it.
    tried.map(|at| unsafe { unreserve(at.addr(), len) }).is_ok()
}
