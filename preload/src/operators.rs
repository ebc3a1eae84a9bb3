//! C++'s operators new and delete, by their mangled names.
//!
//! A failing `new` must run the program's new-handler and throw, which only the C++ runtime can do. So it is handed
//! to the runtime's own operator: that calls `malloc` or `aligned_alloc` (ours), the handler, and throws or, in the
//! nothrow form, catches. The throwing forms are assembly, for an exception must not pass through Rust frames: a
//! call of Rust for the block, and in the cold case a jump, so that the runtime's operator returns to our caller.
//!
//! A sized `delete` trusts the size, as C++ lets it. A program that replaces some operators must replace all whose
//! blocks meet: ours do not call each other.

use crate::text;
use core::arch::naked_asm;
use core::ffi::{CStr, c_void};
use core::mem::transmute;
use core::ptr::null_mut;
use theap::raw;

/// Libraries that may hold a C++ runtime's operators.
const RUNTIMES: [&CStr; 3] = [c"libstdc++.so.6", c"libc++abi.so.1", c"libc++.so.1"];

/// The C++ runtime's operator of this name; null if the process has none.
#[cold]
fn runtime_operator(name: &CStr) -> *mut c_void {
    // SAFETY: both strings end with a zero. The operator of a library that is loaded now stays for good: nobody
    // gives the handle back, and what stands behind this library in the program's own list is not unloaded.
    unsafe {
        let next = libc::dlsym(libc::RTLD_NEXT, name.as_ptr());
        if !next.is_null() {
            return next;
        }
        // A C program that has loaded a C++ library for that library's own use.
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

macro_rules! operator_new {
    ($($name:ident)+) => {$(
        /// `new` or `new[]`.
        ///
        /// # Safety
        /// Any size.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C-unwind" fn $name(size: usize) -> *mut c_void {
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
    )+};
}

macro_rules! operator_new_aligned {
    ($($name:ident)+) => {$(
        /// `new` or `new[]` of an over-aligned type.
        ///
        /// # Safety
        /// Any size; `align` is a power of two.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C-unwind" fn $name(size: usize, align: usize) -> *mut c_void {
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
    )+};
}

operator_new! { _Znwm _Znam }
operator_new_aligned! { _ZnwmSt11align_val_t _ZnamSt11align_val_t }

/// The block, or what the runtime's nothrow operator makes of it; null without a runtime.
#[cold]
#[inline(never)]
fn nothrow_new(size: usize, tag: *const c_void) -> *mut c_void {
    let operator = runtime_operator(c"_ZnwmRKSt9nothrow_t");
    if operator.is_null() {
        return null_mut();
    }
    // SAFETY: the name is that of a function of this type, which does not throw.
    unsafe {
        let operator: extern "C" fn(usize, *const c_void) -> *mut c_void = transmute(operator);
        operator(size, tag)
    }
}

#[cold]
#[inline(never)]
fn nothrow_aligned_new(size: usize, align: usize, tag: *const c_void) -> *mut c_void {
    let operator = runtime_operator(c"_ZnwmSt11align_val_tRKSt9nothrow_t");
    if operator.is_null() {
        return null_mut();
    }
    // SAFETY: as in `nothrow_new`.
    unsafe {
        let operator: extern "C" fn(usize, usize, *const c_void) -> *mut c_void =
            transmute(operator);
        operator(size, align, tag)
    }
}

macro_rules! operators {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? { $body:expr })+) => {$(
        /// An operator that does not throw.
        ///
        /// # Safety
        /// `new`: `align` is a power of two. `delete`: `block` is null, or live and of this size and alignment where
        /// they are given.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "a mangled name")]
        pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            $body
        }
    )+};
}

operators! {
    _ZnwmRKSt9nothrow_t(size: usize, tag: *const c_void) -> *mut c_void { new(size, tag) }
    _ZnamRKSt9nothrow_t(size: usize, tag: *const c_void) -> *mut c_void { new(size, tag) }
    _ZnwmSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, tag: *const c_void) -> *mut c_void {
        new_aligned(size, align, tag)
    }
    _ZnamSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, tag: *const c_void) -> *mut c_void {
        new_aligned(size, align, tag)
    }

    _ZdlPv(block: *mut c_void) { delete(block) }
    _ZdaPv(block: *mut c_void) { delete(block) }
    _ZdlPvRKSt9nothrow_t(block: *mut c_void, _tag: *const c_void) { delete(block) }
    _ZdaPvRKSt9nothrow_t(block: *mut c_void, _tag: *const c_void) { delete(block) }
    _ZdlPvSt11align_val_t(block: *mut c_void, _align: usize) { delete(block) }
    _ZdaPvSt11align_val_t(block: *mut c_void, _align: usize) { delete(block) }
    _ZdlPvSt11align_val_tRKSt9nothrow_t(block: *mut c_void, _align: usize, _tag: *const c_void) { delete(block) }
    _ZdaPvSt11align_val_tRKSt9nothrow_t(block: *mut c_void, _align: usize, _tag: *const c_void) { delete(block) }
    // The class of an aligned block follows from size and alignment by a search: the slot's byte is faster.
    _ZdlPvmSt11align_val_t(block: *mut c_void, _size: usize, _align: usize) { delete(block) }
    _ZdaPvmSt11align_val_t(block: *mut c_void, _size: usize, _align: usize) { delete(block) }

    _ZdlPvm(block: *mut c_void, size: usize) { delete_sized(block, size) }
    _ZdaPvm(block: *mut c_void, size: usize) { delete_sized(block, size) }
}

#[inline(always)]
fn new(size: usize, tag: *const c_void) -> *mut c_void {
    let block = raw::alloc(size);
    if block.is_null() {
        return nothrow_new(size, tag);
    }
    block.cast()
}

#[inline(always)]
fn new_aligned(size: usize, align: usize, tag: *const c_void) -> *mut c_void {
    let block = raw::alloc_aligned(size, align);
    if block.is_null() {
        return nothrow_aligned_new(size, align, tag);
    }
    block.cast()
}

#[inline(always)]
fn delete(block: *mut c_void) {
    // SAFETY: the operator's caller vouches for the block.
    unsafe { raw::free(block.cast()) };
}

#[inline(always)]
fn delete_sized(block: *mut c_void, size: usize) {
    if !block.is_null() {
        // SAFETY: the operator's caller vouches for the block and its size.
        unsafe { raw::free_sized(block.cast(), size) };
    }
}
