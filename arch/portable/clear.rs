//! Zeroing memory by the C library's `memset`.
#![allow(unsafe_code)] // writes through a raw pointer

/// Writes `len` zero bytes at `p`.
///
/// # Safety
/// `p` is valid for writing `len` bytes.
#[inline]
pub unsafe fn clear(p: *mut u8, len: usize) {
    // SAFETY: `p` is valid for writing `len` bytes (`# Safety`).
    unsafe { p.write_bytes(0, len) };
}
