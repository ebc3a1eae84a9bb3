//! What a build without the feature `valgrind` tells valgrind's tools: nothing.

/// A block begins here.
#[inline(always)]
pub fn allocated(_block: *mut u8, _size: usize, _whole: usize, _zero: bool) {}

/// The block is gone.
#[inline(always)]
pub fn freed(_block: *mut u8) {}

/// The block has another size.
#[inline(always)]
pub fn resized(_block: *mut u8, _old: usize, _new: usize, _whole: usize) {}

/// Calls `touch`.
#[inline(always)]
pub fn quietly<R>(touch: impl FnOnce() -> R) -> R {
    touch()
}
