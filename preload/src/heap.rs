//! The functions of `theap.h`.

use crate::text::Text;
use core::ffi::{c_char, c_int, c_void};
use theap::{Error, Front};

/// The library's version.
#[unsafe(no_mangle)]
pub extern "C" fn theap_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Prepares memory so that `bytes` can be allocated without a page fault. 0, or an error number.
#[unsafe(no_mangle)]
pub extern "C" fn theap_warm_up(bytes: usize) -> c_int {
    number(theap::warm_up(bytes))
}

/// Prepares the calling thread for `count` blocks of `size` bytes. 0, or an error number.
#[unsafe(no_mangle)]
pub extern "C" fn theap_warm_up_class(size: usize, count: usize) -> c_int {
    number(theap::warm_up_class(size, count))
}

fn number(done: Result<(), Error>) -> c_int {
    match done {
        Ok(()) => 0,
        Err(Error::Unsupported) => libc::ENOSYS,
        Err(Error::Other(errno)) => errno,
        Err(Error::NoMemory | Error::NoHugepages | Error::Lost) => libc::ENOMEM,
    }
}

/// Gives free memory back to the system; the bytes given back.
#[unsafe(no_mangle)]
pub extern "C" fn theap_purge() -> usize {
    theap::purge()
}

/// Returns what the calling thread caches to the heap.
#[unsafe(no_mangle)]
pub extern "C" fn theap_collect() {
    theap::collect();
}

/// No system call from now on: what would need one is refused.
#[unsafe(no_mangle)]
pub extern "C" fn theap_seal() {
    theap::seal();
}

/// Ends what `theap_seal` began.
#[unsafe(no_mangle)]
pub extern "C" fn theap_unseal() {
    theap::unseal();
}

/// Sets the front: 0 is the classic one, anything else the magazines.
#[unsafe(no_mangle)]
pub extern "C" fn theap_set_front(front: c_int) {
    theap::set_front(if front == 0 {
        Front::Classic
    } else {
        Front::Theap
    });
}

/// Whether the address lies in the heap's range.
#[unsafe(no_mangle)]
pub extern "C" fn theap_owns(address: *const c_void) -> bool {
    theap::owns(address.cast())
}

/// Writes the statistics as one JSON object, zero-terminated and cut off at `size` bytes. The length of the whole
/// text without the terminator, as `snprintf`.
///
/// # Safety
/// `size` bytes may be written at `buffer`, which may be null if `size` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn theap_stats_json(buffer: *mut c_char, size: usize) -> usize {
    let buffer = if size == 0 {
        &mut []
    } else {
        // SAFETY: the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(buffer.cast(), size) }
    };
    let mut text = Text::new(buffer);
    // Writing to this buffer does not fail.
    let _ = theap::stats().write_json(&mut text);
    text.terminate()
}
