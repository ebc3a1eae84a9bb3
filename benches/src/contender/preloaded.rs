//! The library that was preloaded into this process, called through the C functions that it
//! provides: `malloc`, `calloc`, `realloc`, `posix_memalign` and `free`, as System calls them.
#![allow(unsafe_code)] // C functions

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use super::Contender;
use super::glibc::{provider, release};
use super::unrecorded::is_of_neither;
use crate::error::Error;

/// The library that provides `malloc` in this process, which is not glibc.
pub struct Preloaded(System, PathBuf);

forward_global_alloc!(Preloaded);

impl Preloaded {
    /// The allocator, which must be `library`'s.
    ///
    /// # Errors
    /// Fails if another file provides any of the functions.
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
                    "{function:?} comes from {found}, not from {library}"
                )));
            }
        }
        Ok(Self(System, library.into()))
    }
}

impl Contender for Preloaded {
    const NAME: &'static str = "preloaded";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        // SAFETY: `malloc_usable_size` asks for a live block of the library that provides it.
        // `Contender::owns` is called with live blocks only, and `is_of_neither` has shown that
        // this one is not glibc's.
        is_of_neither(block) && unsafe { libc::malloc_usable_size(block.as_ptr().cast()) } >= size
    }

    fn trim(&self) -> bool {
        release(&self.1)
    }
}
