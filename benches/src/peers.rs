//! The peers and their proofs.
//!
//! - mimalloc: `mi_is_in_heap_region` looks the address up in its page map.
//! - jemalloc: the `arenas.lookup` control walks its extent map from the address to the arena, and
//!   fails on what is not its own; `thread.allocated` counts the bytes of this thread.
#![allow(unsafe_code)] // C interfaces of the peers

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::mem::size_of;
use std::ptr::{NonNull, null_mut};

use mimalloc::MiMalloc;
use tikv_jemalloc_sys::mallctl;
use tikv_jemallocator::Jemalloc;

use crate::{Contender, Entry};

pub(crate) const MIMALLOC: Entry = Entry {
    name: MiMalloc::NAME,
    run: |workload, params| workload.run(&MiMalloc, params),
};

pub(crate) const JEMALLOC: Entry = Entry {
    name: Jemalloc::NAME,
    run: |workload, params| workload.run(&Jemalloc, params),
};

/// Whether a peer's records claim the block.
pub(crate) fn is_a_peers(block: NonNull<u8>) -> bool {
    in_mimalloc(block) || arena_of(block).is_some()
}

impl Contender for MiMalloc {
    const NAME: &'static str = "mimalloc";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        // SAFETY: asked only after the page map has shown that the live block is mimalloc's.
        in_mimalloc(block)
            && unsafe { libmimalloc_sys::mi_usable_size(block.as_ptr().cast()) } >= size
    }
}

impl Contender for Jemalloc {
    const NAME: &'static str = "jemalloc";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        // SAFETY: asked only after the extent map has shown that the live block is jemalloc's.
        arena_of(block).is_some()
            && unsafe { tikv_jemalloc_sys::malloc_usable_size(block.as_ptr().cast()) } >= size
    }

    fn bytes_counted(&self) -> Option<u64> {
        read_control::<u64>(c"thread.allocated", None)
    }
}

fn in_mimalloc(block: NonNull<u8>) -> bool {
    // SAFETY: takes any address and only looks it up.
    unsafe { libmimalloc_sys::mi_is_in_heap_region(block.as_ptr().cast()) }
}

/// The number of the jemalloc arena that holds the block.
fn arena_of(block: NonNull<u8>) -> Option<c_uint> {
    read_control::<c_uint>(c"arenas.lookup", Some(block.as_ptr().cast()))
}

/// Reads a jemalloc control of type `T`, having written `input` to it if there is one.
fn read_control<T: Default>(name: &CStr, input: Option<*mut c_void>) -> Option<T> {
    let mut value = T::default();
    let mut value_len = size_of::<T>();
    let mut input = input;
    let (new, new_len) = match &mut input {
        Some(pointer) => (
            (pointer as *mut *mut c_void).cast(),
            size_of::<*mut c_void>(),
        ),
        None => (null_mut(), 0),
    };
    // SAFETY: `name` ends in NUL; `value` and `value_len` are live and agree, and so are `new` and
    // `new_len`; jemalloc compares both lengths with the control's type before it touches them.
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

#[cfg(test)]
mod tests {
    use std::alloc::{GlobalAlloc, Layout, System};

    use theap::Theap;

    use super::*;

    fn claims(block: NonNull<u8>, size: usize) -> [bool; 4] {
        [
            Theap::new().owns(block, size),
            System.owns(block, size),
            MiMalloc.owns(block, size),
            Jemalloc.owns(block, size),
        ]
    }

    #[test]
    fn a_block_is_claimed_by_its_allocator_alone() {
        let allocators: [&dyn GlobalAlloc; 4] = [&Theap::new(), &System, &MiMalloc, &Jemalloc];
        for size in [1, 64, 5_000, 40_000, 3 << 20] {
            let layout = Layout::from_size_align(size, 1).unwrap();
            for (nth, allocator) in allocators.iter().enumerate() {
                // SAFETY: the size is not 0.
                let block = NonNull::new(unsafe { allocator.alloc(layout) }).unwrap();
                let mut expected = [false; 4];
                expected[nth] = true;
                assert_eq!(claims(block, size), expected, "{size} bytes");
                // SAFETY: the live block just allocated with this layout.
                unsafe { allocator.dealloc(block.as_ptr(), layout) };
            }
        }
    }
}
