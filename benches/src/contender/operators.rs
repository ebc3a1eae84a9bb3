//! C++'s operators new and delete, as the dynamic linker binds them in this process: the preloaded
//! library's own if it has any, or else the C++ runtime's, which call its malloc and free. A
//! program in C++ would call the same ones, by way of its global offset table as the harness does
//! by way of a pointer.
//!
//! The operators are a contender, so that patterns run on them as on malloc and free; the heap
//! behind them proves the blocks.
#![allow(unsafe_code)] // C++ interfaces: functions by their names

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::CStr;
use std::mem::transmute;
use std::ptr::NonNull;

use libc::{RTLD_DEFAULT, RTLD_GLOBAL, RTLD_NOW, c_void};

use super::Contender;
use crate::error::Error;

/// The C++ runtime.
const RUNTIME: &CStr = c"libstdc++.so.6";

/// The operators' mangled names: for an object and for an array of them new, delete, and the delete
/// that is told the size.
const OBJECT: [&CStr; 3] = [c"_Znwm", c"_ZdlPv", c"_ZdlPvm"];
const ARRAY: [&CStr; 3] = [c"_Znam", c"_ZdaPv", c"_ZdaPvm"];

/// The operators of one kind with the heap behind them. With `SIZED` a block goes back to the
/// delete that is told its size.
pub(crate) struct Operators<'a, A, const SIZED: bool> {
    heap: &'a A,
    new: New,
    delete: Delete,
    sized_delete: SizedDelete,
}

/// A new without memory throws, and nobody here catches: the process ends.
type New = unsafe extern "C-unwind" fn(usize) -> *mut u8;
type Delete = unsafe extern "C-unwind" fn(*mut u8);
type SizedDelete = unsafe extern "C-unwind" fn(*mut u8, usize);

impl<'a, A: Contender, const SIZED: bool> Operators<'a, A, SIZED> {
    /// The operators for one object.
    ///
    /// # Errors
    /// Fails if this process has no C++ runtime.
    pub(crate) fn of_objects(heap: &'a A) -> Result<Self, Error> {
        Self::named(heap, OBJECT)
    }

    /// The operators for arrays.
    ///
    /// # Errors
    /// Fails as [`Operators::of_objects`] does.
    pub(crate) fn of_arrays(heap: &'a A) -> Result<Self, Error> {
        Self::named(heap, ARRAY)
    }

    fn named(heap: &'a A, names: [&CStr; 3]) -> Result<Self, Error> {
        // SAFETY: the name ends in NUL. The handle is not given back, so the runtime stays. It
        // joins the libraries that names are looked up in, behind those of the program's start.
        if unsafe { libc::dlopen(RUNTIME.as_ptr(), RTLD_NOW | RTLD_GLOBAL) }.is_null() {
            return Err(Error::Setup(format!("there is no {RUNTIME:?}; install it")));
        }
        let [new, delete, sized_delete] = names.map(function);
        // SAFETY: the functions of these names have these types, which C++ prescribes.
        let operators = unsafe {
            Self {
                heap,
                new: transmute::<*mut c_void, New>(new?.as_ptr()),
                delete: transmute::<*mut c_void, Delete>(delete?.as_ptr()),
                sized_delete: transmute::<*mut c_void, SizedDelete>(sized_delete?.as_ptr()),
            }
        };
        Ok(operators)
    }
}

/// The function to which a name is bound in this process.
fn function(name: &CStr) -> Result<NonNull<c_void>, Error> {
    // SAFETY: the name ends in NUL.
    let found = NonNull::new(unsafe { libc::dlsym(RTLD_DEFAULT, name.as_ptr()) });
    found.ok_or_else(|| Error::Setup(format!("nothing provides {name:?}")))
}

// SAFETY: new returns a block of that size that nobody else has, aligned to 16 bytes; no row asks
// for more. Blocks go back once, to the delete that belongs to the new.
unsafe impl<A: Contender, const SIZED: bool> GlobalAlloc for Operators<'_, A, SIZED> {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: new has no precondition.
        unsafe { (self.new)(layout.size()) }
    }

    #[inline(always)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `GlobalAlloc::dealloc` has its caller promise a live block of these operators
        // with its layout, so it is one of `new`'s, of that size.
        unsafe {
            if SIZED {
                (self.sized_delete)(block, layout.size());
            } else {
                (self.delete)(block);
            }
        }
    }
}

impl<A: Contender, const SIZED: bool> Contender for Operators<'_, A, SIZED> {
    const NAME: &'static str = A::NAME;

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        self.heap.owns(block, size)
    }
}
