//! Reservations, and the memory that is mapped into them.
//!
//! Small and thp memory never replaces a mapping: `mprotect` opens the reserved range and closes it
//! again, so a failing call leaves the range as it was. Hugetlb memory must replace a mapping. This
//! module builds and populates it elsewhere: a pool or control group that cannot serve it shows
//! there as an error, where a page fault would be SIGBUS. Then `mremap` moves it into place; a
//! failure of that is rare, and [`close_hole`] handles it.
#![allow(unsafe_code)] // The memory system calls.

use core::ffi::c_void;
use core::ops::Range;
use core::ptr;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, MlockFlags, MprotectFlags, MremapFlags, ProtFlags};

use super::numa;
use super::process::random;
use crate::{Error, HUGE, NodeId, PAGE, PageMode};

/// A reservation: private, without access, and not charged against the commit limit.
const RESERVED: MapFlags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);
const READ_WRITE: MprotectFlags = MprotectFlags::READ.union(MprotectFlags::WRITE);
/// Times that a call is repeated after EAGAIN, which is transient: a kernel that always answers it
/// must not hang the process.
const EAGAIN_LIMIT: u32 = 64;

/// A pointer to an address of a mapping.
pub(super) fn pointer(addr: usize) -> *mut c_void {
    ptr::with_exposed_provenance_mut(addr)
}

/// See [`crate::Os::reserve`].
pub fn reserve(len: usize, align: usize) -> Result<usize, Error> {
    aligned(len, align, ProtFlags::empty(), RESERVED)
}

/// See [`crate::Os::map_anywhere`].
pub fn map_anywhere(len: usize, align: usize, mode: PageMode) -> Result<usize, Error> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let addr = aligned(len, align, access, MapFlags::PRIVATE)?;
    let advice = match mode {
        PageMode::Small => Advice::LinuxNoHugepage,
        _ => Advice::LinuxHugepage,
    };
    // Advice that is refused costs speed only.
    // SAFETY: this function made the mapping just now, and the advice keeps contents.
    let _ = unsafe { mm::madvise(pointer(addr), len, advice) };
    Ok(addr)
}

/// A new mapping at a multiple of `align`.
fn aligned(len: usize, align: usize, access: ProtFlags, flags: MapFlags) -> Result<usize, Error> {
    let padded = len.checked_add(align - PAGE).ok_or(Error::NoMemory)?;
    // SAFETY: the kernel chooses the place, so this touches no existing mapping.
    let start =
        unsafe { mm::mmap_anonymous(ptr::null_mut(), padded, access, flags) }?.expose_provenance();
    let addr = start.next_multiple_of(align);
    let (head, tail) = (addr - start, start + padded - (addr + len));
    for (addr, len) in [(start, head), (addr + len, tail)] {
        if len != 0 {
            // SAFETY: a part of the fresh mapping that the caller does not get to know.
            unsafe { unreserve(addr, len) };
        }
    }
    Ok(addr)
}

/// The part of the address space in which distant places lie. With 47 bits of addresses or more,
/// the kernel maps from the top down, and programs lie at two thirds of the whole or at its bottom;
/// the memory of sanitizers ends at 16 TiB.
const DISTANT: Range<usize> = 17 << 40..80 << 40;

/// See [`crate::Os::distant_place`].
pub fn distant_place(len: usize, align: usize) -> Option<usize> {
    let choices = DISTANT.len().checked_sub(len)? / align;
    let choice = (random() as usize).checked_rem(choices)?;
    Some(DISTANT.start.next_multiple_of(align) + choice * align)
}

/// See [`crate::Os::reserve_at`].
pub fn reserve_at(addr: usize, len: usize) -> Result<(), Error> {
    let flags = RESERVED | MapFlags::FIXED_NOREPLACE;
    // SAFETY: NOREPLACE touches no existing mapping.
    match unsafe { mm::mmap_anonymous(pointer(addr), len, ProtFlags::empty(), flags) } {
        Ok(start) if start.expose_provenance() == addr => Ok(()),
        Ok(start) => {
            // A kernel before 4.17 takes the address as a wish.
            // SAFETY: the kernel made this mapping just now, and nobody else knows of it.
            unsafe { unreserve(start.addr(), len) };
            Err(Error::Lost)
        }
        Err(Errno::EXIST) => Err(Error::Lost),
        Err(errno) => Err(errno.into()),
    }
}

/// See [`crate::Os::unreserve`].
///
/// # Safety
/// The conditions of [`crate::Os::unreserve`].
pub unsafe fn unreserve(addr: usize, len: usize) {
    // SAFETY: the caller owns the range and nothing refers to it (`# Safety`). munmap fails only
    // when it would have to split a mapping and there are too many; then the addresses stay
    // reserved, which harms nobody.
    let _ = unsafe { mm::munmap(pointer(addr), len) };
}

/// See [`crate::Os::commit`].
///
/// # Safety
/// The conditions of [`crate::Os::commit`].
pub unsafe fn commit(addr: usize, len: usize) -> Result<(), Error> {
    // SAFETY: the range is part of a reservation (`# Safety`); to open it invalidates nothing.
    Ok(unsafe { mm::mprotect(pointer(addr), len, READ_WRITE) }?)
}

/// See [`crate::Os::map`].
///
/// # Safety
/// The conditions of [`crate::Os::map`].
pub unsafe fn map(
    addr: usize,
    len: usize,
    mode: PageMode,
    bind: Option<NodeId>,
) -> Result<(), Error> {
    // SAFETY: the range is aligned and only reserved (`# Safety`), which both functions ask for.
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
/// The conditions of [`map`].
unsafe fn map_pages(
    addr: usize,
    len: usize,
    advice: Advice,
    bind: Option<NodeId>,
) -> Result<(), Error> {
    // SAFETY: the advice concerns only future pages of a range that has none.
    match unsafe { mm::madvise(pointer(addr), len, advice) } {
        Ok(()) => {}
        // A kernel without transparent hugepages does not know the advice; small pages need none
        // there.
        Err(Errno::INVAL) if advice == Advice::LinuxNoHugepage => {}
        Err(Errno::INVAL) => return Err(Error::Unsupported),
        Err(errno) => return Err(errno.into()),
    }
    if let Some(node) = bind {
        numa::bind(addr, len, node)?;
    }
    // SAFETY: the range is page-aligned and reserved (`# Safety`).
    unsafe { commit(addr, len) }
}

/// Puts populated hugetlb pages in the place of a reserved range.
///
/// # Safety
/// The conditions of [`map`].
unsafe fn map_hugetlb(
    addr: usize,
    len: usize,
    size: MapFlags,
    bind: Option<NodeId>,
) -> Result<(), Error> {
    let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | size;
    // SAFETY: the kernel chooses the place, so this touches no existing mapping.
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
        // The kernel has no hugetlb pages, or no pool of this size: to the caller both are an empty
        // pool.
        Err(_) => return Err(Error::NoHugepages),
    };
    // SAFETY: `built` is a fresh hugetlb mapping that nobody else knows of, and the range at `addr`
    // is aligned and only reserved (`# Safety`).
    let placed = unsafe { fill_and_place(built, addr, len, bind) };
    if placed.is_err() {
        // SAFETY: after every failure the pages are still at `built`, and nobody else knows of
        // them.
        unsafe { unreserve(built, len) };
    }
    placed
}

/// Binds and populates the hugetlb mapping at `built` and moves it to `addr`.
///
/// # Safety
/// `built` is a hugetlb mapping of `len` bytes that only the caller knows of; the range at `addr`
/// is as for [`map`].
unsafe fn fill_and_place(
    built: usize,
    addr: usize,
    len: usize,
    bind: Option<NodeId>,
) -> Result<(), Error> {
    if let Some(node) = bind {
        numa::bind(built, len, node)?;
    }
    // SAFETY: `built` is mapped, and only the caller knows of it (`# Safety`).
    unsafe { populate(built, len) }.map_err(|_| Error::NoHugepages)?;
    let flags = MremapFlags::MAYMOVE;
    // SAFETY: the target is reserved (`# Safety`), so the pages replace nothing of value.
    match unsafe { mm::mremap_fixed(pointer(built), len, len, flags, pointer(addr)) } {
        Ok(_) => Ok(()),
        Err(errno) => {
            // SAFETY: the range is reserved (`# Safety`), so it holds nothing of value; `built` can
            // be read.
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
/// The conditions of [`crate::Os::prefer_huge`].
pub unsafe fn prefer_huge(addr: usize, len: usize) {
    // A kernel that knows neither advice refuses, which changes nothing.
    // SAFETY: the range is page-aligned and committed (`# Safety`), which is enough: the kernel
    // leaves hugepages at the ends that are not whole alone.
    let _ = unsafe { collapse(addr, len) };
}

/// See [`crate::Os::collapse`].
///
/// # Safety
/// The conditions of [`crate::Os::collapse`].
pub unsafe fn collapse(addr: usize, len: usize) -> Result<(), Error> {
    // SAFETY: the range is mapped (`# Safety`), and the advice keeps its contents. rustix does not
    // know MADV_COLLAPSE, and libc changes `errno`, which is this thread's own and the program's:
    // it gets its value back.
    unsafe {
        mm::madvise(pointer(addr), len, Advice::LinuxHugepage)?;
        let errno = libc::__errno_location();
        let before = *errno;
        let done = libc::madvise(pointer(addr), len, libc::MADV_COLLAPSE);
        match errno.replace(before) {
            _ if done == 0 => Ok(()),
            error => Err(Errno::from_raw_os_error(error).into()),
        }
    }
}

/// See [`crate::Os::populate`].
///
/// # Safety
/// The conditions of [`crate::Os::populate`].
pub unsafe fn populate(addr: usize, len: usize) -> Result<(), Error> {
    // Piece by piece: each call makes other threads wait that change a mapping of the process.
    (addr..addr + len).step_by(HUGE).try_for_each(|at| {
        // SAFETY: a part of the range, which is committed or mapped (`# Safety`).
        unsafe { populate_piece(at, HUGE.min(addr + len - at)) }
    })
}

/// Populates a range by one call, which it repeats when the kernel was interrupted.
///
/// # Safety
/// The conditions of [`populate`].
unsafe fn populate_piece(addr: usize, len: usize) -> Result<(), Error> {
    let mut again = 0;
    loop {
        // SAFETY: the range is committed or mapped (`# Safety`), and populating keeps its contents.
        // A repetition passes over the pages that are already there.
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
/// The conditions of [`crate::Os::lock`].
pub unsafe fn lock(addr: usize, len: usize) -> Result<(), Error> {
    // SAFETY: the range is committed or mapped (`# Safety`), and to lock it keeps its contents.
    Ok(unsafe { mm::mlock_with(pointer(addr), len, MlockFlags::ONFAULT) }?)
}

/// See [`crate::Os::purge`].
///
/// # Safety
/// The conditions of [`crate::Os::purge`].
pub unsafe fn purge(addr: usize, len: usize) -> Result<(), Error> {
    // SAFETY: nobody accesses the range, and the caller gives up its contents (`# Safety`).
    let purged = unsafe { mm::madvise(pointer(addr), len, Advice::LinuxDontNeed) };
    if purged == Err(Errno::INVAL) {
        // Locked pages, in a process that locks its memory (mlockall), need an advice of their own.
        // SAFETY: nobody accesses the range, and the caller gives up its contents (`# Safety`).
        return Ok(unsafe { mm::madvise(pointer(addr), len, Advice::LinuxDontneedLocked) }?);
    }
    Ok(purged?)
}

/// See [`crate::Os::unmap`].
///
/// # Safety
/// The conditions of [`crate::Os::unmap`].
pub unsafe fn unmap(addr: usize, len: usize, mode: PageMode) -> Result<(), Error> {
    if mode.is_hugetlb() {
        let flags = RESERVED | MapFlags::FIXED;
        // SAFETY: nothing refers to the range (`# Safety`); a reservation replaces it.
        return match unsafe { mm::mmap_anonymous(pointer(addr), len, ProtFlags::empty(), flags) } {
            Ok(_) => Ok(()),
            // SAFETY: the range is the caller's, and nothing refers to it (`# Safety`).
            Err(_) => unsafe { close_hole(addr, len) },
        };
    }
    // SAFETY: nothing refers to the range any more (`# Safety`).
    unsafe {
        purge(addr, len)?;
        Ok(mm::mprotect(pointer(addr), len, MprotectFlags::empty())?)
    }
}

/// See [`crate::Os::remap`].
///
/// # Safety
/// The conditions of [`crate::Os::remap`].
pub unsafe fn remap(addr: usize, old: usize, new: usize) -> Result<usize, Error> {
    // SAFETY: the mapping is the caller's alone (`# Safety`), and the kernel chooses its new place.
    let moved = unsafe { mm::mremap(pointer(addr), old, new, MremapFlags::MAYMOVE) }?;
    Ok(moved.expose_provenance())
}

/// See [`crate::Os::move_pages`].
///
/// # Safety
/// The conditions of [`crate::Os::move_pages`].
pub unsafe fn move_pages(from: usize, to: usize, len: usize) -> Result<(), Error> {
    let flags = MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP;
    // Without access a range that the kernel has not removed can be told from a foreign one.
    // SAFETY: nobody accesses `to`, and the caller gives up its contents (`# Safety`).
    if unsafe { mm::mprotect(pointer(to), len, MprotectFlags::empty()) }.is_err() {
        return Err(Error::Unsupported);
    }
    // SAFETY: both ranges are mapped, apart, and accessed by nobody (`# Safety`); the contents of
    // `to` are given up.
    match unsafe { mm::mremap_fixed(pointer(from), len, len, flags, pointer(to)) } {
        Ok(_) => Ok(()),
        Err(errno) => {
            // SAFETY: the caller owns `to` and gives up its contents (`# Safety`), and `from` can
            // still be read. At the end `to` can be used again, if it is there.
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

/// Reserves a range again, after a call that may or may not have removed its mappings.
///
/// The kernel cannot say whether a mapping that is found there now is the old one or a foreign one
/// that was faster, so both count as lost; in the first case this gives up nothing but addresses.
///
/// # Safety
/// The range is page-aligned, the caller's, and holds nothing of value.
pub(super) unsafe fn close_hole(addr: usize, len: usize) -> Result<(), Error> {
    reserve_at(addr, len).map_err(|_| Error::Lost)
}

/// Reserves a range again, after a move to it that failed with `errno`; the range had no access
/// before the move. Unlike [`close_hole`] this is content if the range is still there: near the
/// limit of mappings (vm.max_map_count) the kernel refuses before it removes anything.
///
/// # Safety
/// The conditions of [`close_hole`]; `readable` is a page that can be read.
unsafe fn close_hole_unless_refused(
    errno: Errno,
    addr: usize,
    len: usize,
    readable: usize,
) -> Result<(), Error> {
    // SAFETY: the range is the caller's and holds nothing of value (`# Safety`).
    unsafe { close_hole(addr, len) }.or_else(|lost| {
        // The range could be a foreign one only if the kernel had failed in the middle for want of
        // memory, and somebody else had reserved all of these addresses since.
        if errno == Errno::NOMEM && is_reserved(addr, len, readable) {
            Ok(())
        } else {
            Err(lost)
        }
    })
}

/// Whether the first and the last page of a range are mapped without access, as reservations are.
/// The answer is false where the kernel does not know the question (before 5.14).
fn is_reserved(addr: usize, len: usize, readable: usize) -> bool {
    // SAFETY: the advice changes no contents, whoever the page belongs to.
    let ask = |page| unsafe { mm::madvise(pointer(page), PAGE, Advice::LinuxPopulateRead) };
    ask(readable) == Ok(())
        && [addr, addr + len - PAGE].map(ask) == [Err(Errno::INVAL), Err(Errno::INVAL)]
}

/// See [`crate::Os::is_shared`].
pub fn is_shared(addr: usize) -> bool {
    const EXCLUSIVE: u64 = 1 << 56;
    const PRESENT: u64 = 1 << 63;
    let Ok(file) = rustix::fs::open(
        c"/proc/self/pagemap",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return true;
    };
    let mut entry = [0; 8];
    match rustix::io::pread(&file, &mut entry, (addr / PAGE * 8) as u64) {
        Ok(8) => {
            let entry = u64::from_ne_bytes(entry);
            entry & PRESENT != 0 && entry & EXCLUSIVE == 0
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_known() {
        let addr = reserve(3 * HUGE, HUGE).unwrap();
        // SAFETY: all of this lies within the reservation, which nobody else knows of.
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
        // SAFETY: all of this lies within the reservation, which nobody else knows of. (Another
        // thread could take the hole; this crate's other unit tests map nothing.)
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
