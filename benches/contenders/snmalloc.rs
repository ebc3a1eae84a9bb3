//! Rows on snmalloc. It keeps no record that could be asked for an address, so a block is proved to
//! be nobody else's.
#![allow(unsafe_code)] // the peer's C interface

use std::process::ExitCode;
use std::ptr::NonNull;

use snmalloc_rs::SnMalloc;
use theap_bench::{Contender, forward_global_alloc, is_of_neither};

#[global_allocator]
static GLOBAL: Peer = Peer(SnMalloc);

struct Peer(SnMalloc);

forward_global_alloc!(Peer);

impl Contender for Peer {
    const NAME: &'static str = "snmalloc";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        // SAFETY: the function asks for a live block of snmalloc. `Contender::owns` is called with
        // live blocks only, and `is_of_neither` has shown that no other allocator of this process
        // has this one.
        is_of_neither(block)
            && unsafe { snmalloc_sys::sn_rust_usable_size(block.as_ptr().cast()) } >= size
    }
}

fn main() -> ExitCode {
    theap_bench::answer(&GLOBAL)
}
