//! The library that was preloaded into this process, by the C functions that it provides: `malloc`, `calloc`,
//! `realloc`, `posix_memalign` and `free`, as System calls them.
#![allow(unsafe_code)] // C functions

use std::alloc::System;
use std::path::Path;
use std::ptr::NonNull;

use crate::{Contender, Error, delegate, is_of_neither, provider};

/// Whatever provides `malloc` in this process, if it is not glibc.
pub struct Preloaded(System);

delegate!(Preloaded);

impl Preloaded {
    /// The allocator, which must be `library`'s.
    ///
    /// # Errors
    /// Fails if any of the functions is another file's.
    pub fn from(library: &Path) -> Result<Self, Error> {
        let functions = [
            c"malloc",
            c"calloc",
            c"realloc",
            c"posix_memalign",
            c"free",
            c"malloc_usable_size",
        ];
        for function in functions {
            let found = provider(function)?;
            if found != library {
                let (library, found) = (library.display(), found.display());
                return Err(Error::Setup(format!(
                    "{function:?} is not the one of {library} but of {found}"
                )));
            }
        }
        Ok(Self(System))
    }
}

impl Contender for Preloaded {
    const NAME: &'static str = "preloaded";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        // SAFETY: the block is live, and of the library that provides this function, since it is not glibc's.
        is_of_neither(block) && unsafe { libc::malloc_usable_size(block.as_ptr().cast()) } >= size
    }
}
