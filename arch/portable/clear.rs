//! Zeroing memory by the C library's `memset`.
#![allow(unsafe_code)] // writes through a raw pointer

/// Writes `len` zero bytes at `p`.
///
/// # Safety
/// `p` is valid for writing `len` bytes.
#[inline]
pub unsafe fn clear(p: *mut u8, len: usize) {
    // SAFETY: handed on to the caller.
    unsafe { p.write_bytes(0, len) };
}
