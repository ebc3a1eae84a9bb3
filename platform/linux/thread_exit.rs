//! A hook that runs when a thread ends.
//!
//! The hook is the destructor of a pthread key. It runs in every thread that has set a value, also
//! in threads that Rust did not start: in most programs after Rust's own thread-local destructors,
//! and possibly before destructors of other keys. Code that still allocates after the hook must arm
//! it again.
#![allow(unsafe_code)] // pthread calls.

use core::ffi::c_void;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Error;

/// The process-wide key plus one; 0 while there is none. Only ever changed from 0 to its final
/// value. Relaxed is enough: nothing but the key's number is read, and the C library publishes the
/// destructor.
static KEY: AtomicU64 = AtomicU64::new(0);

/// Lets `hook(value)` run when this thread ends, if `value` is not null. If the hook itself or a
/// later destructor arms it again, it runs again, up to four times in glibc.
///
/// `pthread_setspecific` may call `malloc` for keys from 32 on (glibc), so the caller must be
/// re-entrant by the time it arms the hook.
///
/// # Errors
/// [`Error::NoMemory`] if there is no key or no memory left: the hook will not run for this thread.
///
/// # Safety
/// `hook(value)` is sound to call when this thread ends, and all calls in a process name the same
/// hook: the first call decides which hook runs.
pub unsafe fn arm(
    hook: unsafe extern "C" fn(*mut c_void),
    value: *mut c_void,
) -> Result<(), Error> {
    let key = match KEY.load(Relaxed) {
        0 => create(hook)?,
        key => (key - 1) as libc::pthread_key_t,
    };
    // SAFETY: `create` made the key, and nobody deletes it; the hook is the one that the caller
    // names, and may be called with `value` (`# Safety`).
    match unsafe { libc::pthread_setspecific(key, value) } {
        0 => Ok(()),
        _ => Err(Error::NoMemory),
    }
}

/// Creates the key, or returns the key of another thread that was faster.
#[cold]
fn create(hook: unsafe extern "C" fn(*mut c_void)) -> Result<libc::pthread_key_t, Error> {
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: `key` is a local variable, valid for writing; the C library calls the hook only for
    // values that `arm` has set.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(hook)) } != 0 {
        return Err(Error::NoMemory);
    }
    match KEY.compare_exchange(0, u64::from(key) + 1, Relaxed, Relaxed) {
        Ok(_) => Ok(key),
        Err(winner) => {
            // SAFETY: this function made the key just now, and nobody else knows it.
            unsafe { libc::pthread_key_delete(key) };
            Ok((winner - 1) as libc::pthread_key_t)
        }
    }
}
