//! The stack of the calling thread, by the C library: addresses to return to, and what lies there.
//!
//! The C library loads the unwinder when it is first asked for a stack. It opens a file for that
//! and allocates, and so it is to be asked once at a time when both may be.
#![allow(unsafe_code)] // Calls the C library and the loader.

use crate::Frame;

/// See [`crate::Os::stack`].
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
pub fn capture(into: &mut [usize]) -> usize {
    let room = into.len().min(i32::MAX as usize) as i32;
    // SAFETY: the C library writes at most `room` addresses.
    quietly(|| unsafe { libc::backtrace(into.as_mut_ptr().cast(), room) }) as usize
}

/// See [`crate::Os::frame`].
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
pub fn frame(address: usize) -> Option<Frame> {
    use core::ffi::CStr;
    use core::mem::MaybeUninit;

    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: the loader writes the place if it answers with another number than 0. The names are
    // those of its own records, which live as long as the code on this thread's stack is loaded.
    unsafe {
        if quietly(|| libc::dladdr(address as *const _, info.as_mut_ptr())) == 0 {
            return None;
        }
        let info = info.assume_init();
        let text = |name: *const core::ffi::c_char| {
            (!name.is_null()).then(|| CStr::from_ptr(name).to_bytes())
        };
        Some(Frame {
            file: text(info.dli_fname).unwrap_or_default(),
            offset: address.wrapping_sub(info.dli_fbase as usize),
            name: text(info.dli_sname),
        })
    }
}

/// Calls the C library, and leaves the caller's error number as it was.
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
fn quietly<R>(call: impl FnOnce() -> R) -> R {
    // SAFETY: the error number is this thread's own.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let done = call();
        *errno = before;
        done
    }
}

/// musl has no such function, and a static program no loader.
#[cfg(not(all(target_env = "gnu", not(target_feature = "crt-static"))))]
pub fn capture(_into: &mut [usize]) -> usize {
    0
}

/// Nothing is known of an address there.
#[cfg(not(all(target_env = "gnu", not(target_feature = "crt-static"))))]
pub fn frame(_address: usize) -> Option<Frame> {
    None
}
