//! The C library and its symbols as the dynamic linker knows them at run time.
#![allow(unsafe_code)] // the dynamic linker's interface

use std::ffi::CStr;
use std::path::PathBuf;
use std::ptr::NonNull;

use libc::{RTLD_DEFAULT, RTLD_LAZY, RTLD_NOLOAD, c_void, mallinfo2};

use crate::error::Error;

/// Bytes in use in glibc's heap, as the function of the C library itself says: a preloaded library
/// may have a function of the same name.
pub(super) fn bytes_in_use() -> Option<usize> {
    // SAFETY: the name ends in NUL; the C library is there already, so nothing is loaded.
    let libc = unsafe { libc::dlopen(c"libc.so.6".as_ptr(), RTLD_LAZY | RTLD_NOLOAD) };
    if libc.is_null() {
        return None;
    }
    // SAFETY: the handle is live, since dlopen just returned it, and the name ends in NUL.
    let function = unsafe { libc::dlsym(libc, c"mallinfo2".as_ptr()) };
    // SAFETY: the handle is live and not used again; the C library itself stays loaded.
    unsafe { libc::dlclose(libc) };
    let function = NonNull::new(function)?;
    // SAFETY: the C library's function of that name takes nothing and returns this structure. It
    // reads counters under their locks.
    let info = unsafe {
        std::mem::transmute::<*mut c_void, extern "C" fn() -> mallinfo2>(function.as_ptr())()
    };
    Some(info.uordblks + info.hblkhd)
}

/// The file that provides `symbol` in this process.
///
/// # Errors
/// Fails if no file does.
pub(super) fn provider(symbol: &CStr) -> Result<PathBuf, Error> {
    // SAFETY: the name ends in NUL.
    let address = unsafe { libc::dlsym(RTLD_DEFAULT, symbol.as_ptr()) };
    // SAFETY: `Dl_info` is plain pointers, for which zero is a value.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: dladdr may be asked for any address; `found` is live and writable.
    let known = unsafe { libc::dladdr(address, &mut found) } != 0;
    let missing = || Error::Setup(format!("nothing provides {symbol:?}"));
    if !known || found.dli_fname.is_null() {
        return Err(missing());
    }
    // SAFETY: dladdr returned the name: it ends in NUL and lives as long as the file is loaded.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    std::fs::canonicalize(name.to_string_lossy().as_ref()).map_err(|_| missing())
}
