//! The front: what malloc and free do in most cases, without a lock, an atomic or a look at a span.
//!
//! A thread's slot (`theap_arch::thread_slot!`) points to its [`Head`]: one magazine for each value of a slot's class
//! byte, and the addresses that are home. Allocation: class from size, pop. Free with a size: class from size, push.
//! Free without: class from the slot's byte, push. There is no owner check here; a block of any thread goes into the
//! magazine and finds its span in the drain.
//!
//! The slot first points to [`EMPTY`], whose magazines hold and take nothing, and to which no address is home: the
//! fast path needs no question whether there is a heap, it misses. So do the class bytes FREE, LARGE and HUGE, whose
//! magazines have capacity 0. One compare tells a foreign pointer and a block of another NUMA node from one that may
//! go into a magazine.
//!
//! What is behind a class's magazine is either front's: `magazines` (THEAP; the feature `theap`), where it is large and
//! whole batches move between it and the spans, or `classic`, where it is a small FastCache before a linked list. The
//! arena's [`crate::gate::Gate`] says which; nothing on the fast path knows, so each pays for itself alone.

#[cfg(any(test, debug_assertions))]
mod check;
mod classic;
mod follow;
#[cfg(feature = "hardened")]
pub mod hardened;
#[cfg(all(feature = "theap", feature = "drain"))]
mod learner;
#[cfg(feature = "theap")]
mod magazines;
mod slow;
mod thread;
#[cfg(feature = "valgrind")]
pub mod valgrind;

#[cfg(any(test, debug_assertions))]
pub use check::check;

#[cfg(not(any(feature = "hardened", feature = "valgrind")))]
pub use slow::alloc_zeroed;
#[cfg(any(feature = "hardened", not(feature = "valgrind")))]
pub use slow::resize;
#[cfg(not(feature = "valgrind"))]
pub use slow::usable_size;
#[cfg(feature = "valgrind")]
use slow::whole_size;
pub use slow::{alloc_class, alloc_run, free_slow, release_cached};
pub use thread::{Front, arena, cached_by, existing_arena, front, handle_forks, is_none};

use crate::classes;
use crate::config::Config;
use crate::pool::SLOT;
use crate::pool::kind;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering;
use theap_arch::Magazine;

/// Bytes at a block's end that are not the user's.
pub const TAIL: usize = if cfg!(feature = "valgrind") {
    16
} else if cfg!(feature = "hardened") {
    8
} else {
    0
};

/// What the fast path reads; the front of a [`Front`].
#[repr(C)]
pub struct Head {
    /// A magazine for each value of a class byte.
    magazines: [Magazine; kind::COUNT],
    /// Addresses whose blocks may go into the magazines: the part of the heap's node.
    home: usize,
    home_len: usize,
    /// Class bytes of the slots from `home` on.
    kinds: *const AtomicU8,
}

/// A head that nobody writes.
#[repr(transparent)]
pub struct EmptyHead(Head);

// SAFETY: nothing is ever written through it: its magazines are full and empty at once, and the slow path compares
// with its address before it does anything else.
unsafe impl Sync for EmptyHead {}

/// A sentinel, and the place above it to which every empty top points.
static NOTHING: [usize; 2] = [0; 2];

const fn nothing() -> *mut *mut u8 {
    (&raw const NOTHING)
        .cast_mut()
        .cast::<*mut u8>()
        .wrapping_add(1)
}

/// The head of a thread that has no heap.
pub static EMPTY: EmptyHead = EmptyHead(EMPTY_HEAD);

const EMPTY_HEAD: Head = Head {
    magazines: [const {
        Magazine {
            top: nothing(),
            limit: nothing(),
        }
    }; kind::COUNT],
    home: 0,
    home_len: 0,
    kinds: core::ptr::null(),
};

/// The head of a thread whose heap was retired at its end: as [`EMPTY`], but what it still frees goes straight to the
/// spans, as nothing would retire another heap after the last of the thread's destructors.
pub static RETIRED: EmptyHead = EmptyHead(EMPTY_HEAD);

theap_arch::thread_slot! {
    /// This thread's head.
    pub mod slot: Head = EMPTY;
}

/// Allocates `size` bytes at a multiple of 16. Null if there is no memory.
#[inline(always)]
pub fn alloc(size: usize, config: &Config) -> *mut u8 {
    if size <= theap_arch::TINY_MAX {
        pop_or(theap_arch::class_of_tiny(size), config)
    } else {
        alloc_mid(size, config)
    }
}

/// A block for `size` bytes from its magazine. Null if that has none, or the size is not tiny.
#[inline(always)]
pub fn alloc_cached(size: usize) -> *mut u8 {
    if size <= theap_arch::TINY_MAX {
        return pop(slot::get(), theap_arch::class_of_tiny(size));
    }
    let _ = size;
    core::ptr::null_mut()
}

#[inline(never)]
fn alloc_mid(size: usize, config: &Config) -> *mut u8 {
    if size <= theap_arch::CLASSED_MAX {
        pop_or(theap_arch::class_of(size), config)
    } else {
        alloc_run(size, SLOT, config).0
    }
}

/// Allocates `size` bytes at a multiple of `align`, a power of two.
#[inline]
pub fn alloc_aligned(size: usize, align: usize, config: &Config) -> *mut u8 {
    if align <= 16 {
        return alloc(size, config);
    }
    match classes::class_for(size, align) {
        Some(class) => pop_or(class, config),
        None => alloc_run(size, align, config).0,
    }
}

/// A block of the class from its magazine, else from the heap.
#[inline(always)]
fn pop_or(class: usize, config: &Config) -> *mut u8 {
    let head = slot::get();
    {
        let block = pop(head, class);
        if !block.is_null() {
            return block;
        }
    }
    alloc_class(head, class, config)
}

#[inline(always)]
fn pop(head: *mut Head, class: usize) -> *mut u8 {
    // SAFETY: the slot points to this thread's head, or to EMPTY or RETIRED, which a pop does not write; class bytes
    // are below the number of magazines.
    unsafe {
        theap_arch::pop(
            (&raw mut (*head).magazines)
                .cast::<Magazine>()
                .add(class + kind::FIRST as usize),
        )
    }
}

/// Frees a block of unknown size. Null is ignored.
///
/// # Safety
/// `block` is null or a live block of the heap, and nobody uses it any more. What is caught otherwise is caught in
/// the slow path or the drain, with a message and an abort.
#[inline(always)]
pub unsafe fn free(block: *mut u8, config: &Config) {
    let head = slot::get();
    {
        // SAFETY: as in `pop_or`; `kinds` has a byte for each slot of the home addresses.
        unsafe {
            let offset = (block as usize).wrapping_sub((*head).home);
            if offset < (*head).home_len {
                let what = (*(*head).kinds.add(offset / SLOT)).load(Ordering::Relaxed);
                let magazine = (&raw mut (*head).magazines)
                    .cast::<Magazine>()
                    .add(what as usize);
                if theap_arch::push(magazine, block) {
                    return;
                }
            }
        }
    }
    // SAFETY: the caller's promise, passed on.
    unsafe { free_slow(head, block, config) };
}

/// Frees a block that was allocated with this size and an alignment of at most 16.
///
/// # Safety
/// As for `free`, and the size is the block's.
#[inline(always)]
pub unsafe fn free_sized(block: *mut u8, size: usize, config: &Config) {
    #[cfg(all(debug_assertions, not(any(feature = "hardened", feature = "valgrind"))))]
    slow::check_size(block, size);
    if size <= theap_arch::TINY_MAX {
        let head = slot::get();
        // SAFETY: as in `pop_or`.
        unsafe {
            // Blocks of another node go home by the slow path. Without nodes nothing can be foreign here.
            let home = !cfg!(feature = "numa")
                || (block as usize).wrapping_sub((*head).home) < (*head).home_len;
            let magazine = (&raw mut (*head).magazines)
                .cast::<Magazine>()
                .add(theap_arch::class_of_tiny(size) + kind::FIRST as usize);
            if !(home && theap_arch::push(magazine, block)) {
                free_slow(head, block, config);
            }
        }
        return;
    }
    let _ = size;
    // SAFETY: the caller's promise, passed on.
    unsafe { free(block, config) };
}

#[cfg(test)]
mod tests;
