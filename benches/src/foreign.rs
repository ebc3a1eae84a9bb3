//! Proofs for allocators that have no record to ask: their blocks are nobody else's.
#![allow(unsafe_code)] // glibc's introspection, found at run time

use std::ffi::CStr;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::OnceLock;

use libc::{RTLD_DEFAULT, RTLD_LAZY, RTLD_NOLOAD, c_void, mallinfo2};

use crate::Error;

/// Bytes that glibc may have in use where another allocator serves the program: what the C runtime takes before that
/// one is there. Less than a probe ([`crate::proof`]) takes.
const RUNTIME: usize = 128 << 10;

/// The same once threads have been there, each of which makes it take some.
const THREADS: usize = 2 << 20;

/// Whether the block is neither theap's nor glibc's: glibc's own count must show that next to nothing is in use there.
/// It is strict at the first look, which is at the probe before a row.
pub fn is_of_neither(block: NonNull<u8>) -> bool {
    static FIRST: OnceLock<bool> = OnceLock::new();
    let below = |limit| glibcs().is_some_and(|bytes| bytes < limit);
    *FIRST.get_or_init(|| below(RUNTIME)) && below(THREADS) && !theap::owns(block.as_ptr())
}

/// Bytes in use in glibc's heap, by the function of the C library itself: a preloaded library may have one of the same
/// name.
fn glibcs() -> Option<usize> {
    // SAFETY: the name ends in NUL; the C library is there already, so nothing is loaded.
    let libc = unsafe { libc::dlopen(c"libc.so.6".as_ptr(), RTLD_LAZY | RTLD_NOLOAD) };
    if libc.is_null() {
        return None;
    }
    // SAFETY: a live handle, a name that ends in NUL.
    let function = unsafe { libc::dlsym(libc, c"mallinfo2".as_ptr()) };
    // SAFETY: a live handle; the C library stays loaded.
    unsafe { libc::dlclose(libc) };
    let function = NonNull::new(function)?;
    // SAFETY: the C library's function of that name, which takes nothing, returns this structure and reads counters
    // under their locks.
    let info = unsafe {
        std::mem::transmute::<*mut c_void, extern "C" fn() -> mallinfo2>(function.as_ptr())()
    };
    Some(info.uordblks + info.hblkhd)
}

/// The file that provides `symbol` in this process.
///
/// # Errors
/// Fails if nothing does.
pub fn provider(symbol: &CStr) -> Result<PathBuf, Error> {
    // SAFETY: a name that ends in NUL.
    let address = unsafe { libc::dlsym(RTLD_DEFAULT, symbol.as_ptr()) };
    // SAFETY: `Dl_info` is plain pointers, for which zero is a value.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked for; `found` is writable.
    let known = unsafe { libc::dladdr(address, &mut found) } != 0;
    let missing = || Error::Setup(format!("nothing provides {symbol:?}"));
    if !known || found.dli_fname.is_null() {
        return Err(missing());
    }
    // SAFETY: a name that dladdr returned: it ends in NUL and lives as long as the file is loaded.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    std::fs::canonicalize(name.to_string_lossy().as_ref()).map_err(|_| missing())
}
