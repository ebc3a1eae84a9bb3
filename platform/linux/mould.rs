//! Moulds: pages without access that have the advice, and the memory policy, of all memory of a
//! kind. Memory that comes into use is a copy of a mould, made longer: the kernel then need not be
//! asked for the same advice at each step of growth, which a program's sandbox may forbid by then.
//!
//! A mould, and its copy on the way, lie far from everything else: a move from where the kernel has
//! a table of small pages makes such a table at the new place, which then gets no hugepage.
#![allow(unsafe_code)] // Maps and moves pages.

use core::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::mm::{self, MremapFlags, MsyncFlags};

use super::call::call;
use super::map::{self, close_hole_unless_refused, pointer};
use super::numa;
use crate::{Error, HUGE, NodeId, PAGE, PageMode};

/// The moulds of small and of transparent pages: without a node, and for each.
static MOULDS: [[AtomicUsize; 257]; 2] = [const { [const { AtomicUsize::new(0) }; 257] }; 2];

/// Places for copies on the way, behind each mould.
const PLACES: usize = 64;
/// The place of the next copy.
static NEXT: AtomicUsize = AtomicUsize::new(0);

fn mould(mode: PageMode, bind: Option<NodeId>) -> &'static AtomicUsize {
    let row = usize::from(mode != PageMode::Small);
    &MOULDS[row][bind.map_or(0, |node| 1 + usize::from(node.0))]
}

/// See [`crate::Os::make_mould`].
pub fn make(mode: PageMode, bind: Option<NodeId>) {
    let place = mould(mode, bind);
    if place.load(Ordering::Acquire) != 0 {
        return;
    }
    let far = map::distant_place((1 + PLACES) * HUGE, HUGE)
        .filter(|&place| map::reserve_at(place, PAGE).is_ok());
    let Some(made) = far.or_else(|| map::reserve(PAGE, PAGE).ok()) else {
        return;
    };
    // SAFETY: this function's own mapping.
    let advised = unsafe { map::advise(made, PAGE, mode) }.is_ok()
        && bind.is_none_or(|node| numa::bind(made, PAGE, node).is_ok());
    let kept = advised
        && place
            .compare_exchange(0, made, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
    if !kept {
        // SAFETY: nobody else knows of it.
        unsafe { map::unreserve(made, PAGE) };
    }
}

/// Tells whether a page's mapping is locked in memory; false where the kernel does not say.
fn is_locked(addr: usize) -> bool {
    // MS_INVALIDATE concerns files alone, and is refused for what is locked.
    let flags = MsyncFlags::ASYNC | MsyncFlags::INVALIDATE;
    // SAFETY: the call changes nothing.
    unsafe { mm::msync(map::pointer(addr), PAGE, flags) == Err(Errno::BUSY) }
}

/// Puts a copy of a mould in the place of a range, which is reserved then.
///
/// # Errors
/// [`Error::Lost`]: the range is not the caller's any more. Any other error: nothing has changed.
///
/// # Safety
/// The range is page-aligned, reserved or mapped, the caller's, and holds nothing of value.
pub unsafe fn copy_to(
    addr: usize,
    len: usize,
    mode: PageMode,
    bind: Option<NodeId>,
) -> Result<(), Error> {
    let from = mould(mode, bind).load(Ordering::Acquire);
    // A program that locks all its memory to come (mlockall) gets it locked; one that has locked
    // what it had, the mould too, gets no more than that.
    if from == 0 || is_locked(addr) || is_locked(from) {
        return Err(Error::Unsupported);
    }
    let flags = MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP;
    let wish = from + (1 + NEXT.fetch_add(1, Ordering::Relaxed) % PLACES) * HUGE;
    // rustix leaves the last argument out: with DONTUNMAP and without FIXED it is a wish.
    let arguments = [from, PAGE, PAGE, flags.bits() as usize, wish];
    // SAFETY: a mould has no contents, and stays; the copy replaces nothing.
    let copy = unsafe { call(libc::SYS_mremap, arguments) }?;
    let flags = MremapFlags::MAYMOVE;
    // SAFETY: the copy is this function's own, and the target holds nothing of value (`# Safety`).
    match unsafe { mm::mremap_fixed(pointer(copy), PAGE, len, flags, pointer(addr)) } {
        Ok(_) => Ok(()),
        // SAFETY: nobody else knows of the copy; the range is the caller's and holds nothing of
        // value (`# Safety`).
        Err(errno) => unsafe {
            map::unreserve(copy, PAGE);
            close_hole_unless_refused(errno, addr, len)?;
            Err(Error::Unsupported)
        },
    }
}
