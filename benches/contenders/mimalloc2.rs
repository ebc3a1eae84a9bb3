//! Rows on mimalloc 2. `mi_is_in_heap_region` looks an address up in its own map of pages.
#![allow(unsafe_code)] // the peer's C interface

#[cfg(feature = "peers")]
compile_error!(
    "with feature `peers` the library has mimalloc 3, whose functions have the same names"
);

use std::process::ExitCode;
use std::ptr::NonNull;

use mimalloc_safe::MiMalloc;
use theap_bench::{Contender, delegate};

#[global_allocator]
static GLOBAL: Peer = Peer(MiMalloc);

struct Peer(MiMalloc);

delegate!(Peer);

impl Contender for Peer {
    const NAME: &'static str = "mimalloc2";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        let block = block.as_ptr().cast();
        // SAFETY: takes any address; the size is asked for only after it was found to be mimalloc's.
        unsafe {
            libmimalloc_sys2::mi_is_in_heap_region(block)
                && libmimalloc_sys2::mi_usable_size(block) >= size
        }
    }
}

fn main() -> ExitCode {
    theap_bench::answer(&GLOBAL)
}
