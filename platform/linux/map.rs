//! Reservations, and the memory that is mapped into them.
//!
//! Small and thp memory comes into a reserved range as the copy of a mould ([`super::mould`]), or
//! with advice of its own; `mprotect` opens it. Hugetlb memory is built and populated elsewhere
//! ([`super::huge`]), and `mremap` moves it into place. A failure in the middle of a move is rare,
//! and [`close_hole`] handles it.
#![allow(unsafe_code)] // The memory system calls.

use core::ffi::c_void;
use core::ops::Range;
use core::ptr;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{
    self, Advice, MapFlags, MlockFlags, MprotectFlags, MremapFlags, MsyncFlags, ProtFlags,
};

use super::call::call;
use super::process::random;
use super::{huge, mould, numa};
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
pub fn map_anywhere(len: usize, align: usize, mode: Option<PageMode>) -> Result<usize, Error> {
    // The kernel refuses here what is larger than all memory.
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let addr = aligned(len, align, access, MapFlags::PRIVATE)?;
    let Some(mode) = mode else {
        return Ok(addr);
    };
    // SAFETY: this function made the mapping just now, and nobody else knows of it.
    unsafe {
        match mould::copy_to(addr, len, mode, None) {
            Ok(()) => match open(addr, len) {
                Ok(()) => Ok(addr),
                Err(error) => {
                    if error != Error::Lost {
                        unreserve(addr, len);
                    }
                    Err(Error::NoMemory)
                }
            },
            Err(Error::Lost) => Err(Error::NoMemory),
            Err(_) => {
                // Advice that is refused costs speed only.
                let _ = advise(addr, len, mode);
                Ok(addr)
            }
        }
    }
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
    at_exactly(addr, len, ProtFlags::empty())
}

/// A new mapping where nothing is mapped.
fn at_exactly(addr: usize, len: usize, access: ProtFlags) -> Result<(), Error> {
    let flags = RESERVED | MapFlags::FIXED_NOREPLACE;
    // SAFETY: NOREPLACE touches no existing mapping.
    match unsafe { mm::mmap_anonymous(pointer(addr), len, access, flags) } {
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

/// See [`crate::Os::open`].
///
/// # Safety
/// The conditions of [`crate::Os::open`].
pub unsafe fn open(addr: usize, len: usize) -> Result<(), Error> {
    // SAFETY: the range is part of a reservation (`# Safety`).
    let Err(error) = (unsafe { commit(addr, len) }) else {
        return Ok(());
    };
    // Where a filter forbids the call, a new mapping does the same, but for the advice.
    let (access, flags) = (
        ProtFlags::READ | ProtFlags::WRITE,
        RESERVED | MapFlags::FIXED,
    );
    // SAFETY: nothing is replaced but the caller's reservation (`# Safety`), which holds nothing.
    unsafe {
        match mm::mmap_anonymous(pointer(addr), len, access, flags) {
            Ok(_) => Ok(()),
            Err(_) => close_hole_unless_there(addr, len).and(Err(error)),
        }
    }
}

/// See [`crate::Os::open_at`].
pub fn open_at(addr: usize, len: usize) -> Result<(), Error> {
    at_exactly(addr, len, ProtFlags::READ | ProtFlags::WRITE)
}

/// Gives a range without contents the advice of a page mode.
///
/// # Errors
/// The kernel does not know the advice, or a filter forbids it.
///
/// # Safety
/// The range is the caller's.
pub(super) unsafe fn advise(addr: usize, len: usize, mode: PageMode) -> Result<(), Errno> {
    let advice = match mode {
        PageMode::Small => Advice::LinuxNoHugepage,
        _ => Advice::LinuxHugepage,
    };
    // SAFETY: the advice concerns only future pages.
    unsafe { mm::madvise(pointer(addr), len, advice) }
}

/// See [`crate::Os::advise`].
///
/// # Safety
/// The conditions of [`crate::Os::advise`].
pub unsafe fn advise_all(addr: usize, len: usize, mode: PageMode, bind: Option<NodeId>) {
    // SAFETY: the range is the caller's (`# Safety`).
    let _ = unsafe { advise(addr, len, mode) };
    if let Some(node) = bind {
        let _ = numa::bind(addr, len, node);
    }
}

/// See [`crate::Os::map`].
///
/// # Safety
/// The conditions of [`crate::Os::map`].
pub unsafe fn map(
    addr: usize,
    (len, touched): (usize, usize),
    mode: PageMode,
    bind: Option<NodeId>,
) -> Result<(), Error> {
    let lens = (len, touched);
    // SAFETY: the range is aligned and only reserved (`# Safety`), which both functions ask for.
    unsafe {
        match mode {
            PageMode::Small | PageMode::Thp => map_pages(addr, len, mode, bind),
            PageMode::Hugetlb => huge::map_hugetlb(addr, lens, MapFlags::HUGE_2MB, bind),
            PageMode::Hugetlb1g => huge::map_hugetlb(addr, lens, MapFlags::HUGE_1GB, bind),
        }
    }
}

/// Opens a reserved range for small or transparent huge pages.
///
/// The advice and the policy come with a copy of a mould, or are set while the range is still
/// closed, so that a failure leaves it reserved.
///
/// # Safety
/// The conditions of [`map`].
unsafe fn map_pages(
    addr: usize,
    len: usize,
    mode: PageMode,
    bind: Option<NodeId>,
) -> Result<(), Error> {
    // SAFETY: the range is page-aligned and reserved (`# Safety`).
    match unsafe { mould::copy_to(addr, len, mode, bind) } {
        Ok(()) => {}
        Err(Error::Lost) => return Err(Error::Lost),
        Err(_) => {
            // SAFETY: the range is the caller's (`# Safety`).
            let advised = unsafe { advise(addr, len, mode) };
            // Without the advice small pages are small all the same, as a rule.
            if advised.is_err() && mode != PageMode::Small {
                return Err(Error::Unsupported);
            }
            if let Some(node) = bind {
                numa::bind(addr, len, node)?;
            }
        }
    }
    // SAFETY: the range is page-aligned and reserved (`# Safety`).
    unsafe { open(addr, len) }
}

/// See [`crate::Os::collapse`].
///
/// # Safety
/// The conditions of [`crate::Os::collapse`].
pub unsafe fn collapse(addr: usize, len: usize) -> Result<(), Error> {
    /// MADV_COLLAPSE, which neither rustix nor libc knows everywhere.
    const COLLAPSE: usize = 25;
    // SAFETY: the range is mapped (`# Safety`), and the advice keeps its contents.
    unsafe {
        mm::madvise(pointer(addr), len, Advice::LinuxHugepage)?;
        call(libc::SYS_madvise, [addr, len, COLLAPSE])?;
    }
    Ok(())
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
            // SAFETY: the caller owns `to` and gives up its contents (`# Safety`). At the end `to`
            // can be used again, if it is there.
            unsafe {
                close_hole_unless_refused(errno, to, len)?;
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
/// before the move. The kernel fails with ENOMEM or EFAULT in the middle of its work; every other
/// error, of the kernel or of a filter in front of it, comes before anything was removed. Unlike
/// [`close_hole`] this is content if the range is still there: near the limit of mappings
/// (vm.max_map_count) the kernel refuses before it removes anything.
///
/// # Safety
/// The conditions of [`close_hole`].
pub(super) unsafe fn close_hole_unless_refused(
    errno: Errno,
    addr: usize,
    len: usize,
) -> Result<(), Error> {
    if !matches!(errno, Errno::NOMEM | Errno::FAULT) {
        return Ok(());
    }
    // SAFETY: this function's own `# Safety`.
    unsafe { close_hole_unless_there(addr, len) }
}

/// Reserves a range again, if it is not reserved still.
///
/// # Safety
/// The conditions of [`close_hole`].
pub(super) unsafe fn close_hole_unless_there(addr: usize, len: usize) -> Result<(), Error> {
    // SAFETY: the range is the caller's and holds nothing of value (`# Safety`).
    unsafe { close_hole(addr, len) }.or_else(|lost| {
        // The range could be a foreign one only if the kernel had failed in the middle for want of
        // memory, and somebody else had reserved all of these addresses since.
        if is_reserved(addr, len) {
            Ok(())
        } else {
            Err(lost)
        }
    })
}

/// Tells whether all of a range is mapped, and its first and last page without access, as
/// reservations are.
fn is_reserved(addr: usize, len: usize) -> bool {
    // SAFETY: MS_ASYNC has no effect but the walk over the mappings.
    let is_mapped = unsafe { mm::msync(pointer(addr), len, MsyncFlags::ASYNC) }.is_ok();
    is_mapped
        && [addr, addr + len - PAGE].into_iter().all(|page| {
            // The kernel reads the set of signals before it finds that there is nothing like -1 to
            // do with it.
            let set = [usize::MAX, page, 0, size_of::<u64>()];
            // SAFETY: with an invalid first argument the call changes nothing.
            unsafe { call(libc::SYS_rt_sigprocmask, set) == Err(Errno::FAULT) }
        })
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
            map(addr, (HUGE, 0), PageMode::Small, None).unwrap();
            assert!(is_reserved(next, 2 * HUGE));
            assert!(!is_reserved(addr, 3 * HUGE), "its start can be read");
            unreserve(addr + 2 * HUGE, HUGE);
            assert!(!is_reserved(next, 2 * HUGE), "its end is not there");
            assert!(is_reserved(next, HUGE));
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
            map(addr + HUGE, (HUGE, 0), PageMode::Small, None).unwrap();
            unreserve(addr, 3 * HUGE);
        }
    }
}
