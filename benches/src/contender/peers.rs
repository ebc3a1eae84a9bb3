//! The peers that can be in one process with theap and System, and their proofs.
//!
//! - mimalloc: `mi_is_in_heap_region` looks the address up in mimalloc's page map.
//! - jemalloc: see `jemalloc.rs`.
#![allow(unsafe_code)] // mimalloc's C interface

use std::ptr::NonNull;

use mimalloc::MiMalloc;
use tikv_jemallocator::Jemalloc;

use super::{Contender, jemalloc};

/// Whether a peer's records claim the block.
pub(super) fn is_a_peers(block: NonNull<u8>) -> bool {
    in_mimalloc(block) || jemalloc::has(block)
}

impl Contender for MiMalloc {
    const NAME: &'static str = "mimalloc";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        // SAFETY: `mi_usable_size` asks for a live block of mimalloc. `Contender::owns` is called
        // with live blocks only, and the page map has shown that this one is mimalloc's.
        in_mimalloc(block)
            && unsafe { libmimalloc_sys::mi_usable_size(block.as_ptr().cast()) } >= size
    }

    fn trim(&self) -> bool {
        // SAFETY: no precondition.
        unsafe { libmimalloc_sys::mi_collect(true) };
        true
    }
}

impl Contender for Jemalloc {
    const NAME: &'static str = "jemalloc";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        jemalloc::owns(block, size)
    }

    fn bytes_counted(&self) -> Option<u64> {
        jemalloc::bytes_counted()
    }

    fn trim(&self) -> bool {
        jemalloc::trim()
    }
}

fn in_mimalloc(block: NonNull<u8>) -> bool {
    // SAFETY: the function takes any address and only looks it up.
    unsafe { libmimalloc_sys::mi_is_in_heap_region(block.as_ptr().cast()) }
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
