//! malloc and its relatives with glibc's behaviour: where the standards leave a choice, an
//! unmodified program finds what it finds in glibc (`realloc` to 0 frees and returns null,
//! `memalign` rounds an odd alignment up).
//!
//! A failing function sets `errno` to ENOMEM or EINVAL; nothing else here changes it, and the
//! allocator below makes raw system calls only.
#![allow(unsafe_code)] // C interfaces: exported names, raw pointers in and out.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use theap::raw;

const PAGE: usize = 4096;

/// Sets `errno` and answers null.
#[cold]
#[inline(never)]
fn fail(error: c_int) -> *mut c_void {
    // SAFETY: `errno` is the calling thread's own and always valid.
    unsafe { *libc::__errno_location() = error };
    null_mut()
}

/// The block; if it is null, `errno` is ENOMEM.
#[inline(always)]
pub fn or_no_memory(block: *mut u8) -> *mut c_void {
    if block.is_null() {
        return fail(libc::ENOMEM);
    }
    block.cast()
}

cfg_if::cfg_if! {
    if #[cfg(tuned)] {
        theap_arch::x86_64_malloc! {
            /// Allocates at least `size` bytes at a multiple of 16. For 0 bytes it allocates a
            /// block too.
            ///
            /// # Safety
            /// Any size.
            #[unsafe(no_mangle)]
            malloc, slot, theap::HEAD_FIELDS, malloc_slow
        }

        theap_arch::x86_64_free! {
            /// Frees a block; does nothing for null.
            ///
            /// # Safety
            /// `block` is null or a live block of this library, or of the C library
            /// ([`crate::foreign`]).
            #[unsafe(no_mangle)]
            free, slot, theap::HEAD_FIELDS, free_slow
        }
    } else {
        /// Allocates at least `size` bytes at a multiple of 16. For 0 bytes it allocates a block
        /// too.
        ///
        /// # Safety
        /// Any size.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
            let block = raw::alloc_cached(size);
            if block.is_null() {
                return malloc_slow(size);
            }
            block.cast()
        }

        /// Frees a block; does nothing for null.
        ///
        /// # Safety
        /// `block` is null or a live block of this library, or of the C library
        /// ([`crate::foreign`]).
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn free(block: *mut c_void) {
            // SAFETY: `block` is null or live, as the caller promises in `# Safety`.
            unsafe { free_slow(block) };
        }
    }
}

/// The rest of `malloc`, which jumps to it at its end: so the hit path needs no stack.
#[inline(never)]
extern "C" fn malloc_slow(size: usize) -> *mut c_void {
    or_no_memory(raw::alloc(size))
}

/// The rest of `free`.
///
/// # Safety
/// The conditions of [`free`].
#[inline(never)]
pub unsafe extern "C" fn free_slow(block: *mut c_void) {
    // SAFETY: `block` is null or live, as the caller promises in `# Safety`.
    unsafe { raw::free(block.cast()) };
}

/// Frees a block, by the old name of `free`: old programs still use it.
///
/// # Safety
/// The conditions of [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cfree(block: *mut c_void) {
    // SAFETY: `block` is null or live, as the caller promises in `# Safety`.
    unsafe { raw::free(block.cast()) };
}

/// Allocates `count` zeroed members of `size` bytes each.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    zeroed(count, size)
}

/// Does the work of [`calloc`].
#[inline(always)]
pub fn zeroed(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => or_no_memory(raw::alloc_zeroed(bytes)),
        None => fail(libc::ENOMEM),
    }
}

/// Changes a block's size to `size` bytes. For a null `block` it allocates; for size 0 it frees the
/// block and returns null.
///
/// # Safety
/// `block` is null or live. If the answer is not null, or `size` is 0, it is live no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: `block` is null or live, as the caller promises in `# Safety`.
    unsafe { resize(block, size) }
}

/// Does the work of [`realloc`] and [`reallocarray`].
///
/// # Safety
/// The conditions of [`realloc`].
#[inline(always)]
pub unsafe fn resize(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return or_no_memory(raw::alloc(size));
    }
    // SAFETY: `block` is not null, so it is live (`# Safety`).
    unsafe {
        if size == 0 {
            raw::free(block.cast());
            return null_mut();
        }
        or_no_memory(raw::realloc(block.cast(), size))
    }
}

/// Changes a block's size to `count * size` bytes, like [`realloc`].
///
/// # Safety
/// The conditions of [`realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: `block` is null or live, as the caller promises in `# Safety`.
        Some(bytes) => unsafe { resize(block, bytes) },
        None => fail(libc::ENOMEM),
    }
}

/// Allocates `size` bytes at a multiple of `align`, a power of two (EINVAL if it is none).
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return fail(libc::EINVAL);
    }
    or_no_memory(raw::alloc_pages(size, align))
}

/// Allocates `size` bytes at a multiple of `align`, which it rounds up to a power of two (EINVAL if
/// there is none).
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    aligned(align, size)
}

/// Does the work of [`memalign`].
#[inline(always)]
pub fn aligned(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => or_no_memory(raw::alloc_pages(size, align)),
        None => fail(libc::EINVAL),
    }
}

/// Allocates `size` bytes at a multiple of `align`, a power of two and at least a pointer's size,
/// and writes the block's address to `*place`. Answers 0, EINVAL or ENOMEM, and does not change
/// `errno`; on failure it does not change `*place` either.
///
/// # Safety
/// `place` is valid for writing a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(
    place: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    // SAFETY: `place` is valid for writing, as the caller promises in `# Safety`.
    unsafe { aligned_to(place, align, size) }
}

/// Does the work of [`posix_memalign`].
///
/// # Safety
/// The conditions of [`posix_memalign`].
#[inline(always)]
pub unsafe fn aligned_to(place: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let block = raw::alloc_pages(size, align);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: `place` is valid for writing, as the caller promises in `# Safety`.
    unsafe { place.write(block.cast()) };
    0
}

/// Allocates `size` bytes at a page's start.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    at_page(size)
}

/// Does the work of [`valloc`].
#[inline(always)]
pub fn at_page(size: usize) -> *mut c_void {
    or_no_memory(raw::alloc_pages(size, PAGE))
}

/// Allocates whole pages for `size` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    whole_pages(size)
}

/// Does the work of [`pvalloc`].
#[inline(always)]
pub fn whole_pages(size: usize) -> *mut c_void {
    match size.checked_next_multiple_of(PAGE) {
        Some(size) => or_no_memory(raw::alloc_pages(size, PAGE)),
        None => fail(libc::ENOMEM),
    }
}

/// The number of bytes that the caller may use at `block`; 0 for null.
///
/// # Safety
/// `block` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    raw::usable_size(block.cast())
}

/// Frees a block of `_size` bytes that no aligned allocation has made; does nothing for null. A
/// program tells the size so that an allocator may trust it; this one looks, as the C library does,
/// since a wrong size is cheap to make and expensive to find.
///
/// # Safety
/// The conditions of [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, _size: usize) {
    // SAFETY: `block` is null or live, as the caller promises in `# Safety`.
    unsafe { raw::free(block.cast()) };
}

/// Frees a block of this alignment and size, like [`free_sized`].
///
/// # Safety
/// The conditions of [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, _align: usize, _size: usize) {
    // SAFETY: `block` is null or live, as the caller promises in `# Safety`.
    unsafe { raw::free(block.cast()) };
}
