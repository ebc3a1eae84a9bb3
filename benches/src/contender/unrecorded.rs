//! The proof for allocators that keep no record to ask: a block of theirs is nobody else's.

use std::ptr::NonNull;
use std::sync::OnceLock;

use super::glibc;

/// Bytes that glibc may have in use where another allocator serves the program: what the C runtime
/// takes before the other allocator is there. A probe (`block/probe.rs`) takes more.
const RUNTIME: usize = 128 << 10;

/// The same bound once the process has had threads: each of them makes glibc take some.
const THREADS: usize = 2 << 20;

/// Whether the block is neither theap's nor glibc's: glibc's own count must show that next to
/// nothing is in use there. The first call, which is the probe before a row, takes the strict
/// bound.
pub fn is_of_neither(block: NonNull<u8>) -> bool {
    static FIRST: OnceLock<bool> = OnceLock::new();
    let below = |limit| glibc::bytes_in_use().is_some_and(|bytes| bytes < limit);
    *FIRST.get_or_init(|| below(RUNTIME)) && below(THREADS) && !theap::owns(block.as_ptr())
}
