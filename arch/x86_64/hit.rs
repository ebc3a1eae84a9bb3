//! malloc and free whole, as a shared library exports them: from the first instruction to `ret`.
//!
//! A pop or a push alone by assembly loses (see [`super::magazine`]); the whole function does not.
//! The compiler takes more instructions: it loads the address of a table, widens the class byte
//! twice, and moves the argument out of the way of a second one. In paired runs of both, 60 million
//! calls, eight rounds, they took the same time in a chain of pairs, which waits for memory, and
//! 0.99 of it in a random mix. A Rust program has no such functions: what the compiler makes of
//! the same steps there (17 instructions each) also tests the alignment, knows the place of a
//! constant size, and is inlined.
//!
//! Places are counted in words, as an address may multiply by 8 and not by 16, and malloc's table
//! lies in the head, whose address is at hand.
//!
//! The twins are the functions that call `raw::alloc_cached` and `raw::free`, in builds that are
//! not optimised, with other features, and on other machines.
#![allow(unsafe_code)] // Naked functions.

/// Defines `malloc`, for the thread slot with this name. `fields` are the distances of a head's
/// fields: the first address of the home part, its bytes, the class bytes, the places of sizes, and
/// the magazines. `slow` allocates what the magazine has not.
#[macro_export]
macro_rules! x86_64_malloc {
    ($(#[$meta:meta])* $name:ident, $slot:ident, $fields:path, $slow:path) => {
        $(#[$meta])*
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(size: usize) -> *mut ::core::ffi::c_void {
            ::core::arch::naked_asm!(
                ".cfi_startproc",
                "cmp rdi, {most}",
                "ja {slow}",
                "lea rax, [rdi + 15]",
                "shr eax, 4",
                concat!("mov rcx, [rip + ", $crate::slot_symbol!($slot), "@GOTTPOFF]"),
                "mov rcx, fs:[rcx]",
                "movzx edx, byte ptr [rcx + rax + {places}]",
                "mov rsi, [rcx + 8 * rdx + {magazines}]",
                "mov rax, [rsi - 8]",
                "test rax, rax",
                "je {slow}",
                "sub rsi, 8",
                "mov [rcx + 8 * rdx + {magazines}], rsi",
                "ret",
                ".cfi_endproc",
                most = const $crate::TINY_MAX,
                places = const $fields[3],
                magazines = const $fields[4],
                slow = sym $slow,
            )
        }
    };
}

/// Defines `free`, like [`x86_64_malloc`]. `slow` frees what the magazine does not take.
#[macro_export]
macro_rules! x86_64_free {
    ($(#[$meta:meta])* $name:ident, $slot:ident, $fields:path, $slow:path) => {
        $(#[$meta])*
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(block: *mut ::core::ffi::c_void) {
            ::core::arch::naked_asm!(
                ".cfi_startproc",
                concat!("mov rax, [rip + ", $crate::slot_symbol!($slot), "@GOTTPOFF]"),
                "mov rsi, fs:[rax]",
                "mov rax, rdi",
                "sub rax, [rsi + {home_part}]",
                "cmp rax, [rsi + {home_bytes}]",
                "jae {slow}",
                "shr rax, 16",
                "mov rcx, [rsi + {kinds}]",
                "movzx eax, byte ptr [rcx + rax]",
                "mov rcx, [rsi + 8 * rax + {magazines}]",
                "cmp rcx, [rsi + 8 * rax + {magazines} + 8]",
                "je {slow}",
                "mov [rcx], rdi",
                "add rcx, 8",
                "mov [rsi + 8 * rax + {magazines}], rcx",
                "ret",
                ".cfi_endproc",
                home_part = const $fields[0],
                home_bytes = const $fields[1],
                kinds = const $fields[2],
                magazines = const $fields[4],
                slow = sym $slow,
            )
        }
    };
}
