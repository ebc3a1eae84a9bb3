//! The messages to valgrind's tools about blocks, for the feature `valgrind`.
//!
//! A client request is a sequence of instructions that does nothing on a processor, and that
//! valgrind recognises: four rotations of RDI by 128 bits in all, and an exchange of RBX with
//! itself. RAX has the address of six words, of which the first is the request's number. RDX gets
//! the answer; without valgrind it keeps its value. `valgrind.h`, `memcheck.h` and `helgrind.h` of
//! valgrind 3 define numbers and registers, and keep them for good. A tool ignores the requests of
//! another tool.
#![allow(unsafe_code)] // Client requests are assembly.

use core::arch::asm;

const MALLOCLIKE_BLOCK: usize = 0x1301;
const FREELIKE_BLOCK: usize = 0x1302;
const RESIZEINPLACE_BLOCK: usize = 0x130b;
const CHANGE_ERR_DISABLEMENT: usize = 0x1801;
/// A request of memcheck: its first letters are 'M' and 'C'.
const MAKE_MEM_NOACCESS: usize = 0x4d43_0000;
/// A request of helgrind: its first letters are 'H' and 'G'.
const CLEAN_MEMORY: usize = 0x4847_0000;
/// Another one of helgrind.
const MAKE_UNTRACKED: usize = 0x4847_0127;

/// Makes a client request.
#[inline(always)]
fn request(number: usize, arguments: [usize; 4]) {
    let [a, b, c, d] = arguments;
    let words = [number, a, b, c, d, 0];
    // SAFETY: without valgrind the instructions change nothing, as they rotate RDI all the way
    // round. With valgrind only its own tables and RDX change.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") &raw const words,
            inout("rdx") 0usize => _,
            options(nostack)
        );
    }
}

/// Says that the range is the allocator's own: its threads order their accesses by atomics, which
/// helgrind does not know.
pub fn own(address: usize, len: usize) {
    request(MAKE_UNTRACKED, [address, len, 0, 0]);
}

/// Says that a block of `size` bytes begins here, and that nobody may access the bytes after it up
/// to `whole` bytes. Its contents count as zero, or as undefined.
pub fn allocated(block: *mut u8, size: usize, whole: usize, zero: bool) {
    let at = block as usize;
    request(MAKE_MEM_NOACCESS, [at, whole, 0, 0]);
    // The accesses of another thread to an earlier block here are no race with those of this
    // thread.
    request(CLEAN_MEMORY, [at, size, 0, 0]);
    request(MALLOCLIKE_BLOCK, [at, size, 0, usize::from(zero)]);
}

/// Says that the block is free. memcheck reports a wrong free if no live block begins here.
pub fn freed(block: *mut u8) {
    request(FREELIKE_BLOCK, [block as usize, 0, 0, 0]);
}

/// Says that the block has `new` bytes instead of `old`, out of the `whole` bytes of its place.
pub fn resized(block: *mut u8, old: usize, new: usize, whole: usize) {
    let at = block as usize;
    let kept = old.min(new);
    request(MAKE_MEM_NOACCESS, [at + kept, whole - kept, 0, 0]);
    request(RESIZEINPLACE_BLOCK, [at, old, new, 0]);
}

/// Calls `touch`, which may read and write the allocator's part of a block: memcheck does not
/// report its accesses, and the memory does not become accessible.
#[inline(always)]
pub fn quietly<R>(touch: impl FnOnce() -> R) -> R {
    request(CHANGE_ERR_DISABLEMENT, [1, 0, 0, 0]);
    let result = touch();
    request(CHANGE_ERR_DISABLEMENT, [-1isize as usize, 0, 0, 0]);
    result
}
