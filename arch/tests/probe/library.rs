//! A shared library with a thread slot; the runner and the bench build it outside the workspace.
//!
//! Without the feature `twin` it has no standard library in it, so that a `__tls_get_addr` could
//! only come from the slot.
#![cfg_attr(not(feature = "twin"), no_std)]
#![allow(unsafe_code)] // Exports functions by name.

use core::ffi::c_void;

static EMPTY: [u64; 8] = [0x70_6f_62_65; 8];

#[cfg(not(feature = "twin"))]
theap_arch::thread_slot! { mod slot: c_void = EMPTY; }
#[cfg(feature = "twin")]
theap_arch::portable_thread_slot! { mod slot: c_void = EMPTY; }

#[cfg(not(feature = "twin"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The calling thread's slot.
#[unsafe(no_mangle)]
pub extern "C" fn probe_get() -> *mut c_void {
    slot::get()
}

/// Changes the calling thread's slot.
#[unsafe(no_mangle)]
pub extern "C" fn probe_set(value: *mut c_void) {
    slot::set(value);
}

/// The value that every thread's slot holds at first.
#[unsafe(no_mangle)]
pub extern "C" fn probe_empty() -> *const c_void {
    (&raw const EMPTY).cast()
}

/// The CPU number as this library sees it, -1 if it does not.
#[unsafe(no_mangle)]
pub extern "C" fn probe_cpu() -> i64 {
    theap_arch::cpu_number().map_or(-1, i64::from)
}
