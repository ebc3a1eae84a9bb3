//! The set-up when the loader loads this library.
#![allow(unsafe_code)] // Names the section of a static; calls the loader.

use crate::image::is_ours;
use crate::{foreign, operators};
use core::ffi::{c_char, c_int};

/// The loader calls this before the constructors of all other libraries (the linker's `-z
/// initfirst`), also before those of the C library.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn(c_int, *const *const c_char, *mut *mut c_char) = at_load;

extern "C" fn at_load(_: c_int, _: *const *const c_char, environment: *mut *mut c_char) {
    // The C library, which sets the variable, comes later, and the heap's options are there.
    // SAFETY: no other thread and no other code runs yet; glibc calls a constructor so, and sets
    // the variable to the same pointer.
    unsafe {
        if cfg!(target_env = "gnu") && libc::environ.is_null() {
            libc::environ = environment;
        }
    }
    theap::raw::note_stderr();
    theap::raw::handle_forks();
    // Beside another malloc that comes first, as a sanitizer's does, the heap does nothing that a
    // free of a block does not ask for.
    // SAFETY: the name ends with a zero.
    if is_ours(unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"malloc".as_ptr()) }) {
        theap::raw::start();
    }
    operators::at_load();
    foreign::at_load();
}
