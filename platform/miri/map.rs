//! Reservations as blocks of the standard library: a reserved range is zeroed memory from the
//! start, so nothing is left to do when the allocator commits or maps it. A range that the
//! allocator gives back is zeroed, so that it reads zero when it comes into use again.
#![allow(unsafe_code)] // Allocates, zeroes and frees memory.

use core::ptr;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

use crate::{Error, NodeId, PageMode};

/// A reservation that nobody has given back.
struct Reservation {
    block: *mut u8,
    layout: Layout,
}

// SAFETY: only the address and the layout are read, and the block is freed once, under the lock.
unsafe impl Send for Reservation {}

static RESERVATIONS: Mutex<Vec<Reservation>> = Mutex::new(Vec::new());

/// See [`crate::Os::reserve`].
pub fn reserve(len: usize, align: usize) -> Result<usize, Error> {
    let layout = Layout::from_size_align(len, align).map_err(|_| Error::NoMemory)?;
    // SAFETY: `Os::reserve` has checked that `len` is not 0.
    let block = unsafe { alloc_zeroed(layout) };
    if block.is_null() {
        return Err(Error::NoMemory);
    }
    let mut all = RESERVATIONS.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(Reservation { block, layout });
    Ok(block.expose_provenance())
}

/// See [`crate::Os::distant_place`]. Addresses are those of blocks here.
pub fn distant_place(_len: usize, _align: usize) -> Option<usize> {
    None
}

/// See [`crate::Os::reserve_at`].
pub fn reserve_at(_addr: usize, _len: usize) -> Result<(), Error> {
    Err(Error::Unsupported)
}

/// See [`crate::Os::map_anywhere`].
pub fn map_anywhere(len: usize, align: usize, _mode: Option<PageMode>) -> Result<usize, Error> {
    reserve(len, align)
}

/// See [`crate::Os::unreserve`]. A part of a reservation stays allocated.
///
/// # Safety
/// The conditions of [`crate::Os::unreserve`].
pub unsafe fn unreserve(addr: usize, len: usize) {
    let mut all = RESERVATIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let whole = |one: &Reservation| one.block.addr() == addr && one.layout.size() == len;
    if let Some(index) = all.iter().position(whole) {
        let Reservation { block, layout } = all.swap_remove(index);
        // SAFETY: `reserve` allocated the block with this layout, and nothing refers to it any more
        // (`# Safety`).
        unsafe { dealloc(block, layout) };
    }
}

/// See [`crate::Os::commit`].
///
/// # Safety
/// The conditions of [`crate::Os::commit`].
pub unsafe fn commit(_addr: usize, _len: usize) -> Result<(), Error> {
    Ok(())
}

/// See [`crate::Os::open`].
///
/// # Safety
/// The conditions of [`crate::Os::open`].
pub unsafe fn open(_addr: usize, _len: usize) -> Result<(), Error> {
    Ok(())
}

/// See [`crate::Os::open_at`].
pub fn open_at(_addr: usize, _len: usize) -> Result<(), Error> {
    Err(Error::Unsupported)
}

/// See [`crate::Os::advise`].
///
/// # Safety
/// The conditions of [`crate::Os::advise`].
pub unsafe fn advise_all(_addr: usize, _len: usize, _mode: PageMode, _bind: Option<NodeId>) {}

/// See [`crate::Os::map`]. There is no hugetlb pool.
///
/// # Safety
/// The conditions of [`crate::Os::map`].
pub unsafe fn map(
    _addr: usize,
    _lens: (usize, usize),
    mode: PageMode,
    _bind: Option<NodeId>,
) -> Result<(), Error> {
    if mode.is_hugetlb() {
        return Err(Error::NoHugepages);
    }
    Ok(())
}

/// See [`crate::Os::collapse`].
///
/// # Safety
/// The conditions of [`crate::Os::collapse`].
pub unsafe fn collapse(_addr: usize, _len: usize) -> Result<(), Error> {
    Ok(())
}

/// See [`crate::Os::populate`].
///
/// # Safety
/// The conditions of [`crate::Os::populate`].
pub unsafe fn populate(_addr: usize, _len: usize) -> Result<(), Error> {
    Ok(())
}

/// See [`crate::Os::lock`].
///
/// # Safety
/// The conditions of [`crate::Os::lock`].
pub unsafe fn lock(_addr: usize, _len: usize) -> Result<(), Error> {
    Ok(())
}

/// See [`crate::Os::purge`].
///
/// # Safety
/// The conditions of [`crate::Os::purge`].
pub unsafe fn purge(addr: usize, len: usize) -> Result<(), Error> {
    // SAFETY: the range is part of a block of `reserve`, and nobody accesses it (`# Safety`).
    unsafe { ptr::with_exposed_provenance_mut::<u8>(addr).write_bytes(0, len) };
    Ok(())
}

/// See [`crate::Os::unmap`].
///
/// # Safety
/// The conditions of [`crate::Os::unmap`].
pub unsafe fn unmap(addr: usize, len: usize, _mode: PageMode) -> Result<(), Error> {
    // SAFETY: the range is mapped and nothing refers to it any more (`# Safety`).
    unsafe { purge(addr, len) }
}

/// See [`crate::Os::remap`].
///
/// # Safety
/// The conditions of [`crate::Os::remap`].
pub unsafe fn remap(_addr: usize, _old: usize, _new: usize) -> Result<usize, Error> {
    Err(Error::Unsupported)
}

/// See [`crate::Os::move_pages`].
///
/// # Safety
/// The conditions of [`crate::Os::move_pages`].
pub unsafe fn move_pages(_from: usize, _to: usize, _len: usize) -> Result<(), Error> {
    Err(Error::Unsupported)
}

/// See [`crate::Os::is_shared`].
pub fn is_shared(_addr: usize) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HUGE, PAGE};

    #[test]
    fn what_comes_back_reads_zero() {
        let addr = reserve(2 * HUGE, HUGE).unwrap();
        let at = |offset: usize| ptr::with_exposed_provenance_mut::<u8>(addr + offset);
        // SAFETY: all of this lies within the reservation, which nobody else knows of.
        unsafe {
            map(addr, HUGE, PageMode::Small, None).unwrap();
            assert_eq!(at(PAGE).read(), 0);
            at(PAGE).write(1);
            at(2 * PAGE).write(1);
            purge(addr, 2 * PAGE).unwrap();
            assert_eq!((at(PAGE).read(), at(2 * PAGE).read()), (0, 1));
            unmap(addr, HUGE, PageMode::Small).unwrap();
            assert_eq!(at(2 * PAGE).read(), 0);
            unreserve(addr + HUGE, HUGE);
            unreserve(addr, 2 * HUGE);
        }
    }
}
