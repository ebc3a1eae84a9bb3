//! Rows on jemalloc.

#[path = "../src/contender/jemalloc.rs"]
mod records;

use std::process::ExitCode;
use std::ptr::NonNull;

use theap_bench::{Contender, forward_global_alloc};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static GLOBAL: Peer = Peer(Jemalloc);

struct Peer(Jemalloc);

forward_global_alloc!(Peer);

impl Contender for Peer {
    const NAME: &'static str = "jemalloc";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        records::owns(block, size)
    }

    fn bytes_counted(&self) -> Option<u64> {
        records::bytes_counted()
    }

    fn trim(&self) -> bool {
        records::trim()
    }
}

fn main() -> ExitCode {
    theap_bench::answer(&GLOBAL)
}
