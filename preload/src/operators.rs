//! C++'s operators new and delete, by their mangled names.
//!
//! A failing `new` must run the program's new-handler and throw, which only the C++ runtime can do.
//! So this file calls the runtime's own operator, which calls `malloc` or `aligned_alloc` (of this
//! library) and the handler, and throws or, in the nothrow form, catches. An exception must not
//! pass through Rust frames, so the throwing forms are assembly where they may fail: they call Rust
//! for the block, and in the cold case jump, so that the runtime's operator returns to the program.
//!
//! A program may replace some operators, and C++ says which of the others call them: the sized,
//! nothrow and array forms end in `new(size)`, `delete(block)`, or their aligned twins. The
//! function to which a name is bound in this process stands in this library's global offset table,
//! which is complete before anything of the program runs. All of these forms but the nothrow ones
//! of `new` jump through it, so no size is trusted. Those allocate directly while all operators are
//! this library's, for which `at_load` looks once.
#![allow(unsafe_code)] // C++ interfaces: exported names, assembly, functions by their names.

use crate::image::is_ours;
#[cfg(tuned)]
use crate::malloc::free_slow;
use crate::text;
use core::arch::{asm, naked_asm};
use core::ffi::{CStr, c_void};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use theap::raw;

/// Whether this library has every operator of this process that may make a block, or in which
/// another one ends.
static ALL_OURS: AtomicBool = AtomicBool::new(false);

/// The function to which the operator's name is bound in this process. For use in an unsafe block,
/// which is sound everywhere: nobody writes to the global offset table after loading.
macro_rules! bound {
    ($operator:path) => {{
        let function: *const c_void;
        asm!(
            "mov {}, [rip + {}@GOTPCREL]",
            out(reg) function,
            sym $operator,
            options(pure, readonly, nostack, preserves_flags),
        );
        function
    }};
}

#[inline(always)]
fn all_ours() -> bool {
    ALL_OURS.load(Relaxed)
}

/// Finds out whether all operators are this library's.
pub fn at_load() {
    // SAFETY: reads entries of the global offset table, which nobody writes to after loading.
    let operators = unsafe {
        [
            bound!(_Znwm),
            bound!(_Znam),
            bound!(_ZnwmRKSt9nothrow_t),
            bound!(_ZnamRKSt9nothrow_t),
            bound!(_ZnwmSt11align_val_t),
            bound!(_ZnamSt11align_val_t),
            bound!(_ZnwmSt11align_val_tRKSt9nothrow_t),
            bound!(_ZnamSt11align_val_tRKSt9nothrow_t),
            bound!(_ZdlPv),
            bound!(_ZdaPv),
            bound!(_ZdlPvSt11align_val_t),
            bound!(_ZdaPvSt11align_val_t),
        ]
    };
    let ours = operators.into_iter().all(is_ours);
    ALL_OURS.store(ours, Relaxed);
}

/// Libraries that may hold a C++ runtime's operators.
const RUNTIMES: [&CStr; 3] = [c"libstdc++.so.6", c"libc++abi.so.1", c"libc++.so.1"];

/// The C++ runtime's operator of this name; null if the process has no such operator.
#[cold]
fn runtime_operator(name: &CStr) -> *mut c_void {
    // SAFETY: both strings end with a zero. The operator of a library that is loaded now stays for
    // good: nobody gives the handle back, and the process never unloads the libraries that stand
    // behind this one in the program's own list.
    unsafe {
        let next = libc::dlsym(libc::RTLD_NEXT, name.as_ptr());
        if !next.is_null() {
            return next;
        }
        // A C program may have loaded a C++ library for that library's own use.
        for library in RUNTIMES {
            let handle = libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            if !handle.is_null() {
                let found = libc::dlsym(handle, name.as_ptr());
                if !found.is_null() {
                    return found;
                }
            }
        }
    }
    null_mut()
}

/// The C++ runtime's throwing operator of this name; ends the process if there is none.
fn throwing(name: &CStr) -> *mut c_void {
    let operator = runtime_operator(name);
    if operator.is_null() {
        text::fatal(format_args!(
            "operator new failed, and no C++ runtime is there to throw bad_alloc"
        ));
    }
    operator
}

extern "C" fn alloc(size: usize) -> *mut u8 {
    raw::alloc(size)
}

extern "C" fn alloc_aligned(size: usize, align: usize) -> *mut u8 {
    raw::alloc_aligned(size, align)
}

#[cold]
extern "C" fn throwing_new() -> *mut c_void {
    throwing(c"_Znwm")
}

#[cold]
extern "C" fn throwing_aligned_new() -> *mut c_void {
    throwing(c"_ZnwmSt11align_val_t")
}

/// A `new` that calls Rust for the block.
macro_rules! throwing_new {
    ($(#[$attribute:meta])* $name:ident) => {
        /// `new`, whole.
        ///
        /// # Safety
        /// Any size.
        $(#[$attribute])*
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(size: usize) -> *mut c_void {
            naked_asm!(
                ".cfi_startproc",
                "push rdi",
                ".cfi_adjust_cfa_offset 8",
                "call {alloc}",
                "test rax, rax",
                "jz 2f",
                "pop rdi",
                ".cfi_remember_state",
                ".cfi_adjust_cfa_offset -8",
                "ret",
                "2:",
                ".cfi_restore_state",
                "call {runtime}",
                "pop rdi",
                ".cfi_adjust_cfa_offset -8",
                "jmp rax",
                ".cfi_endproc",
                alloc = sym alloc,
                runtime = sym throwing_new,
            )
        }
    };
}

macro_rules! operators {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? { $body:expr })+) => {$(
        /// An operator that does not throw.
        ///
        /// # Safety
        /// For `new`, `align` is a power of two. For `delete`, `block` is null, or live and of this
        /// size and alignment where they are given.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "a mangled name")]
        pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            // SAFETY: the caller vouches for the block, its size and its alignment (`# Safety`). A
            // name in a body is that of a function of the type that the body gives it.
            unsafe { $body }
        }
    )+};
}

cfg_if::cfg_if! {
    if #[cfg(tuned)] {
        throwing_new! { new_slow }

        theap_arch::x86_64_malloc! {
            /// `new`. It jumps to [`new_slow`] for what the magazine does not have, so that an
            /// exception does not pass through this function.
            ///
            /// # Safety
            /// Any size.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, reason = "a mangled name")]
            _Znwm, slot, theap::HEAD_FIELDS, new_slow
        }

        theap_arch::x86_64_free! {
            /// `delete`.
            ///
            /// # Safety
            /// The conditions of [`free`](crate::malloc::free).
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, reason = "a mangled name")]
            _ZdlPv, slot, theap::HEAD_FIELDS, free_slow
        }
    } else {
        throwing_new! {
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, reason = "a mangled name")]
            _Znwm
        }

        operators! {
            _ZdlPv(block: *mut c_void) { raw::free(block.cast()) }
        }
    }
}

/// `new` of an over-aligned type.
///
/// # Safety
/// Any size; `align` is a power of two.
#[unsafe(no_mangle)]
#[unsafe(naked)]
#[allow(non_snake_case, reason = "a mangled name")]
pub unsafe extern "C" fn _ZnwmSt11align_val_t(size: usize, align: usize) -> *mut c_void {
    naked_asm!(
        ".cfi_startproc",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        "push rsi",
        ".cfi_adjust_cfa_offset 8",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "call {alloc}",
        "test rax, rax",
        "jz 2f",
        "add rsp, 24",
        ".cfi_remember_state",
        ".cfi_adjust_cfa_offset -24",
        "ret",
        "2:",
        ".cfi_restore_state",
        "call {runtime}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "pop rsi",
        ".cfi_adjust_cfa_offset -8",
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        "jmp rax",
        ".cfi_endproc",
        alloc = sym alloc_aligned,
        runtime = sym throwing_aligned_new,
    )
}

/// Operators that jump to another one, to whichever function its name is bound in this process.
macro_rules! jumps {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?
        => $($first:literal)? $basic:ident;)+) => {$(
        /// An operator that is another one, but for its name.
        ///
        /// # Safety
        /// The other one's conditions.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        #[allow(non_snake_case, reason = "a mangled name")]
        pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            naked_asm!(
                ".cfi_startproc",
                $($first,)?
                "jmp [rip + {basic}@GOTPCREL]",
                ".cfi_endproc",
                basic = sym $basic,
            )
        }
    )+};
}

jumps! {
    _Znam(size: usize) -> *mut c_void => _Znwm;
    _ZnamSt11align_val_t(size: usize, align: usize) -> *mut c_void
        => _ZnwmSt11align_val_t;
    _ZdaPv(block: *mut c_void) => _ZdlPv;
    // To find the class from the size takes longer than to read the slot's class byte.
    _ZdlPvm(block: *mut c_void, size: usize) => _ZdlPv;
    _ZdaPvm(block: *mut c_void, size: usize) => _ZdaPv;
    _ZdlPvRKSt9nothrow_t(block: *mut c_void, tag: *const c_void) => _ZdlPv;
    _ZdaPvRKSt9nothrow_t(block: *mut c_void, tag: *const c_void) => _ZdaPv;
    _ZdaPvSt11align_val_t(block: *mut c_void, align: usize) => _ZdlPvSt11align_val_t;
    _ZdlPvSt11align_val_tRKSt9nothrow_t(block: *mut c_void, align: usize, tag: *const c_void)
        => _ZdlPvSt11align_val_t;
    _ZdaPvSt11align_val_tRKSt9nothrow_t(block: *mut c_void, align: usize, tag: *const c_void)
        => _ZdaPvSt11align_val_t;
    _ZdlPvmSt11align_val_t(block: *mut c_void, size: usize, align: usize)
        => "mov rsi, rdx" _ZdlPvSt11align_val_t;
    _ZdaPvmSt11align_val_t(block: *mut c_void, size: usize, align: usize)
        => "mov rsi, rdx" _ZdaPvSt11align_val_t;
}

/// Allocates by the runtime's nothrow operator, which calls the throwing one and catches. Without a
/// runtime it calls the program's own throwing operator; if all operators are this library's the
/// answer is null, for the heap has no memory.
///
/// # Safety
/// `name` is the name of the nothrow operator `new(size, tag)` or its array form, and `throwing` is
/// a function `new(size)` of the same form.
#[cold]
#[inline(never)]
unsafe fn nothrow_new(
    name: &CStr,
    throwing: *const c_void,
    size: usize,
    tag: *const c_void,
) -> *mut c_void {
    let operator = runtime_operator(name);
    // SAFETY: both are functions of these types, as the caller promises in `# Safety`.
    unsafe {
        if !operator.is_null() {
            let operator: extern "C" fn(usize, *const c_void) -> *mut c_void = transmute(operator);
            return operator(size, tag);
        }
        if all_ours() {
            return null_mut();
        }
        let throwing: extern "C" fn(usize) -> *mut c_void = transmute(throwing);
        throwing(size)
    }
}

/// Allocates like [`nothrow_new`], for an over-aligned type.
///
/// # Safety
/// `name` is the name of the nothrow operator `new(size, align, tag)` or its array form, and
/// `throwing` is a function `new(size, align)` of the same form.
#[cold]
#[inline(never)]
unsafe fn nothrow_aligned_new(
    name: &CStr,
    throwing: *const c_void,
    size: usize,
    align: usize,
    tag: *const c_void,
) -> *mut c_void {
    let operator = runtime_operator(name);
    // SAFETY: both are functions of these types, as the caller promises in `# Safety`.
    unsafe {
        if !operator.is_null() {
            let operator: extern "C" fn(usize, usize, *const c_void) -> *mut c_void =
                transmute(operator);
            return operator(size, align, tag);
        }
        if all_ours() {
            return null_mut();
        }
        let throwing: extern "C" fn(usize, usize) -> *mut c_void = transmute(throwing);
        throwing(size, align)
    }
}

operators! {
    _ZnwmRKSt9nothrow_t(size: usize, tag: *const c_void) -> *mut c_void {
        new(size).unwrap_or_else(|| nothrow_new(c"_ZnwmRKSt9nothrow_t", bound!(_Znwm), size, tag))
    }
    _ZnamRKSt9nothrow_t(size: usize, tag: *const c_void) -> *mut c_void {
        new(size).unwrap_or_else(|| nothrow_new(c"_ZnamRKSt9nothrow_t", bound!(_Znam), size, tag))
    }
    _ZnwmSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, tag: *const c_void) -> *mut c_void {
        new_aligned(size, align).unwrap_or_else(|| {
            let name = c"_ZnwmSt11align_val_tRKSt9nothrow_t";
            nothrow_aligned_new(name, bound!(_ZnwmSt11align_val_t), size, align, tag)
        })
    }
    _ZnamSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, tag: *const c_void) -> *mut c_void {
        new_aligned(size, align).unwrap_or_else(|| {
            let name = c"_ZnamSt11align_val_tRKSt9nothrow_t";
            nothrow_aligned_new(name, bound!(_ZnamSt11align_val_t), size, align, tag)
        })
    }

    _ZdlPvSt11align_val_t(block: *mut c_void, _align: usize) { raw::free(block.cast()) }
}

/// Allocates a block; `None` if the heap has no memory, or if not all operators are this library's.
#[inline(always)]
fn new(size: usize) -> Option<*mut c_void> {
    let block = if all_ours() {
        raw::alloc(size)
    } else {
        null_mut()
    };
    (!block.is_null()).then_some(block.cast())
}

/// Allocates like [`new`], for an over-aligned type.
#[inline(always)]
fn new_aligned(size: usize, align: usize) -> Option<*mut c_void> {
    let block = if all_ours() {
        raw::alloc_aligned(size, align)
    } else {
        null_mut()
    };
    (!block.is_null()).then_some(block.cast())
}
