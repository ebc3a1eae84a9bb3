//! Blocks of the C library's malloc that reach this library.
//!
//! A plugin that was loaded with RTLD_DEEPBIND allocates from the C library, and its host frees
//! here; so does a library that took a block before this one was loaded. What can be told to be
//! such a block goes back to the C library's own functions. The C library's allocator is known by
//! where it puts blocks and by the header of 16 bytes before each:
//!
//! | block | where | header |
//! |---|---|---|
//! | of the main arena | below the break (`brk`) | the next one says that this block is in use |
//! | of another arena | in a heap at a multiple of 64 MiB, behind its description | `IN_ARENA` |
//! | of its own | a mapping, whole pages | `MAPPED`, and the mapping's length |
//!
//! What lies on a stack that is known, or in a program or library, is none. Nothing here takes a
//! lock of the heap or opens a file. Memory is read only after the kernel has said that it can be.
#![allow(unsafe_code)] // Calls the C library's functions, and reads memory of others.

use core::arch::asm;
use core::ffi::{c_char, c_void};
use core::mem::{MaybeUninit, transmute};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};
use theap::raw::{self, Elsewhere};

unsafe extern "C" {
    fn dlvsym(handle: *mut c_void, name: *const c_char, version: *const c_char) -> *mut c_void;
}

const PAGE: usize = 4096;
/// The multiple at which the C library's heaps lie, and their greatest length.
const HEAP: usize = 64 << 20;
/// The longest description at the start of a heap, with the arena behind it.
const DESCRIPTION: usize = 256;
/// The end of a process's addresses.
const END: usize = 1 << 47;
/// The kernel leaves at least so many bytes below the end of the first thread's stack free of
/// mappings.
const STACK: usize = 128 << 20;

/// The marks in the lowest bits of a header's size.
const MARKS: usize = 7;
/// The block before this one is in use.
const BEFORE_IN_USE: usize = 1;
/// The block is a mapping of its own.
const MAPPED: usize = 2;
/// The block belongs to an arena that is not the main one.
const IN_ARENA: usize = 4;
/// The smallest block, with its header.
const LEAST: usize = 32;

/// The C library's functions; null before `at_load`, or if it has none of the name.
static FREE: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
static REALLOC: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
static USABLE_SIZE: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
/// The break when this library was loaded.
static FIRST_BREAK: AtomicUsize = AtomicUsize::new(usize::MAX);

static C_LIBRARY: Elsewhere = Elsewhere {
    knows,
    free,
    realloc,
    usable_size,
};

/// Finds the C library's functions, by their version: another library that has functions of the
/// same names has them without one.
pub fn at_load() {
    let names = [
        (&FREE, c"__libc_free"),
        (&REALLOC, c"__libc_realloc"),
        (&USABLE_SIZE, c"malloc_usable_size"),
    ];
    for (function, name) in names {
        // SAFETY: both strings end with a zero. The C library stays for good.
        let found = unsafe { dlvsym(libc::RTLD_NEXT, name.as_ptr(), c"GLIBC_2.2.5".as_ptr()) };
        if found.is_null() {
            return;
        }
        function.store(found, Relaxed);
    }
    FIRST_BREAK.store(current_break(), Relaxed);
    raw::set_elsewhere(&C_LIBRARY);
}

/// A function of the C library; null if it is not glibc.
pub fn c_library() -> *const c_void {
    FREE.load(Relaxed)
}

/// # Safety
/// `block` is a live block of the C library, and nobody uses it any more.
unsafe fn free(block: *mut u8) {
    // SAFETY: the C library's function of this type, found before anybody learned of this one; the
    // block is as this function's Safety section has it.
    unsafe { transmute::<*mut c_void, unsafe extern "C" fn(*mut u8)>(FREE.load(Relaxed))(block) };
}

/// # Safety
/// `block` is a live block of the C library. If null is not returned, nobody uses it afterwards.
unsafe fn realloc(block: *mut u8, size: usize) -> *mut u8 {
    type Realloc = unsafe extern "C" fn(*mut u8, usize) -> *mut u8;
    // SAFETY: as in `free`. `errno` is this thread's own and always valid.
    unsafe {
        let errno = libc::__errno_location();
        let kept = *errno;
        let moved = transmute::<*mut c_void, Realloc>(REALLOC.load(Relaxed))(block, size);
        // The C library's function changes it also where it has found memory in the end.
        if !moved.is_null() {
            *errno = kept;
        }
        moved
    }
}

/// # Safety
/// `block` is a live block of the C library.
unsafe fn usable_size(block: *const u8) -> usize {
    type UsableSize = unsafe extern "C" fn(*const u8) -> usize;
    // SAFETY: as in `free`.
    unsafe { transmute::<*mut c_void, UsableSize>(USABLE_SIZE.load(Relaxed))(block) }
}

/// Whether the address is that of a block of the C library, as far as can be told. Keeps `errno`.
fn knows(block: *const u8) -> bool {
    // SAFETY: `errno` is this thread's own and always valid.
    unsafe {
        let errno = libc::__errno_location();
        let kept = *errno;
        let knows = is_block(block as usize);
        *errno = kept;
        knows
    }
}

fn is_block(block: usize) -> bool {
    if !block.is_multiple_of(16) || !(PAGE..END).contains(&block) {
        return false;
    }
    let Some(size) = word(block - 8) else {
        return false;
    };
    let (bytes, marks) = (size & !MARKS, size & MARKS);
    match marks & !BEFORE_IN_USE {
        0 => is_of_main_arena(block, bytes),
        IN_ARENA => is_of_other_arena(block, bytes),
        MAPPED if marks == MAPPED => is_own_mapping(block, bytes),
        _ => false,
    }
}

/// Whether a block of `bytes` bytes, its header included, is one of the main arena.
fn is_of_main_arena(block: usize, bytes: usize) -> bool {
    let end = current_break();
    block < end
        && is_followed(block, bytes, end, 0)
        && (block >= FIRST_BREAK.load(Relaxed)
            // This library came late: below its first break the memory of the break is told by
            // having no hole up to its end.
            || (is_mapped(block / PAGE * PAGE, end) && !is_in_binary(block)))
}

/// Whether a block of `bytes` bytes is one of an arena that is not the main one.
fn is_of_other_arena(block: usize, bytes: usize) -> bool {
    let heap = block / HEAP * HEAP;
    // Arena, heap before this one, bytes in use, bytes that are accessible.
    let [Some(arena), Some(before), Some(used), Some(open)] =
        [0, 8, 16, 24].map(|at| word(heap + at))
    else {
        return false;
    };
    let is_length = |bytes: usize| bytes.is_multiple_of(PAGE) && bytes <= HEAP;
    let first = arena / HEAP * HEAP;
    let is_first = first == heap && before == 0;
    let is_later = first != heap && before != 0 && before.is_multiple_of(HEAP);
    (is_first || is_later)
        && (LEAST..DESCRIPTION).contains(&(arena - first))
        && word(first) == Some(arena)
        && is_length(used)
        && is_length(open)
        && used <= open
        && block < heap + used
        && is_followed(block, bytes, heap + used, IN_ARENA)
}

/// Whether a block of `bytes` bytes ends before `end`, and the header behind it, which has the mark
/// of the arena, says that the block is in use.
fn is_followed(block: usize, bytes: usize, end: usize, mark: usize) -> bool {
    let room = end - block;
    if bytes < LEAST || !bytes.is_multiple_of(16) || bytes > room {
        return false;
    }
    // The headers begin 16 bytes before the blocks.
    let next = block + bytes;
    word(next - 8).is_some_and(|size| {
        let (bytes, marks) = (size & !MARKS, size & MARKS);
        // The last header of a heap, and that of the top of an arena, may lack the arena's mark.
        (marks == BEFORE_IN_USE || marks == BEFORE_IN_USE | mark) && bytes <= end - next + 16
    })
}

/// Whether a block of `bytes` bytes is a mapping of its own.
fn is_own_mapping(block: usize, bytes: usize) -> bool {
    // A block with a large alignment begins later in its mapping: the header says how many bytes.
    let Some(skipped) = word(block - 16) else {
        return false;
    };
    let at_page = block % PAGE;
    let Some(start) = (block - 16).checked_sub(skipped) else {
        return false;
    };
    let Some(end) = (block - 16).checked_add(bytes) else {
        return false;
    };
    (at_page == 0 || at_page.is_power_of_two())
        && start.is_multiple_of(PAGE)
        && end.is_multiple_of(PAGE)
        && end > block
        && end <= END
        && is_mapped(start, end)
        && !is_on_stack(block)
        && !is_in_binary(block)
}

/// Whether the address lies on the stack of the first thread or of this one. The C library puts
/// what a thread's pointer leads to at the upper end of the thread's stack, and a page that cannot
/// be read at the lower end.
fn is_on_stack(address: usize) -> bool {
    let here = &raw const address as usize;
    let thread: usize;
    // SAFETY: the first word of what the thread's pointer leads to is its own address.
    unsafe { asm!("mov {}, fs:0", out(reg) thread, options(pure, readonly, nostack)) };
    // SAFETY: getauxval has no precondition. The kernel puts these bytes behind the first stack.
    let first_end = unsafe { libc::getauxval(libc::AT_RANDOM) } as usize;
    let is_on_own = || {
        (here..thread).contains(&address)
            && (address / PAGE..thread / PAGE).all(|page| word(page * PAGE).is_some())
    };
    address >= first_end.saturating_sub(STACK) || is_on_own()
}

/// Whether the address lies in the program or a library.
fn is_in_binary(address: usize) -> bool {
    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: `info` may be written, and any address may be asked for.
    unsafe { libc::dladdr(address as *const c_void, info.as_mut_ptr()) != 0 }
}

/// The end of the program's break.
fn current_break() -> usize {
    // SAFETY: a break of 0 is refused, and the answer is the break as it is.
    unsafe { libc::syscall(libc::SYS_brk, 0) as usize }
}

/// Whether all pages from `start` to `end` are mapped: the kernel walks over the mappings, and does
/// nothing to them.
fn is_mapped(start: usize, end: usize) -> bool {
    // SAFETY: MS_ASYNC has no effect.
    unsafe { libc::msync(start as *mut c_void, end - start, libc::MS_ASYNC) == 0 }
}

/// The word at an address, a multiple of 8; `None` if it cannot be read.
fn word(address: usize) -> Option<usize> {
    // The kernel reads the set of signals before it finds that there is nothing like -1 to do with
    // it.
    // SAFETY: with an invalid first argument the call changes nothing.
    let answer = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, -1, address, 0, 8) == -1
            && *libc::__errno_location() == libc::EINVAL
    };
    // SAFETY: the kernel has just read the word.
    answer.then(|| unsafe { (address as *const usize).read_volatile() })
}
