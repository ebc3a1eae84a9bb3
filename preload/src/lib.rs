//! `libtheap.so`: the malloc family and C++'s operators new and delete on theap's heap, for programs that are run
//! with it in `LD_PRELOAD` or linked with it, and the functions of `theap.h`.
//!
//! Every entry is a thin shell around `theap::raw`: it translates sizes, alignments and errors into what C, POSIX and
//! glibc promise, and nothing else. The hit path of `malloc` and `free` is the allocator's, inlined, without a call.
//!
//! Invariants:
//! - Nothing unwinds through a Rust frame: the profile `preload` has `panic = "abort"`, and where C++ throws
//!   (`operators`) the frame is assembly or gone.
//! - No standard library: what it allocates would come back to us, and loading its companion libraries would cost
//!   every short program time.
//! - `errno` changes only where a function's contract says so.
//! - No exported function calls an exported one, since a program may put its own in its place; but where C++ wants just
//!   that (`operators`).
#![no_std]
#![allow(unsafe_code)] // C interfaces: raw pointers in and out.

// `cargo check` and the other profiles unwind, and want the standard library's panic handler.
#[cfg(panic = "unwind")]
extern crate std;

mod family;
mod heap;
mod info;
mod operators;
mod text;

/// Runs before every other library's constructors (the linker's `-z initfirst`), the C library's included.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

extern "C" fn at_load() {
    theap::raw::handle_forks();
    operators::at_load();
}

/// A bug of the allocator: says where, and ends the process.
#[cfg(panic = "abort")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    text::fatal(format_args!("internal error: {info}"))
}
