//! The proof of a block by jemalloc: the control `arenas.lookup` walks jemalloc's extent map from
//! the address to the arena, and fails on a block of another allocator; `thread.allocated` counts
//! the bytes of this thread.
//!
//! The library (feature `peers`) and the suite's program for jemalloc each compile this file. If
//! the library compiled it for the suite, every contender would be linked with jemalloc.
#![allow(unsafe_code)] // the peer's C interface

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr::{NonNull, null_mut};

use tikv_jemalloc_sys::{mallctl, malloc_usable_size};

/// Whether the block is jemalloc's and has room for `size` bytes.
pub(crate) fn owns(block: NonNull<u8>, size: usize) -> bool {
    // SAFETY: `malloc_usable_size` asks for a live block of jemalloc. The callers, which are
    // `Contender::owns`, pass live blocks, and the extent map has shown that this one is
    // jemalloc's.
    has(block) && unsafe { malloc_usable_size(block.as_ptr().cast()) } >= size
}

/// Whether the block is in one of jemalloc's arenas.
pub(crate) fn has(block: NonNull<u8>) -> bool {
    read::<c_uint>(c"arenas.lookup", Some(block.as_ptr().cast())).is_some()
}

/// Bytes that this thread has allocated.
pub(crate) fn bytes_counted() -> Option<u64> {
    read::<u64>(c"thread.allocated", None)
}

/// Empties this thread's cache and gives the free pages of all arenas back. Returns false if
/// jemalloc refuses.
pub(crate) fn trim() -> bool {
    // 4096 is MALLCTL_ARENAS_ALL.
    do_it(c"thread.tcache.flush") && do_it(c"arena.4096.purge")
}

/// Has jemalloc do what the control `name` stands for, which has no value.
fn do_it(name: &CStr) -> bool {
    // SAFETY: `name` ends in NUL. Null and 0 tell that there is neither a value to read nor one to
    // write.
    let status: c_int = unsafe { mallctl(name.as_ptr(), null_mut(), null_mut(), null_mut(), 0) };
    status == 0
}

/// Writes `input`, if there is one, to the control `name`, and reads its value of type `T`. `None`
/// if jemalloc refuses.
fn read<T: Default>(name: &CStr, mut input: Option<*mut c_void>) -> Option<T> {
    let mut value = T::default();
    let mut value_len = size_of::<T>();
    let (new, new_len) = match &mut input {
        Some(pointer) => ((&raw mut *pointer).cast(), size_of::<*mut c_void>()),
        None => (null_mut(), 0),
    };
    // SAFETY: `name` ends in NUL. `value` is live and `value_len` is its size; the same holds for
    // `new` and `new_len`, or they are null and 0. jemalloc compares both lengths with the
    // control's type before it touches either.
    let status: c_int = unsafe {
        mallctl(
            name.as_ptr(),
            (&raw mut value).cast(),
            &mut value_len,
            new,
            new_len,
        )
    };
    (status == 0).then_some(value)
}
