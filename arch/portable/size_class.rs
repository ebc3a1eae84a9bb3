//! Size to class in plain Rust.
//!
//! Classes 0 to 7 are 16 to 128 bytes in steps of 16, then each doubling has four classes, up to
//! 2 MiB (class 63). With `s = size - 1` and `e` the number of the highest bit of `s`, but at
//! least 6, the class is `(e - 6) * 4 + (s >> (e - 2))`: the two bits below the highest one count
//! the four classes of a doubling, and `e = 6` makes the linear part fall out of the same formula.

/// Largest size that [`class_of_tiny`] takes, in bytes.
pub const TINY_MAX: usize = 1024;
/// Largest size that has a class, in bytes.
pub const CLASSED_MAX: usize = 2 << 20;
/// Number of classes.
pub const CLASSES: usize = 64;

/// The class of `16 * index` bytes.
static TINY: [u8; TINY_MAX / 16 + 1] = {
    let mut table = [0; TINY_MAX / 16 + 1];
    let mut index = 0;
    while index < table.len() {
        table[index] = class_of(16 * index) as u8;
        index += 1;
    }
    table
};

/// The distance from the first magazine of a head to that of the class of `16 * index` bytes, in
/// words: before the one of class 0 there is one that no class has, and each has two words. It is a
/// constant, so that the place of a size that the compiler knows is one too.
pub const TINY_PLACES: [u8; TINY_MAX / 16 + 1] = {
    let mut table = [0; TINY_MAX / 16 + 1];
    let mut index = 0;
    while index < table.len() {
        table[index] = (class_of(16 * index) as u8 + 1) * 2;
        index += 1;
    }
    table
};

/// The class of `size` bytes, by a table; size 0 is class 0.
///
/// Where the compiler inlines this behind a comparison with [`TINY_MAX`], there is no bounds check.
///
/// # Panics
/// If `size` is greater than [`TINY_MAX`].
#[inline(always)]
pub const fn class_of_tiny(size: usize) -> usize {
    TINY[(size + 15) >> 4] as usize
}

/// The class of `size` bytes, by arithmetic without a branch; size 0 is class 0.
///
/// Above [`CLASSED_MAX`] the result is at least [`CLASSES`].
#[inline(always)]
pub const fn class_of(size: usize) -> usize {
    let s = size - (size != 0) as usize;
    let e = (s | 64).ilog2() as usize;
    (e - 6) * 4 + (s >> (e - 2))
}
