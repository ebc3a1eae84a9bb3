//! C++'s operators new and delete, by their mangled names.
//!
//! A failing `new` must run the program's new-handler and throw, which only the C++ runtime can do. So it is handed
//! to the runtime's own operator: that calls `malloc` or `aligned_alloc` (ours), the handler, and throws or, in the
//! nothrow form, catches. The throwing forms are assembly, for an exception must not pass through Rust frames: a
//! call of Rust for the block, and in the cold case a jump, so that the runtime's operator returns to our caller.
//!
//! A program may replace some operators, and C++ says which of the others call them (the sized, nothrow and array forms
//! end in `new(size)`, `delete(block)`, or their aligned twins). Which function a name is bound to in this process stands
//! in our global offset table, which is complete before anything of the program runs. `at_load` compares once; while all
//! are ours every form goes to the heap directly, and a sized `delete` trusts the size, as C++ lets it. Otherwise, and
//! before `at_load`, the derived forms go through that table.

use crate::text;
use core::arch::{asm, naked_asm};
use core::ffi::{CStr, c_void};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use theap::raw;

/// Whether every operator that may make a block, or that another ends in, is ours in this process.
static ALL_OURS: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    /// Where this library begins in memory; the linker's.
    static __ehdr_start: u8;
    /// Where it ends.
    static _end: u8;
}

/// The function that the operator's name is bound to in this process.
macro_rules! bound {
    ($operator:path) => {{
        let function: *const c_void;
        // SAFETY: reads an entry of the global offset table, which is never written to after loading.
        unsafe {
            asm!(
                "mov {}, [rip + {}@GOTPCREL]",
                out(reg) function,
                sym $operator,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        function
    }};
}

/// `$ours` if all operators are ours, else the operator that the program's name is bound to.
macro_rules! derived {
    ($ours:expr, $basic:ident($($argument:ident),+)) => {
        if all_ours() {
            $ours
        } else {
            let operator = bound!($basic);
            // SAFETY: the name is that of a function of this type, and our caller vouches for the block.
            unsafe { transmute::<*const c_void, delete_type!($($argument),+)>(operator)($($argument),+) }
        }
    };
}

macro_rules! delete_type {
    ($block:ident) => { extern "C" fn(*mut c_void) };
    ($block:ident, $align:ident) => { extern "C" fn(*mut c_void, usize) };
}

#[inline(always)]
fn all_ours() -> bool {
    ALL_OURS.load(Relaxed)
}

/// Looks whose the operators are.
pub fn at_load() {
    let library = &raw const __ehdr_start as usize..&raw const _end as usize;
    let operators = [
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
    ];
    let ours = operators.iter().all(|it| library.contains(&it.addr()));
    ALL_OURS.store(ours, Relaxed);
}

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
    ($($name:ident: [$($first:literal)*] [$($operand:tt)*])+) => {$(
        /// `new` or `new[]`.
        ///
        /// # Safety
        /// Any size.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C-unwind" fn $name(size: usize) -> *mut c_void {
            naked_asm!(
                ".cfi_startproc",
                $($first,)*
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
                $($operand)*
            )
        }
    )+};
}

macro_rules! operator_new_aligned {
    ($($name:ident: [$($first:literal)*] [$($operand:tt)*])+) => {$(
        /// `new` or `new[]` of an over-aligned type.
        ///
        /// # Safety
        /// Any size; `align` is a power of two.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C-unwind" fn $name(size: usize, align: usize) -> *mut c_void {
            naked_asm!(
                ".cfi_startproc",
                $($first,)*
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
                $($operand)*
            )
        }
    )+};
}

operator_new! {
    _Znwm: [] []
    _Znam: ["cmp byte ptr [rip + {all_ours}], 0" "jne 1f" "jmp [rip + {basic}@GOTPCREL]" "1:"]
        [all_ours = sym ALL_OURS, basic = sym _Znwm,]
}
operator_new_aligned! {
    _ZnwmSt11align_val_t: [] []
    _ZnamSt11align_val_t: ["cmp byte ptr [rip + {all_ours}], 0" "jne 1f" "jmp [rip + {basic}@GOTPCREL]" "1:"]
        [all_ours = sym ALL_OURS, basic = sym _ZnwmSt11align_val_t,]
}

/// What the runtime's nothrow operator answers, which calls the throwing one and catches. Without a runtime: the answer
/// of the program's own, or null if all are ours, for the heap has none.
#[cold]
#[inline(never)]
fn nothrow_new(
    name: &CStr,
    throwing: *const c_void,
    size: usize,
    tag: *const c_void,
) -> *mut c_void {
    let operator = runtime_operator(name);
    // SAFETY: the names are those of functions of these types.
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

/// As `nothrow_new`.
#[cold]
#[inline(never)]
fn nothrow_aligned_new(
    name: &CStr,
    throwing: *const c_void,
    size: usize,
    align: usize,
    tag: *const c_void,
) -> *mut c_void {
    let operator = runtime_operator(name);
    // SAFETY: as in `nothrow_new`.
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

    _ZdlPv(block: *mut c_void) { delete(block) }
    _ZdaPv(block: *mut c_void) { derived!(delete(block), _ZdlPv(block)) }
    _ZdlPvm(block: *mut c_void, size: usize) { derived!(delete_sized(block, size), _ZdlPv(block)) }
    _ZdaPvm(block: *mut c_void, size: usize) { derived!(delete_sized(block, size), _ZdaPv(block)) }
    _ZdlPvRKSt9nothrow_t(block: *mut c_void, _tag: *const c_void) { derived!(delete(block), _ZdlPv(block)) }
    _ZdaPvRKSt9nothrow_t(block: *mut c_void, _tag: *const c_void) { derived!(delete(block), _ZdaPv(block)) }

    _ZdlPvSt11align_val_t(block: *mut c_void, _align: usize) { delete(block) }
    _ZdaPvSt11align_val_t(block: *mut c_void, align: usize) {
        derived!(delete(block), _ZdlPvSt11align_val_t(block, align))
    }
    // The class of an aligned block follows from size and alignment by a search: the slot's byte is faster.
    _ZdlPvmSt11align_val_t(block: *mut c_void, _size: usize, align: usize) {
        derived!(delete(block), _ZdlPvSt11align_val_t(block, align))
    }
    _ZdaPvmSt11align_val_t(block: *mut c_void, _size: usize, align: usize) {
        derived!(delete(block), _ZdaPvSt11align_val_t(block, align))
    }
    _ZdlPvSt11align_val_tRKSt9nothrow_t(block: *mut c_void, align: usize, _tag: *const c_void) {
        derived!(delete(block), _ZdlPvSt11align_val_t(block, align))
    }
    _ZdaPvSt11align_val_tRKSt9nothrow_t(block: *mut c_void, align: usize, _tag: *const c_void) {
        derived!(delete(block), _ZdaPvSt11align_val_t(block, align))
    }
}

/// A block of the heap; none if that has none, or if the operators are not all ours.
#[inline(always)]
fn new(size: usize) -> Option<*mut c_void> {
    let block = if all_ours() {
        raw::alloc(size)
    } else {
        null_mut()
    };
    (!block.is_null()).then_some(block.cast())
}

/// As `new`.
#[inline(always)]
fn new_aligned(size: usize, align: usize) -> Option<*mut c_void> {
    let block = if all_ours() {
        raw::alloc_aligned(size, align)
    } else {
        null_mut()
    };
    (!block.is_null()).then_some(block.cast())
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
