//! `libtheap.so`: the malloc family and C++'s operators new and delete on theap's heap, and the
//! functions of `theap.h`. It is for programs that run with it in `LD_PRELOAD` or are linked with
//! it.
//!
//! Every entry is a thin shell around `theap::raw`: it translates sizes, alignments and errors into
//! what C, POSIX and glibc promise, and does nothing else. The hit path of `malloc` and `free` is
//! the allocator's, inlined, without a call.
//!
//! Invariants:
//! - Nothing unwinds through a Rust frame: the profile `preload` has `panic = "abort"`, and where
//!   C++ throws (`operators`) the frame is assembly or gone.
//! - There is no standard library: its allocations would come back to this library, and loading the
//!   libraries that it needs would cost every short program time.
//! - `errno` changes only where a function's contract says so.
//! - No exported function calls an exported one, since a program may put its own in its place. Only
//!   where C++ wants just that does one (`operators`).
#![no_std]

// `cargo check` and the profiles other than `preload` unwind, and want the standard library's panic
// handler.
#[cfg(panic = "unwind")]
extern crate std;

mod deepbind;
mod foreign;
mod glibc;
mod image;
mod libc_names;
mod load;
mod malloc;
mod operators;
mod text;
mod theap_h;

/// Writes to standard error where the allocator has a bug, and ends the process.
#[cfg(panic = "abort")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    text::fatal(format_args!("internal error: {info}"))
}
