//! The set-up when the loader loads this library.
#![allow(unsafe_code)] // Names the section of a static.

use crate::{foreign, operators};

/// The loader calls this before the constructors of all other libraries (the linker's `-z
/// initfirst`), also before those of the C library.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

extern "C" fn at_load() {
    theap::raw::note_stderr();
    theap::raw::handle_forks();
    theap::raw::start();
    operators::at_load();
    foreign::at_load();
}
