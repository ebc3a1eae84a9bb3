//! Rows on rpmalloc. It keeps no record that could be asked for an address, so a block is proved to be nobody else's.
#![allow(unsafe_code)] // the peer's C interface

use std::process::ExitCode;
use std::ptr::NonNull;

use rpmalloc::RpMalloc;
use theap_bench::{Contender, delegate, is_of_neither};

#[global_allocator]
static GLOBAL: Peer = Peer(RpMalloc);

struct Peer(RpMalloc);

delegate!(Peer);

impl Contender for Peer {
    const NAME: &'static str = "rpmalloc";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        // SAFETY: no other allocator of this process has the block, which is live.
        is_of_neither(block)
            && unsafe { rpmalloc_sys::rpmalloc_usable_size(block.as_ptr().cast()) } >= size
    }
}

fn main() -> ExitCode {
    theap_bench::answer(&GLOBAL)
}
