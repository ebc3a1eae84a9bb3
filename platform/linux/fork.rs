//! Hooks around `fork`, so that the child finds no lock held by a thread that it does not have.
#![allow(unsafe_code)] // pthread_atfork.

use crate::Error;

/// From now on every `fork` of the process runs `prepare` before it, and `parent` or `child` after
/// it. `prepare` hooks run in reverse order of registration, the others in order. The call itself
/// may allocate. When a library is unloaded, the C library removes its hooks.
///
/// # Errors
/// [`Error::NoMemory`]: nothing is registered.
pub fn register(
    prepare: extern "C" fn(),
    parent: extern "C" fn(),
    child: extern "C" fn(),
) -> Result<(), Error> {
    // SAFETY: the hooks are safe functions: any thread may call them at any time.
    match unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) } {
        0 => Ok(()),
        _ => Err(Error::NoMemory),
    }
}
