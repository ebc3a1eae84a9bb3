//! malloc and its relatives under the names that glibc has for them beside the usual ones. Programs
//! and libraries that put a malloc of their own around the C library's call them, and free the
//! blocks by the usual names: both must be of one heap.
#![allow(unsafe_code)] // C interfaces: exported names, raw pointers in and out.

use crate::malloc::{aligned, aligned_to, at_page, or_no_memory, resize, whole_pages, zeroed};
use core::ffi::{c_int, c_void};
use theap::raw;

/// glibc's other name of `malloc`.
#[unsafe(no_mangle)]
pub extern "C" fn __libc_malloc(size: usize) -> *mut c_void {
    or_no_memory(raw::alloc(size))
}

/// glibc's other name of `free`.
///
/// # Safety
/// The conditions of [`crate::malloc::free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_free(block: *mut c_void) {
    // SAFETY: `block` is null or live, as the caller promises in `# Safety`.
    unsafe { raw::free(block.cast()) };
}

/// glibc's other name of `calloc`.
#[unsafe(no_mangle)]
pub extern "C" fn __libc_calloc(count: usize, size: usize) -> *mut c_void {
    zeroed(count, size)
}

/// glibc's other name of `realloc`.
///
/// # Safety
/// The conditions of [`crate::malloc::realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: `block` is null or live, as the caller promises in `# Safety`.
    unsafe { resize(block, size) }
}

/// glibc's other name of `memalign`.
#[unsafe(no_mangle)]
pub extern "C" fn __libc_memalign(align: usize, size: usize) -> *mut c_void {
    aligned(align, size)
}

/// glibc's other name of `valloc`.
#[unsafe(no_mangle)]
pub extern "C" fn __libc_valloc(size: usize) -> *mut c_void {
    at_page(size)
}

/// glibc's other name of `pvalloc`.
#[unsafe(no_mangle)]
pub extern "C" fn __libc_pvalloc(size: usize) -> *mut c_void {
    whole_pages(size)
}

/// glibc's other name of `posix_memalign`.
///
/// # Safety
/// The conditions of [`crate::malloc::posix_memalign`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __posix_memalign(
    place: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    // SAFETY: `place` is valid for writing, as the caller promises in `# Safety`.
    unsafe { aligned_to(place, align, size) }
}
