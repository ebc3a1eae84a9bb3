//! The C library and its symbols as the dynamic linker knows them at run time.
#![allow(unsafe_code)] // the dynamic linker's interface

use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr::{NonNull, null_mut};

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

/// Has a preloaded allocator give free memory back, by the first of these functions that came with
/// `library`. Returns false if none did. `malloc_trim` is glibc's, too, so `library` itself must
/// provide it; no other library of this process has functions of the other names.
pub(super) fn release(library: &Path) -> bool {
    let of = |symbol: &CStr| {
        // SAFETY: the name ends in NUL.
        let function = unsafe { libc::dlsym(RTLD_DEFAULT, symbol.as_ptr()) };
        (!function.is_null()).then_some(function)
    };
    if let Some(function) = of(c"mi_collect") {
        // SAFETY: mimalloc's function of that name has this type and no precondition.
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(bool)>(function)(true) };
    } else if let Some(function) = of(c"mallctl") {
        // SAFETY: jemalloc's function of that name has this type.
        let mallctl = unsafe { std::mem::transmute::<*mut c_void, Mallctl>(function) };
        for name in [c"thread.tcache.flush", c"arena.4096.purge"] {
            // SAFETY: the name ends in NUL. Null and 0 tell that there is neither a value to read
            // nor one to write.
            unsafe { mallctl(name.as_ptr(), null_mut(), null_mut(), null_mut(), 0) };
        }
    } else if let Some(function) = of(c"MallocExtension_ReleaseFreeMemory") {
        // SAFETY: tcmalloc's function of that name has this type and no precondition.
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn()>(function)() };
    } else if let Some(function) = of(c"scalable_allocation_command") {
        // SAFETY: tbbmalloc's function of that name has this type. Command 0 cleans all buffers
        // and takes null.
        unsafe {
            type Command = extern "C" fn(c_int, *mut c_void) -> c_int;
            std::mem::transmute::<*mut c_void, Command>(function)(0, null_mut());
        }
    } else if let Some(function) =
        of(c"malloc_trim").filter(|_| provider(c"malloc_trim").is_ok_and(|found| found == library))
    {
        // SAFETY: the function of that name has this type wherever it is provided, and no
        // precondition.
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(usize) -> c_int>(function)(0) };
    } else {
        return false;
    }
    true
}

/// The type of jemalloc's `mallctl`.
type Mallctl =
    unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int;
