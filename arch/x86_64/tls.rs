//! The thread slot by initial-exec TLS.
//!
//! On stable Rust a `thread_local!` in a shared library is reached by calling `__tls_get_addr`.
//! Here the slot is an object that assembly defines in `.tdata`. A read with `@GOTTPOFF` is one
//! load of the slot's offset and one load relative to `fs`; in an executable the linker turns the
//! first load into a constant. A library loaded by `dlopen` takes its 8 bytes from the reserve that
//! the C library keeps for this.
//!
//! The symbol is hidden and carries the invoking crate's name and version and the module's name,
//! so two versions of a crate can be linked into one program; one crate may use a module name only
//! once.

/// The symbol of a slot, as a string literal.
#[doc(hidden)]
#[macro_export]
macro_rules! slot_symbol {
    ($name:ident) => {
        concat!(
            "thread_slot_",
            env!("CARGO_CRATE_NAME"),
            "_",
            env!("CARGO_PKG_VERSION_MAJOR"),
            "_",
            env!("CARGO_PKG_VERSION_MINOR"),
            "_",
            env!("CARGO_PKG_VERSION_PATCH"),
            "_",
            stringify!($name)
        )
    };
}

/// Defines a module with a slot that holds one pointer for each thread.
///
/// ```text
/// theap_arch::thread_slot! { pub(crate) mod slot: Heap = EMPTY; }
/// ```
///
/// makes `slot::get() -> *mut Heap` and `slot::set(*mut Heap)`. Every thread's slot first holds the
/// address of the static `EMPTY`, whose type does not matter. Both paths are looked up in the new
/// module, into which everything of the surrounding one is imported.
#[macro_export]
macro_rules! x86_64_thread_slot {
    ($(#[$meta:meta])* $vis:vis mod $name:ident: $type:ty = $empty:path;) => {
        $(#[$meta])*
        $vis mod $name {
            #![allow(unsafe_code)] // defines and reads a TLS object by assembly
            #[allow(unused_imports)]
            use super::*;

            ::core::arch::global_asm!(
                concat!(".pushsection .tdata.", $crate::slot_symbol!($name), ",\"awT\",@progbits"),
                ".p2align 3",
                concat!(".globl ", $crate::slot_symbol!($name)),
                concat!(".hidden ", $crate::slot_symbol!($name)),
                concat!(".type ", $crate::slot_symbol!($name), ",@tls_object"),
                concat!(".size ", $crate::slot_symbol!($name), ",8"),
                concat!($crate::slot_symbol!($name), ": .quad {empty}"),
                ".popsection",
                empty = sym $empty,
            );

            /// The slot's distance from the thread pointer. It is the same in all threads, so the
            /// compiler may keep it in a register.
            #[inline(always)]
            fn offset() -> usize {
                let offset: usize;
                // SAFETY: loads a constant that the linker or the loader has filled in.
                unsafe {
                    ::core::arch::asm!(
                        concat!(
                            "mov {offset}, qword ptr [rip + ",
                            $crate::slot_symbol!($name),
                            "@GOTTPOFF]"
                        ),
                        offset = lateout(reg) offset,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
                offset
            }

            /// The pointer in this thread's slot.
            #[inline(always)]
            pub fn get() -> *mut $type {
                let value: *mut $type;
                // SAFETY: reads the calling thread's own 8 bytes of TLS, which exist as long as
                // the thread does.
                unsafe {
                    ::core::arch::asm!(
                        "mov {value}, qword ptr fs:[{offset}]",
                        offset = in(reg) offset(),
                        value = lateout(reg) value,
                        options(pure, readonly, nostack, preserves_flags)
                    );
                }
                value
            }

            /// Changes this thread's slot.
            #[inline(always)]
            pub fn set(value: *mut $type) {
                // SAFETY: writes the calling thread's own 8 bytes of TLS, which nothing else
                // reaches.
                unsafe {
                    ::core::arch::asm!(
                        "mov qword ptr fs:[{offset}], {value}",
                        offset = in(reg) offset(),
                        value = in(reg) value,
                        options(nostack, preserves_flags)
                    );
                }
            }
        }
    };
}
