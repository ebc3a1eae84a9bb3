//! Magazine pop and push in plain Rust.
//!
//! A magazine is an array of block pointers in use as a stack. The entry just below the array's
//! base is a null sentinel: a pop loads the entry below `top`, and one test tells whether the
//! magazine is empty. Neither function writes the header when it fails, so a header of capacity 0
//! (`top == limit`) may lie in read-only memory.
//!
//! Invariant: `base <= top <= limit`, `base[-1]` is null, `base..top` holds no null.
//! Only the thread that owns the magazine may read or write it.
#![allow(unsafe_code)] // raw pointers: the array is reached through the header only

/// Header of a magazine; the array of pointers lies elsewhere. No cache line ends within it.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Magazine {
    /// The address after the last pointer.
    pub top: *mut *mut u8,
    /// The address after the last entry that the magazine may use; to move it changes the capacity.
    pub limit: *mut *mut u8,
}

/// Takes the newest pointer; null when the magazine is empty (the header is not written then).
///
/// # Safety
/// `m` is valid and keeps the invariant of this module; no other thread uses it.
#[inline(always)]
pub unsafe fn pop(m: *mut Magazine) -> *mut u8 {
    // SAFETY: `m` keeps the invariant (`# Safety`): `top` is above the sentinel, so the entry below
    // it is readable; an entry that is not null is not the sentinel, so `top - 1` is at or above
    // the base.
    unsafe {
        let last = (*m).top.sub(1);
        let block = last.read();
        if !block.is_null() {
            (*m).top = last;
            // Otherwise memcheck's search for leaks would find the block here.
            #[cfg(feature = "valgrind")]
            last.write(core::ptr::null_mut());
        }
        block
    }
}

/// Puts `p` on top; false when the magazine is full (nothing is written then).
///
/// # Safety
/// `m` is valid and keeps the invariant of this module; no other thread uses it; `p` is not null.
#[inline(always)]
pub unsafe fn push(m: *mut Magazine, p: *mut u8) -> bool {
    // SAFETY: `m` keeps the invariant (`# Safety`): below `limit` the array has room for one more
    // entry.
    unsafe {
        let top = (*m).top;
        if top == (*m).limit {
            return false;
        }
        top.write(p);
        (*m).top = top.add(1);
        true
    }
}
