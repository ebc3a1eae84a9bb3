//! Rows on jemalloc. The `arenas.lookup` control walks its extent map from the address to the arena, and fails on what
//! is not its own; `thread.allocated` counts the bytes of this thread.
#![allow(unsafe_code)] // the peer's C interface

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::process::ExitCode;
use std::ptr::{NonNull, null_mut};

use theap_bench::{Contender, delegate};
use tikv_jemalloc_sys::{mallctl, malloc_usable_size};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static GLOBAL: Peer = Peer(Jemalloc);

struct Peer(Jemalloc);

delegate!(Peer);

impl Contender for Peer {
    const NAME: &'static str = "jemalloc";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        let block = block.as_ptr().cast();
        // SAFETY: the size is asked for only after the extent map has shown that the block is jemalloc's.
        read::<c_uint>(c"arenas.lookup", Some(block)).is_some()
            && unsafe { malloc_usable_size(block) } >= size
    }

    fn bytes_counted(&self) -> Option<u64> {
        read::<u64>(c"thread.allocated", None)
    }
}

/// Reads a control of type `T`, having written `input` to it if there is one.
fn read<T: Default>(name: &CStr, mut input: Option<*mut c_void>) -> Option<T> {
    let mut value = T::default();
    let mut value_len = size_of::<T>();
    let (new, new_len) = match &mut input {
        Some(pointer) => ((&raw mut *pointer).cast(), size_of::<*mut c_void>()),
        None => (null_mut(), 0),
    };
    // SAFETY: `name` ends in NUL; `value` and `value_len` are live and agree, and so are `new` and `new_len`; jemalloc
    // compares both lengths with the control's type before it touches them.
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

fn main() -> ExitCode {
    theap_bench::answer(&GLOBAL)
}
