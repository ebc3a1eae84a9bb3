//! Bits of a word to block addresses, by vector stores.
//!
//! A full word is an arithmetic sequence: sixteen stores of four addresses. A word with many bits
//! goes byte by byte from the top: a table tells the positions of a byte's set bits, eight
//! addresses are computed and stored whatever their number, and the next byte's overwrite the
//! surplus. Where eight more would pass the end the twin's loop takes over. Words with few bits go
//! through that loop from the start; for them only the count is tuned, by `popcnt`.
//!
//! Order and contract are the twins' ([`crate::portable::bitmap`]), which also serve CPUs without
//! AVX2; the choice is made at run time.
#![allow(unsafe_code)] // vector stores through a raw destination

use super::cpu;
use crate::portable::bitmap as plain;
use core::arch::asm;
use core::arch::x86_64::{
    __m256i, _mm_cvtsi64_si128, _mm256_add_epi64, _mm256_cvtepu8_epi64, _mm256_mul_epu32,
    _mm256_set_epi64x, _mm256_set1_epi64x, _mm256_storeu_si256, _mm256_sub_epi64,
};

/// Number of set bits from which the vector code is used. Below, down to 24, which one is faster
/// changed from build to build; from here on it was always the vector code.
const MANY: usize = 36;

/// Positions of a byte's set bits, one a byte, the highest position in the lowest byte.
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
        // SAFETY: the CPU has AVX2; `dst` is the caller's promise.
        unsafe { expand_full_avx2(base, stride, dst) }
    } else {
        // SAFETY: handed on to the caller.
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
        // SAFETY: handed on to the caller.
        return unsafe { plain::expand(word, base, stride, dst) };
    }
    let count: usize;
    // SAFETY: the CPU has POPCNT (`has_avx2` says so), which only computes.
    unsafe {
        asm!("popcnt {count}, {word}", count = lateout(reg) count, word = in(reg) word,
            options(pure, nomem, nostack));
    }
    // SAFETY: the CPU has AVX2, BMI1 and POPCNT; `dst` is the caller's promise.
    unsafe {
        if count >= MANY {
            expand_avx2(word, count, base, stride, dst)
        } else {
            plain::expand_counted(word, count, base, stride, dst)
        }
    }
}

/// # Safety
/// As [`expand_full`], and the CPU has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn expand_full_avx2(base: usize, stride: usize, dst: *mut *mut u8) {
    let address = |i: usize| base.wrapping_add(stride.wrapping_mul(i)) as i64;
    let step = _mm256_set1_epi64x(stride.wrapping_mul(4) as i64);
    let mut four = _mm256_set_epi64x(address(60), address(61), address(62), address(63));
    for place in (0..64).step_by(4) {
        // SAFETY: four of the 64 entries for which the caller vouches; the store is unaligned.
        unsafe { _mm256_storeu_si256(dst.add(place).cast::<__m256i>(), four) };
        four = _mm256_sub_epi64(four, step);
    }
}

/// # Safety
/// As [`expand`]; `word` has `count` set bits; the CPU has AVX2, BMI1 and POPCNT.
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
            // SAFETY: `place + 8` is at most the number of set bits, for which the caller
            // vouches; the store is unaligned.
            unsafe {
                let to = dst.add(place + 4 * half).cast::<__m256i>();
                _mm256_storeu_si256(to, _mm256_add_epi64(first, offsets));
            }
        }
        place += bits.count_ones() as usize;
        rest ^= (bits as u64) << (8 * byte);
    }
    // SAFETY: `rest` holds the bits of the entries from `place` on.
    place + unsafe { plain::expand_counted(rest, count - place, base, stride, dst.add(place)) }
}
