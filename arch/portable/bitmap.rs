//! Bits of a word to block addresses, in plain Rust.
//!
//! Both functions write in descending order, the lowest address last: a stack that takes these
//! addresses as its newest part hands the blocks out in ascending order of addresses.
#![allow(unsafe_code)] // writes through a raw destination

use core::ptr::with_exposed_provenance_mut;

/// Writes the 64 addresses `base + i * stride` so that `dst[63 - i]` is the address of bit `i`.
///
/// # Safety
/// `dst` is valid for writing 64 pointers.
#[inline]
pub unsafe fn expand_full(base: usize, stride: usize, dst: *mut *mut u8) {
    for i in 0..64 {
        let block = with_exposed_provenance_mut(base.wrapping_add(stride.wrapping_mul(i)));
        // SAFETY: 63 - i is below 64, and `dst` has room for 64 pointers (`# Safety`).
        unsafe { dst.add(63 - i).write(block) };
    }
}

/// Writes `base + i * stride` for each set bit `i` of `word`, the lowest address last; returns
/// the number of addresses written. `stride` is below 4 GiB.
///
/// # Safety
/// `dst` is valid for writing as many pointers as `word` has set bits.
#[inline]
pub unsafe fn expand(word: u64, base: usize, stride: usize, dst: *mut *mut u8) -> usize {
    // SAFETY: `dst` has room for as many pointers as the word has set bits (`# Safety`).
    unsafe { expand_counted(word, word.count_ones() as usize, base, stride, dst) }
}

/// Does the work of [`expand`] for a caller that has counted the set bits.
///
/// # Safety
/// The conditions of [`expand`]; `word` has `count` set bits.
#[inline(always)]
pub(crate) unsafe fn expand_counted(
    word: u64,
    count: usize,
    base: usize,
    stride: usize,
    dst: *mut *mut u8,
) -> usize {
    let mut rest = word;
    for place in (0..count).rev() {
        let i = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        let block = with_exposed_provenance_mut(base.wrapping_add(stride.wrapping_mul(i)));
        // SAFETY: `place` is below the number of set bits, and `dst` has room for that many (`#
        // Safety`).
        unsafe { dst.add(place).write(block) };
    }
    count
}
