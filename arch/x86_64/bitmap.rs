//! Bits of a word to block addresses, by vector stores.
//!
//! The addresses of a full word are an arithmetic sequence: sixteen stores of four addresses. A
//! word with many bits goes byte by byte from the top: a table has the positions of a byte's set
//! bits. The code computes and stores eight addresses whatever the number of set bits, and the
//! addresses of the next byte overwrite the surplus. Where eight more would pass the end, the
//! twin's loop takes over. Words with few bits go through that loop from the start; for them only
//! the count is tuned, by `popcnt`.
//!
//! Order and contract are the same as for the twins ([`crate::portable::bitmap`]), which also serve
//! CPUs without AVX2. The code chooses at run time.
#![allow(unsafe_code)] // vector stores through a raw destination

use super::cpu;
use crate::portable::bitmap as plain;
use core::arch::asm;
use core::arch::x86_64::{
    __m256i, _mm_cvtsi64_si128, _mm256_add_epi64, _mm256_cvtepu8_epi64, _mm256_mul_epu32,
    _mm256_set_epi64x, _mm256_set1_epi64x, _mm256_storeu_si256, _mm256_sub_epi64,
};

/// The number of set bits from which the vector code serves. From 24 to here the faster code
/// changed from build to build; from here on it was always the vector code.
const MANY: usize = 36;

/// The positions of the set bits of each byte, one position in a byte, the highest in the lowest
/// byte.
static POSITIONS: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut bit = 0;
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                table[byte] = table[byte] << 8 | bit;
            }
            bit += 1;
        }
        byte += 1;
    }
    table
};

/// Writes the 64 addresses `base + i * stride` so that `dst[63 - i]` is the address of bit `i`.
///
/// # Safety
/// `dst` is valid for writing 64 pointers.
#[inline]
pub unsafe fn expand_full(base: usize, stride: usize, dst: *mut *mut u8) {
    if cpu::has_avx2() {
        // SAFETY: the CPU has AVX2, and `dst` has room for 64 pointers (`# Safety`).
        unsafe { expand_full_avx2(base, stride, dst) }
    } else {
        // SAFETY: `dst` has room for 64 pointers (`# Safety`).
        unsafe { plain::expand_full(base, stride, dst) }
    }
}

/// Writes `base + i * stride` for each set bit `i` of `word`, the lowest address last; returns
/// the number of addresses written. `stride` is below 4 GiB.
///
/// # Safety
/// `dst` is valid for writing as many pointers as `word` has set bits.
#[inline]
pub unsafe fn expand(word: u64, base: usize, stride: usize, dst: *mut *mut u8) -> usize {
    if !cpu::has_avx2() {
        // SAFETY: `dst` has room for as many pointers as the word has set bits (`# Safety`).
        return unsafe { plain::expand(word, base, stride, dst) };
    }
    let count: usize;
    // SAFETY: the CPU has POPCNT, as `has_avx2` checks; the instruction only computes.
    unsafe {
        asm!("popcnt {count}, {word}", count = lateout(reg) count, word = in(reg) word,
            options(pure, nomem, nostack));
    }
    // SAFETY: the CPU has AVX2, BMI1 and POPCNT, as `has_avx2` checks; the word has `count` set
    // bits, and `dst` has room for as many pointers (`# Safety`).
    unsafe {
        if count >= MANY {
            expand_avx2(word, count, base, stride, dst)
        } else {
            plain::expand_counted(word, count, base, stride, dst)
        }
    }
}

/// Does the work of [`expand_full`] with AVX2.
///
/// # Safety
/// The conditions of [`expand_full`], and the CPU has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn expand_full_avx2(base: usize, stride: usize, dst: *mut *mut u8) {
    let address = |i: usize| base.wrapping_add(stride.wrapping_mul(i)) as i64;
    let step = _mm256_set1_epi64x(stride.wrapping_mul(4) as i64);
    let mut four = _mm256_set_epi64x(address(60), address(61), address(62), address(63));
    for place in (0..64).step_by(4) {
        // SAFETY: `dst` has room for 64 pointers (`# Safety`), of which these are four; the store
        // may be unaligned.
        unsafe { _mm256_storeu_si256(dst.add(place).cast::<__m256i>(), four) };
        four = _mm256_sub_epi64(four, step);
    }
}

/// Does the work of [`expand`] with AVX2.
///
/// # Safety
/// The conditions of [`expand`]; `word` has `count` set bits; the CPU has AVX2, BMI1 and POPCNT.
#[target_feature(enable = "avx2,bmi1,popcnt")]
unsafe fn expand_avx2(
    word: u64,
    count: usize,
    base: usize,
    stride: usize,
    dst: *mut *mut u8,
) -> usize {
    let strides = _mm256_set1_epi64x(stride as i64);
    let mut rest = word;
    let mut place = 0;
    for byte in (0..8).rev() {
        if place + 8 > count {
            break;
        }
        let bits = (word >> (8 * byte)) as u8;
        let first = _mm256_set1_epi64x(base.wrapping_add(stride.wrapping_mul(8 * byte)) as i64);
        let positions = POSITIONS[bits as usize];
        for half in 0..2 {
            let four = _mm_cvtsi64_si128((positions >> (32 * half)) as i64);
            let offsets = _mm256_mul_epu32(_mm256_cvtepu8_epi64(four), strides);
            // SAFETY: `place + 8` is at most the number of set bits, and `dst` has room for that
            // many (`# Safety`); the store may be unaligned.
            unsafe {
                let to = dst.add(place + 4 * half).cast::<__m256i>();
                _mm256_storeu_si256(to, _mm256_add_epi64(first, offsets));
            }
        }
        place += bits.count_ones() as usize;
        rest ^= (bits as u64) << (8 * byte);
    }
    // SAFETY: `rest` has the bits of the entries from `place` on, for which `dst` has room (`#
    // Safety`).
    place + unsafe { plain::expand_counted(rest, count - place, base, stride, dst.add(place)) }
}
