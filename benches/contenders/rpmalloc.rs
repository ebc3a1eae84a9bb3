//! Rows on rpmalloc. It keeps no record that could be asked for an address, so a block is proved to
//! be nobody else's.
#![allow(unsafe_code)] // the peer's C interface

use std::process::ExitCode;
use std::ptr::NonNull;

use rpmalloc::RpMalloc;
use theap_bench::{Contender, forward_global_alloc, is_of_neither};

#[global_allocator]
static GLOBAL: Peer = Peer(RpMalloc);

struct Peer(RpMalloc);

forward_global_alloc!(Peer);

impl Contender for Peer {
    const NAME: &'static str = "rpmalloc";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        // SAFETY: the function asks for a live block of rpmalloc. `Contender::owns` is called with
        // live blocks only, and `is_of_neither` has shown that no other allocator of this process
        // has this one.
        is_of_neither(block)
            && unsafe { rpmalloc_sys::rpmalloc_usable_size(block.as_ptr().cast()) } >= size
    }

    fn trim(&self) -> bool {
        // SAFETY: the calling thread has used rpmalloc, so rpmalloc knows it.
        unsafe { rpmalloc_sys::rpmalloc_thread_collect() };
        true
    }
}

fn main() -> ExitCode {
    theap_bench::answer(&GLOBAL)
}
