//! The messages to valgrind's tools in a build without the feature `valgrind`, which do nothing.

/// Says that the range is the allocator's own.
#[inline(always)]
pub fn own(_address: usize, _len: usize) {}

/// Says that a block begins here.
#[inline(always)]
pub fn allocated(_block: *mut u8, _size: usize, _whole: usize, _zero: bool) {}

/// Says that the block is free.
#[inline(always)]
pub fn freed(_block: *mut u8) {}

/// Says that the block has another size.
#[inline(always)]
pub fn resized(_block: *mut u8, _old: usize, _new: usize, _whole: usize) {}

/// Calls `touch`.
#[inline(always)]
pub fn quietly<R>(touch: impl FnOnce() -> R) -> R {
    touch()
}
