//! The head of a thread cache: what the hit paths read, and the thread's slot that points to it.
//!
//! A slot first points to [`EMPTY`], whose magazines hold nothing and take nothing, and whose home
//! part is empty: the hit paths need no question whether the thread has a cache, they miss. The
//! class bytes of free slots and of runs have magazines of capacity 0 in every head, so they miss
//! as well.
#![allow(unsafe_code)] // Shares two heads that nobody writes, and reaches magazines by pointers.

use crate::geometry::{ClassId, Kind, SLOT};
use core::mem::offset_of;
use core::sync::atomic::AtomicU8;
use theap_arch::Magazine;

/// The index of the magazine of class 0; the one of class `c` is `FIRST + c`.
pub const FIRST: usize = Kind::Class(ClassId::FIRST).magazine();

/// The fields that the hit paths read; the front of a [`super::cache::ThreadCache`].
#[repr(C)]
pub struct Head {
    /// A magazine for each value of a class byte.
    pub magazines: [Magazine; Kind::COUNT],
    /// First address of the home part: the part of the range that belongs to the cache's node, and
    /// whose blocks may go into the magazines.
    pub home_part: usize,
    /// Bytes of the home part that are open, or were when the thread last looked.
    pub home_bytes: usize,
    /// Class bytes of the slots of the home part.
    pub kinds: *const AtomicU8,
}

/// The distances of a head's fields, for hit paths that are written in assembly: the first address
/// of the home part, its bytes, and the class bytes.
pub const HEAD_FIELDS: [usize; 3] = [
    offset_of!(Head, home_part),
    offset_of!(Head, home_bytes),
    offset_of!(Head, kinds),
];

const _: () = assert!(
    offset_of!(Head, magazines) == 0 && FIRST == 1 && SLOT == 1 << 16,
    "assembly has these numbers"
);

/// A head that nobody writes.
#[repr(transparent)]
pub struct EmptyHead(Head);

// SAFETY: nothing is ever written through it: its magazines are full and empty at once, and the
// paths behind a miss compare with its address before they do anything else.
unsafe impl Sync for EmptyHead {}

/// A sentinel, and the place above it to which every empty top points.
static NOTHING: [usize; 2] = [0; 2];

const fn nothing() -> *mut *mut u8 {
    (&raw const NOTHING)
        .cast_mut()
        .cast::<*mut u8>()
        .wrapping_add(1)
}

const EMPTY_HEAD: Head = Head {
    magazines: [const {
        Magazine {
            top: nothing(),
            limit: nothing(),
        }
    }; Kind::COUNT],
    home_part: 0,
    home_bytes: 0,
    kinds: core::ptr::null(),
};

/// The head of a thread that has no cache yet.
pub static EMPTY: EmptyHead = EmptyHead(EMPTY_HEAD);

/// The head of a thread whose cache was retired at the thread's end: like [`EMPTY`], but what the
/// thread still frees goes straight to the spans, as nothing would retire another cache after the
/// last of the thread's destructors.
pub static RETIRED: EmptyHead = EmptyHead(EMPTY_HEAD);

theap_arch::thread_slot! {
    /// The pointer to this thread's head.
    pub mod slot: Head = EMPTY;
}

/// Whether the head is that of a thread without a cache.
pub fn is_none(head: *mut Head) -> bool {
    core::ptr::eq(head, (&raw const EMPTY).cast()) || is_retired(head)
}

/// Whether the head is that of a thread whose cache was retired.
pub fn is_retired(head: *mut Head) -> bool {
    core::ptr::eq(head, retired())
}

/// The head of a thread whose cache was retired.
pub fn retired() -> *mut Head {
    (&raw const RETIRED).cast_mut().cast()
}

/// The magazine with this index.
///
/// # Safety
/// `head` is what this thread's slot holds, and `index` is below [`Kind::COUNT`].
#[inline(always)]
pub unsafe fn magazine(head: *mut Head, index: usize) -> *mut Magazine {
    // SAFETY: a slot points to a whole head, and the index lies in its array (this function's own
    // Safety section).
    unsafe { (&raw mut (*head).magazines).cast::<Magazine>().add(index) }
}

/// Takes a block of the class with this index from its magazine; null if the magazine is empty.
///
/// # Safety
/// `head` is what this thread's slot holds, and `class` is below `CLASS_COUNT`.
#[inline(always)]
pub unsafe fn pop(head: *mut Head, class: usize) -> *mut u8 {
    // SAFETY: the promises of this function's Safety section are those of `magazine`. The magazines
    // of EMPTY and RETIRED are empty, and a pop does not write to an empty magazine; those of a
    // cache are this thread's alone.
    unsafe { theap_arch::pop(magazine(head, class + FIRST)) }
}
