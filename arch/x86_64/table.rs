//! Tables with a byte for each of adjacent things, which other threads may read meanwhile, by
//! vector stores.
//!
//! The compiler neither joins atomic stores nor may anybody else, in Rust, store atomics of another
//! size in their place. To assembly the rule is the machine's: each byte of a vector is there or
//! not yet, as with a store a byte.
#![allow(unsafe_code)] // assembly, which stores by pointer

use core::arch::asm;
use core::arch::x86_64::__m128i;
use core::sync::atomic::AtomicU8;

/// Bytes of a vector.
const VECTOR: usize = size_of::<__m128i>();

/// Does what [`crate::portable::table::fill`] does.
///
/// # Safety
/// The places are accessible, and no other thread writes them meanwhile.
#[inline]
pub unsafe fn fill(table: *const AtomicU8, len: usize, byte: u8) {
    if len < VECTOR {
        // SAFETY: this function's own Safety section.
        return unsafe { crate::portable::table::fill(table, len, byte) };
    }
    let all = [byte; VECTOR];
    // SAFETY: this function's own Safety section; there is room for a vector.
    unsafe { store(table, len, (all, [0; VECTOR]), all) };
}

/// Does what [`crate::portable::table::number`] does.
///
/// # Safety
/// The conditions of [`fill`].
#[inline]
pub unsafe fn number(table: *const AtomicU8, len: usize) {
    if len < VECTOR {
        // SAFETY: this function's own Safety section.
        return unsafe { crate::portable::table::number(table, len) };
    }
    let first: [u8; VECTOR] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let begin = (len - VECTOR).min(255) as u8;
    let last = first.map(|byte| byte.saturating_add(begin));
    // SAFETY: this function's own Safety section; there is room for a vector.
    unsafe { store(table, len, (first, [VECTOR as u8; VECTOR]), last) };
}

/// The vector of these bytes.
fn vector(bytes: [u8; VECTOR]) -> __m128i {
    // SAFETY: a vector is plain bytes of the same number.
    unsafe { core::mem::transmute(bytes) }
}

/// Stores `now` at the table's start, and at each further multiple of a vector what it has become
/// by adding `step` to each of its bytes, up to 255; and `last` at the table's end.
///
/// # Safety
/// The conditions of [`fill`], and `len` is at least [`VECTOR`].
#[inline]
unsafe fn store(
    table: *const AtomicU8,
    len: usize,
    (now, step): ([u8; VECTOR], [u8; VECTOR]),
    last: [u8; VECTOR],
) {
    // SAFETY: all stores lie from `table` to `table + len`, which is as this function's Safety
    // section has it: those of the loop begin below `end`, and the last one there.
    unsafe {
        asm!(
            "jmp 3f",
            "2:",
            "movdqu [{at}], {now}",
            "paddusb {now}, {step}",
            "add {at}, 16",
            "3:",
            "cmp {at}, {end}",
            "jb 2b",
            "movdqu [{end}], {last}",
            at = inout(reg) table => _,
            end = in(reg) table.add(len - VECTOR),
            now = inout(xmm_reg) vector(now) => _,
            step = in(xmm_reg) vector(step),
            last = in(xmm_reg) vector(last),
            options(nostack),
        );
    }
}
