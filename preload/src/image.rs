//! Where this library lies in memory.
#![allow(unsafe_code)] // Symbols of the linker.

use core::ffi::c_void;

unsafe extern "C" {
    /// The start of this library in memory, which the linker defines.
    static __ehdr_start: u8;
    /// The end of this library in memory, which the linker defines.
    static _end: u8;
}

/// Tells whether the function is one of this library.
pub fn is_ours(function: *const c_void) -> bool {
    (&raw const __ehdr_start as usize..&raw const _end as usize).contains(&function.addr())
}
