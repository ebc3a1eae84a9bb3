//! Tables with a byte for each of adjacent things, which other threads may read meanwhile, by a
//! store a byte.
#![allow(unsafe_code)] // reaches the tables by pointer

use core::sync::atomic::{AtomicU8, Ordering};

/// Stores `byte` in each of `len` places from `table` on.
///
/// # Safety
/// The places are accessible, and no other thread writes them meanwhile.
#[inline]
pub unsafe fn fill(table: *const AtomicU8, len: usize, byte: u8) {
    for at in 0..len {
        // SAFETY: one of the `len` places (`# Safety`).
        unsafe { &*table.add(at) }.store(byte, Ordering::Relaxed);
    }
}

/// Stores 0, 1, 2 and so on in the `len` places from `table` on, and 255 in those behind 255.
///
/// # Safety
/// The conditions of [`fill`].
#[inline]
pub unsafe fn number(table: *const AtomicU8, len: usize) {
    for at in 0..len {
        // SAFETY: one of the `len` places (`# Safety`).
        unsafe { &*table.add(at) }.store(at.min(255) as u8, Ordering::Relaxed);
    }
}
