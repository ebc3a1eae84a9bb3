//! malloc and its relatives, as glibc has them: where the standards leave a choice, an unmodified program finds what
//! it finds in glibc (`realloc` to 0 frees and returns null, `memalign` rounds an odd alignment up).
//!
//! A failing function sets `errno` to ENOMEM or EINVAL; nothing else here touches it, and the allocator below makes
//! raw system calls only.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use theap::raw;

const PAGE: usize = 4096;

#[cold]
#[inline(never)]
fn fail(error: c_int) -> *mut c_void {
    // SAFETY: the calling thread's own `errno`.
    unsafe { *libc::__errno_location() = error };
    null_mut()
}

/// The block, or null and ENOMEM.
#[inline(always)]
fn or_no_memory(block: *mut u8) -> *mut c_void {
    if block.is_null() {
        return fail(libc::ENOMEM);
    }
    block.cast()
}

/// At least `size` bytes at a multiple of 16; a block of its own for 0.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    let block = raw::alloc_cached(size);
    if block.is_null() {
        return malloc_slow(size);
    }
    block.cast()
}

/// The rest of `malloc`, which leaves by a jump: so the hit path needs no stack.
#[inline(never)]
extern "C" fn malloc_slow(size: usize) -> *mut c_void {
    or_no_memory(raw::alloc(size))
}

/// Frees a block; ignores null.
///
/// # Safety
/// `block` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { raw::free(block.cast()) };
}

/// What `free` was called once; programs of then still ask for it.
///
/// # Safety
/// As `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cfree(block: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { raw::free(block.cast()) };
}

/// `count` zeroed members of `size` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => or_no_memory(raw::alloc_zeroed(bytes)),
        None => fail(libc::ENOMEM),
    }
}

/// Changes a block's size. Null allocates; 0 frees and returns null.
///
/// # Safety
/// `block` is null or live; it is gone if the answer is not null, or `size` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { resize(block, size) }
}

/// As `realloc`, for calls from here.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn resize(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return or_no_memory(raw::alloc(size));
    }
    // SAFETY: the caller's promise.
    unsafe {
        if size == 0 {
            raw::free(block.cast());
            return null_mut();
        }
        or_no_memory(raw::realloc(block.cast(), size))
    }
}

/// As `realloc` to `count * size` bytes.
///
/// # Safety
/// As `realloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the caller's promise.
        Some(bytes) => unsafe { resize(block, bytes) },
        None => fail(libc::ENOMEM),
    }
}

/// `size` bytes at a multiple of `align`, a power of two (EINVAL if it is none).
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return fail(libc::EINVAL);
    }
    or_no_memory(raw::alloc_aligned(size, align))
}

/// `size` bytes at a multiple of `align`, which is rounded up to a power of two (EINVAL if there is none).
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => or_no_memory(raw::alloc_aligned(size, align)),
        None => fail(libc::EINVAL),
    }
}

/// `size` bytes at a multiple of `align`, a power of two and at least a pointer's size, into `*place`. 0, EINVAL or
/// ENOMEM; `errno` and, on failure, `*place` are kept.
///
/// # Safety
/// `place` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(
    place: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let block = raw::alloc_aligned(size, align);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { place.write(block.cast()) };
    0
}

/// `size` bytes at a page's start.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    or_no_memory(raw::alloc_aligned(size, PAGE))
}

/// Whole pages for `size` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    match size.checked_next_multiple_of(PAGE) {
        Some(size) => or_no_memory(raw::alloc_aligned(size, PAGE)),
        None => fail(libc::ENOMEM),
    }
}

/// Bytes that may be used at `block`; 0 for null.
///
/// # Safety
/// `block` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    theap::usable_size(block.cast())
}
