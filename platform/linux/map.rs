//! Reservations and what is mapped into them.
//!
//! Small and thp memory never replaces a mapping: `mprotect` opens the reserved range and closes it
//! again, so a failing call leaves it as it was. Hugetlb memory must replace one. It is built and
//! populated elsewhere (a pool or cgroup that cannot serve it shows there as an error, where a fault
//! would be SIGBUS) and moved into place by `mremap`, whose failure is rare and handled by
//! [`close_hole`].
#![allow(unsafe_code)] // The memory system calls.

use core::ffi::c_void;
use core::ptr;

use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, MlockFlags, MprotectFlags, MremapFlags, ProtFlags};

use super::numa;
use crate::{Error, HUGE, NodeId, PAGE, PageMode};

/// A reservation: private, without access, and not charged against the commit limit.
const RESERVED: MapFlags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);
const READ_WRITE: MprotectFlags = MprotectFlags::READ.union(MprotectFlags::WRITE);
/// EAGAIN is transient, but a kernel that always answers it must not hang the process.
const EAGAIN_LIMIT: u32 = 64;

pub(super) fn pointer(addr: usize) -> *mut c_void {
    ptr::with_exposed_provenance_mut(addr)
}

/// See [`crate::Os::reserve`].
pub fn reserve(len: usize, align: usize) -> Result<usize, Error> {
    let padded = len.checked_add(align - PAGE).ok_or(Error::NoMemory)?;
    // SAFETY: the kernel chooses the place, so no existing mapping is touched.
    let start =
        unsafe { mm::mmap_anonymous(ptr::null_mut(), padded, ProtFlags::empty(), RESERVED) }?
            .expose_provenance();
    let addr = start.next_multiple_of(align);
    let (head, tail) = (addr - start, start + padded - (addr + len));
    for (addr, len) in [(start, head), (addr + len, tail)] {
        if len != 0 {
            // SAFETY: this is the part of the fresh mapping outside what is returned.
            unsafe { unreserve(addr, len) };
        }
    }
    Ok(addr)
}

/// See [`crate::Os::unreserve`].
///
/// # Safety
/// As there.
pub unsafe fn unreserve(addr: usize, len: usize) {
    // SAFETY: the caller owns the range and nothing refers to it. munmap fails only when it would have
    // to split a mapping and there are too many; then the addresses stay reserved, which harms nobody.
    let _ = unsafe { mm::munmap(pointer(addr), len) };
}

/// See [`crate::Os::commit`].
///
/// # Safety
/// As there.
pub unsafe fn commit(addr: usize, len: usize) -> Result<(), Error> {
    // SAFETY: the range is ours; opening it invalidates nothing.
    Ok(unsafe { mm::mprotect(pointer(addr), len, READ_WRITE) }?)
}

/// See [`crate::Os::map`].
///
/// # Safety
/// As there.
pub unsafe fn map(
    addr: usize,
    len: usize,
    mode: PageMode,
    bind: Option<NodeId>,
) -> Result<(), Error> {
    // SAFETY: the caller's precondition is the same for both.
    unsafe {
        match mode {
            PageMode::Small => map_pages(addr, len, Advice::LinuxNoHugepage, bind),
            PageMode::Thp => map_pages(addr, len, Advice::LinuxHugepage, bind),
            PageMode::Hugetlb => map_hugetlb(addr, len, MapFlags::HUGE_2MB, bind),
            PageMode::Hugetlb1g => map_hugetlb(addr, len, MapFlags::HUGE_1GB, bind),
        }
    }
}

/// Opens a reserved range for small or transparent huge pages.
///
/// The advice and the policy are set while the range is still closed, so that a failure leaves it
/// reserved.
///
/// # Safety
/// As [`map`].
unsafe fn map_pages(
    addr: usize,
    len: usize,
    advice: Advice,
    bind: Option<NodeId>,
) -> Result<(), Error> {
    // SAFETY: the advice concerns only future pages of a range that has none.
    match unsafe { mm::madvise(pointer(addr), len, advice) } {
        Ok(()) => {}
        // A kernel without transparent hugepages: small pages need no advice there.
        Err(Errno::INVAL) if advice == Advice::LinuxNoHugepage => {}
        Err(Errno::INVAL) => return Err(Error::Unsupported),
        Err(errno) => return Err(errno.into()),
    }
    if let Some(node) = bind {
        numa::bind(addr, len, node)?;
    }
    // SAFETY: the caller's precondition is the same.
    unsafe { commit(addr, len) }
}

/// Puts populated hugetlb pages in the place of a reserved range.
///
/// # Safety
/// As [`map`].
unsafe fn map_hugetlb(
    addr: usize,
    len: usize,
    size: MapFlags,
    bind: Option<NodeId>,
) -> Result<(), Error> {
    let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | size;
    // SAFETY: the kernel chooses the place, so no existing mapping is touched.
    let built = unsafe {
        mm::mmap_anonymous(
            ptr::null_mut(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            flags,
        )
    };
    let built = match built {
        Ok(built) => built.expose_provenance(),
        // No support compiled in, or no pool of this page size: to the caller both are an empty pool.
        Err(_) => return Err(Error::NoHugepages),
    };
    // SAFETY: `built` is the fresh mapping, and `addr` is the caller's.
    let placed = unsafe { fill_and_place(built, addr, len, bind) };
    if placed.is_err() {
        // SAFETY: whatever failed, the pages are still at `built` and nobody knows of them.
        unsafe { unreserve(built, len) };
    }
    placed
}

/// Binds and populates the hugetlb mapping at `built` and moves it to `addr`.
///
/// # Safety
/// `built` is a hugetlb mapping of `len` bytes that only the caller knows of; `addr` as in [`map`].
unsafe fn fill_and_place(
    built: usize,
    addr: usize,
    len: usize,
    bind: Option<NodeId>,
) -> Result<(), Error> {
    if let Some(node) = bind {
        numa::bind(built, len, node)?;
    }
    // SAFETY: `built` is mapped and only ours.
    unsafe { populate(built, len) }.map_err(|_| Error::NoHugepages)?;
    let flags = MremapFlags::MAYMOVE;
    // SAFETY: the target is a reserved range of the caller's, in which nothing lives.
    match unsafe { mm::mremap_fixed(pointer(built), len, len, flags, pointer(addr)) } {
        Ok(_) => Ok(()),
        Err(errno) => {
            // SAFETY: the range is the caller's and holds nothing.
            unsafe { close_hole_unless_refused(errno, addr, len, built) }?;
            // Before Linux 5.16 hugetlb mappings could not be moved.
            Err(if errno == Errno::INVAL {
                Error::Unsupported
            } else {
                errno.into()
            })
        }
    }
}

/// See [`crate::Os::prefer_huge`].
///
/// # Safety
/// The range is page-aligned and committed.
pub unsafe fn prefer_huge(addr: usize, len: usize) {
    // A kernel that can do neither refuses, which changes nothing.
    // SAFETY: the caller's precondition is the same.
    let _ = unsafe { collapse(addr, len) };
}

/// See [`crate::Os::collapse`].
///
/// # Safety
/// As there.
pub unsafe fn collapse(addr: usize, len: usize) -> Result<(), Error> {
    // SAFETY: advice about the caller's own range, and collapsing keeps contents. rustix does not know the advice; errno
    // is the program's.
    unsafe {
        mm::madvise(pointer(addr), len, Advice::LinuxHugepage)?;
        let errno = libc::__errno_location();
        let before = *errno;
        let done = libc::madvise(pointer(addr), len, libc::MADV_COLLAPSE);
        match core::mem::replace(&mut *errno, before) {
            _ if done == 0 => Ok(()),
            error => Err(Errno::from_raw_os_error(error).into()),
        }
    }
}

/// See [`crate::Os::populate`].
///
/// # Safety
/// As there.
pub unsafe fn populate(addr: usize, len: usize) -> Result<(), Error> {
    // Piece by piece, as whoever changes a mapping of the process waits for each call.
    (addr..addr + len).step_by(HUGE).try_for_each(|at| {
        // SAFETY: a part of the caller's range.
        unsafe { populate_piece(at, HUGE.min(addr + len - at)) }
    })
}

/// # Safety
/// As for [`populate`].
unsafe fn populate_piece(addr: usize, len: usize) -> Result<(), Error> {
    let mut again = 0;
    loop {
        // SAFETY: populating keeps the contents of a range that the caller owns. A repetition passes
        // over the pages that are already there.
        match unsafe { mm::madvise(pointer(addr), len, Advice::LinuxPopulateWrite) } {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if again < EAGAIN_LIMIT => again += 1,
            Err(Errno::INVAL) => return Err(Error::Unsupported),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// See [`crate::Os::lock`].
///
/// # Safety
/// As there.
pub unsafe fn lock(addr: usize, len: usize) -> Result<(), Error> {
    // SAFETY: locking changes nothing that is seen in the range.
    Ok(unsafe { mm::mlock_with(pointer(addr), len, MlockFlags::ONFAULT) }?)
}

/// See [`crate::Os::purge`].
///
/// # Safety
/// As there.
pub unsafe fn purge(addr: usize, len: usize) -> Result<(), Error> {
    // SAFETY: the caller gives up the contents.
    let purged = unsafe { mm::madvise(pointer(addr), len, Advice::LinuxDontNeed) };
    if purged == Err(Errno::INVAL) {
        // A process that locks its memory (mlockall) must say that it means locked pages too.
        // SAFETY: as above.
        return Ok(unsafe { mm::madvise(pointer(addr), len, Advice::LinuxDontneedLocked) }?);
    }
    Ok(purged?)
}

/// See [`crate::Os::unmap`].
///
/// # Safety
/// As there.
pub unsafe fn unmap(addr: usize, len: usize, mode: PageMode) -> Result<(), Error> {
    if mode.is_hugetlb() {
        let flags = RESERVED | MapFlags::FIXED;
        // SAFETY: the caller gives up the range; it is replaced by a reservation.
        return match unsafe { mm::mmap_anonymous(pointer(addr), len, ProtFlags::empty(), flags) } {
            Ok(_) => Ok(()),
            // SAFETY: the range is the caller's and is given up.
            Err(_) => unsafe { close_hole(addr, len) },
        };
    }
    // SAFETY: the caller gives up the contents, and nobody accesses the range any more.
    unsafe {
        purge(addr, len)?;
        Ok(mm::mprotect(pointer(addr), len, MprotectFlags::empty())?)
    }
}

/// See [`crate::Os::move_pages`].
///
/// # Safety
/// As there.
pub unsafe fn move_pages(from: usize, to: usize, len: usize) -> Result<(), Error> {
    let flags = MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP;
    // So that it can be told whether the kernel removed it.
    // SAFETY: the caller owns `to` and gives up its contents.
    if unsafe { mm::mprotect(pointer(to), len, MprotectFlags::empty()) }.is_err() {
        return Err(Error::Unsupported);
    }
    // SAFETY: the caller owns both ranges, gives up the contents of `to` and lends those of `from`.
    match unsafe { mm::mremap_fixed(pointer(from), len, len, flags, pointer(to)) } {
        Ok(_) => Ok(()),
        Err(errno) => {
            // SAFETY: the caller owns `to` and gave up its contents; in the end it can be used again, if it is there.
            unsafe {
                if errno != Errno::INVAL {
                    close_hole_unless_refused(errno, to, len, from)?;
                }
                mm::mprotect(pointer(to), len, READ_WRITE)?;
            }
            Err(Error::Unsupported)
        }
    }
}

/// After a call that may or may not have removed the mappings of a range: reserves it again.
///
/// The kernel cannot say whether a mapping that is found there now is the old one or a foreign one
/// that was faster, so both count as lost; what is given up in the first case is addresses only.
///
/// # Safety
/// The range is the caller's and holds nothing of value.
pub(super) unsafe fn close_hole(addr: usize, len: usize) -> Result<(), Error> {
    let flags = RESERVED | MapFlags::FIXED_NOREPLACE;
    // SAFETY: NOREPLACE touches no existing mapping.
    match unsafe { mm::mmap_anonymous(pointer(addr), len, ProtFlags::empty(), flags) } {
        Ok(start) if start.addr() == addr => Ok(()),
        Ok(start) => {
            // A kernel before 4.17 takes the address as a wish.
            // SAFETY: this mapping was made just now and is known to nobody.
            unsafe { unreserve(start.addr(), len) };
            Err(Error::Lost)
        }
        Err(_) => Err(Error::Lost),
    }
}

/// As [`close_hole`] after a move to a range without access that failed with `errno`, but also right where the range is
/// still there: near the limit of mappings (vm.max_map_count) the kernel refuses before it removes anything.
///
/// # Safety
/// As for [`close_hole`]; `readable` is a page that can be read.
unsafe fn close_hole_unless_refused(
    errno: Errno,
    addr: usize,
    len: usize,
    readable: usize,
) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { close_hole(addr, len) }.or_else(|lost| {
        // A kernel that failed in the middle would have to be out of memory for itself, and somebody else would have to
        // have reserved all of these addresses since.
        if errno == Errno::NOMEM && is_reserved(addr, len, readable) {
            Ok(())
        } else {
            Err(lost)
        }
    })
}

/// Whether the first and the last page of a range are mapped without access, as reservations are. Where the kernel does
/// not know the question (before 5.14), they are not.
fn is_reserved(addr: usize, len: usize, readable: usize) -> bool {
    // SAFETY: populating changes no contents, whoever the page belongs to.
    let ask = |page| unsafe { mm::madvise(pointer(page), PAGE, Advice::LinuxPopulateRead) };
    ask(readable) == Ok(())
        && [addr, addr + len - PAGE].map(ask) == [Err(Errno::INVAL), Err(Errno::INVAL)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_known() {
        let addr = reserve(3 * HUGE, HUGE).unwrap();
        // SAFETY: all within the reservation, which nobody else knows of.
        unsafe {
            let next = addr + HUGE;
            assert!(!is_reserved(next, HUGE, addr), "nothing can be read");
            map(addr, HUGE, PageMode::Small, None).unwrap();
            assert!(is_reserved(next, 2 * HUGE, addr));
            assert!(!is_reserved(addr, 3 * HUGE, addr), "its start can be read");
            unreserve(addr + 2 * HUGE, HUGE);
            assert!(!is_reserved(next, 2 * HUGE, addr), "its end is not there");
            assert!(is_reserved(next, HUGE, addr));
            unreserve(addr, 2 * HUGE);
        }
    }

    #[test]
    fn a_hole_is_closed_and_an_occupied_place_is_lost() {
        let addr = reserve(3 * HUGE, HUGE).unwrap();
        // SAFETY: all within the reservation, which nobody else knows of. (Another thread could take
        // the hole; this crate's other unit tests map nothing.)
        unsafe {
            assert_eq!(close_hole(addr + HUGE, HUGE), Err(Error::Lost));
            unreserve(addr + HUGE, HUGE);
            assert_eq!(close_hole(addr + HUGE, HUGE), Ok(()));
            unreserve(addr + HUGE, HUGE);
            assert_eq!(close_hole(addr + HUGE, 2 * HUGE), Err(Error::Lost));
            assert_eq!(close_hole(addr + HUGE, HUGE), Ok(()));
            map(addr + HUGE, HUGE, PageMode::Small, None).unwrap();
            unreserve(addr, 3 * HUGE);
        }
    }
}
