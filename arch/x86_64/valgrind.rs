//! What valgrind's tools are told about blocks, by the feature `valgrind`.
//!
//! A client request is a sequence of instructions that does nothing on a processor and that valgrind recognises: four
//! rotations of RDI by 128 bits in all, and an exchange of RBX with itself. RAX has the address of six words, the
//! request's number first; RDX the answer, which stays as it is when no valgrind looks on. Numbers and registers are
//! the interface that `valgrind.h`, `memcheck.h` and `helgrind.h` of valgrind 3 define, and keep for good. A tool
//! ignores the requests of another one.
#![allow(unsafe_code)] // the instructions, and the memory that they name

use core::arch::asm;

const MALLOCLIKE_BLOCK: usize = 0x1301;
const FREELIKE_BLOCK: usize = 0x1302;
const RESIZEINPLACE_BLOCK: usize = 0x130b;
const CHANGE_ERR_DISABLEMENT: usize = 0x1801;
/// memcheck's, whose first letters are 'M' and 'C'.
const MAKE_MEM_NOACCESS: usize = 0x4d43_0000;
/// helgrind's, whose first letters are 'H' and 'G'.
const CLEAN_MEMORY: usize = 0x4847_0000;

#[inline(always)]
fn request(number: usize, arguments: [usize; 4]) {
    let [a, b, c, d] = arguments;
    let words = [number, a, b, c, d, 0];
    // SAFETY: without valgrind the instructions change nothing: RDI is rotated all the way round. With it, its own
    // tables change and RDX.
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

/// A block of `size` bytes begins here, and nobody may touch what follows it up to `whole` bytes. Its contents count
/// as undefined, or as zero.
pub fn allocated(block: *mut u8, size: usize, whole: usize, zero: bool) {
    let at = block as usize;
    request(MAKE_MEM_NOACCESS, [at, whole, 0, 0]);
    // Another thread's accesses to a former block here are no race with this one's.
    request(CLEAN_MEMORY, [at, size, 0, 0]);
    request(MALLOCLIKE_BLOCK, [at, size, 0, usize::from(zero)]);
}

/// The block is gone. What is no live block is reported as a wrong free.
pub fn freed(block: *mut u8) {
    request(FREELIKE_BLOCK, [block as usize, 0, 0, 0]);
}

/// The block has `new` bytes instead of `old`, of `whole` that are its own.
pub fn resized(block: *mut u8, old: usize, new: usize, whole: usize) {
    let at = block as usize;
    let kept = old.min(new);
    request(MAKE_MEM_NOACCESS, [at + kept, whole - kept, 0, 0]);
    request(RESIZEINPLACE_BLOCK, [at, old, new, 0]);
}

/// Calls `touch`, which may read and write the allocator's part of a block: what it does wrong is not reported, and
/// does not make the memory accessible.
#[inline(always)]
pub fn quietly<R>(touch: impl FnOnce() -> R) -> R {
    request(CHANGE_ERR_DISABLEMENT, [1, 0, 0, 0]);
    let result = touch();
    request(CHANGE_ERR_DISABLEMENT, [-1isize as usize, 0, 0, 0]);
    result
}
