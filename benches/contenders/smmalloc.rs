//! Rows on smmalloc. Its memory is one range, so it knows its pointers; a block's address tells its
//! size.

use std::process::ExitCode;
use std::ptr::NonNull;

use smmalloc::{Smalloc, ptr_to_sc};
use theap_bench::{Contender, forward_global_alloc};

#[global_allocator]
static GLOBAL: Peer = Peer(Smalloc::new());

struct Peer(Smalloc);

forward_global_alloc!(Peer);

impl Contender for Peer {
    const NAME: &'static str = "smmalloc";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        let address = block.addr().get();
        self.0.inner().is_smalloc_ptr(address) && 1 << ptr_to_sc(address) >= size
    }
}

fn main() -> ExitCode {
    theap_bench::answer(&GLOBAL)
}
