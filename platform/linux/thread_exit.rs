//! A hook that runs when a thread ends.
//!
//! A pthread key with a destructor: it runs in every thread that has set a value, also in threads that
//! Rust did not start, after Rust's own thread-local destructors of most programs and possibly before
//! destructors of other keys. Code that still allocates after it must arm again.
#![allow(unsafe_code)] // pthread calls.

use core::ffi::c_void;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Error;

/// The process-wide key plus one; 0 while there is none. Only ever changed from 0 to its final value.
/// Relaxed is enough: the key is all there is to it, and the C library publishes the destructor.
static KEY: AtomicU64 = AtomicU64::new(0);

/// Lets `hook(value)` run when this thread ends; `value` must not be null. Armed again (by the hook
/// itself or by a later destructor) it runs again, up to four times in glibc.
///
/// All calls in a process must name the same hook: the first one decides. `pthread_setspecific` may
/// call `malloc` for keys from 32 on (glibc), so the caller must be re-entrant by the time it arms.
///
/// # Errors
/// [`Error::NoMemory`] if there is no key or no memory left: the hook will not run for this thread.
///
/// # Safety
/// `hook(value)` must be sound to call when this thread ends.
pub unsafe fn arm(
    hook: unsafe extern "C" fn(*mut c_void),
    value: *mut c_void,
) -> Result<(), Error> {
    let key = match KEY.load(Relaxed) {
        0 => create(hook)?,
        key => (key - 1) as libc::pthread_key_t,
    };
    // SAFETY: the key was created and is never deleted; the caller vouches for the hook's call.
    match unsafe { libc::pthread_setspecific(key, value) } {
        0 => Ok(()),
        _ => Err(Error::NoMemory),
    }
}

/// Creates the key, or returns that of a thread which was faster.
#[cold]
fn create(hook: unsafe extern "C" fn(*mut c_void)) -> Result<libc::pthread_key_t, Error> {
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: `key` is valid for writing.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(hook)) } != 0 {
        return Err(Error::NoMemory);
    }
    match KEY.compare_exchange(0, u64::from(key) + 1, Relaxed, Relaxed) {
        Ok(_) => Ok(key),
        Err(winner) => {
            // SAFETY: nobody else knows this key.
            unsafe { libc::pthread_key_delete(key) };
            Ok((winner - 1) as libc::pthread_key_t)
        }
    }
}
