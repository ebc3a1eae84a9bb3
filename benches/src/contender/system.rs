//! System, which is glibc, as a contender: no other allocator claims the block, and glibc's own
//! count of bytes in use rises with each probe.
#![allow(unsafe_code)] // glibc's introspection

use std::alloc::System;
use std::ptr::NonNull;

use super::Contender;
#[cfg(feature = "peers")]
use super::peers::is_a_peers;

impl Contender for System {
    const NAME: &'static str = "system";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        if theap::owns(block.as_ptr()) || is_a_peers(block) {
            return false;
        }
        // SAFETY: `malloc_usable_size` asks for a live block from malloc. `Contender::owns` is
        // called with live blocks only, and the check above has shown that no other allocator of
        // this process has this one.
        let usable = unsafe { libc::malloc_usable_size(block.as_ptr().cast()) };
        usable >= size
    }

    fn bytes_counted(&self) -> Option<u64> {
        // SAFETY: no precondition; it only reads the arenas' counters, under their locks.
        let info = unsafe { libc::mallinfo2() };
        Some((info.uordblks + info.hblkhd) as u64)
    }

    fn trim(&self) -> bool {
        // SAFETY: no precondition; it works on the arenas under their locks.
        unsafe { libc::malloc_trim(0) };
        true
    }
}

/// Without peers in the build no block can be theirs.
#[cfg(not(feature = "peers"))]
fn is_a_peers(_block: NonNull<u8>) -> bool {
    false
}
