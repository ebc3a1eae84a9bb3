//! The library that this code is a part of, if it is a part of one.
//!
//! A library that was loaded by `dlopen` can be unloaded while threads still have to run its hook
//! at their end, while forks have its handlers, and while its heap's blocks are in use elsewhere.
//! So it stays: the loader is told never to unload it (RTLD_NODELETE). When it is loaded again it
//! finds its heap as it was.
#![allow(unsafe_code)] // Calls the loader.

/// See [`crate::Os::pin_library`].
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
pub fn pin() {
    use core::ffi::{c_char, c_void};
    use core::mem::MaybeUninit;
    use core::ptr;

    /// The part of the loader's `struct link_map` that is public.
    #[repr(C)]
    struct LinkMap {
        address: usize,
        name: *const c_char,
    }
    const LINK_MAP: i32 = 2;

    let here = pin as *const () as *const c_void;
    let (mut info, mut map) = (MaybeUninit::<libc::Dl_info>::uninit(), ptr::null_mut());
    // SAFETY: the loader writes the two places, the second for this flag, and answers with its own
    // record of what is loaded, which lives as long as this code does. It has set no error that
    // anybody waits for, and `errno` is this thread's own.
    unsafe {
        if libc::dladdr1(here, info.as_mut_ptr(), &raw mut map, LINK_MAP) == 0 || map.is_null() {
            return;
        }
        let name = (*map.cast::<LinkMap>()).name;
        // The program itself has no name, and is never unloaded.
        if name.is_null() || *name == 0 {
            return;
        }
        let errno = libc::__errno_location();
        let before = *errno;
        let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        if libc::dlopen(name, flags).is_null() {
            // Nobody shall find this error.
            libc::dlerror();
        }
        *errno = before;
    }
}

/// musl unloads nothing, and a static program is one piece.
#[cfg(not(all(target_env = "gnu", not(target_feature = "crt-static"))))]
pub fn pin() {}
