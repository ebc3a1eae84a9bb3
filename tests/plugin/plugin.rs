//! A library with theap as its global allocator, which `tests/copies.rs` loads and unloads.
#![allow(unsafe_code, missing_docs)]

use theap::{Config, Pages, Theap};

#[global_allocator]
static HEAP: Theap = Theap::with(Config::new().pages(Pages::Small));

/// Allocates and frees `count` strings. Their bytes.
#[unsafe(no_mangle)]
pub extern "C" fn work(count: usize) -> usize {
    let strings: Vec<String> = (0..count).map(|i| "x".repeat(i % 300)).collect();
    strings.iter().map(String::len).sum()
}

/// Gives a box away, to be given to `drop_number` of the same library.
#[unsafe(no_mangle)]
pub extern "C" fn new_number(number: u64) -> *mut u64 {
    Box::into_raw(Box::new(number))
}

/// # Safety
/// The box is one of `new_number`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn drop_number(number: *mut u64) -> u64 {
    // SAFETY: of `new_number`, as this function's Safety section asks.
    *unsafe { Box::from_raw(number) }
}
