//! Rows on mimalloc 2. `mi_is_in_heap_region` looks an address up in mimalloc's map of pages.
#![allow(unsafe_code)] // the peer's C interface

#[cfg(feature = "peers")]
compile_error!(
    "with feature `peers` the library has mimalloc 3, whose functions have the same names"
);

use std::process::ExitCode;
use std::ptr::NonNull;

use mimalloc_safe::MiMalloc;
use theap_bench::{Contender, forward_global_alloc};

#[global_allocator]
static GLOBAL: Peer = Peer(MiMalloc);

struct Peer(MiMalloc);

forward_global_alloc!(Peer);

impl Contender for Peer {
    const NAME: &'static str = "mimalloc2";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        let block = block.as_ptr().cast();
        // SAFETY: `mi_is_in_heap_region` takes any address. `mi_usable_size` asks for a live block
        // of mimalloc: `Contender::owns` is called with live blocks only, and the map of pages has
        // shown that this one is mimalloc's.
        unsafe {
            libmimalloc_sys2::mi_is_in_heap_region(block)
                && libmimalloc_sys2::mi_usable_size(block) >= size
        }
    }

    fn trim(&self) -> bool {
        // SAFETY: no precondition.
        unsafe { libmimalloc_sys2::mi_collect(true) };
        true
    }
}

fn main() -> ExitCode {
    theap_bench::answer(&GLOBAL)
}
