//! The head of a thread cache: what the hit paths read, and the thread's slot that points to it.
//!
//! A slot first points to [`EMPTY`], whose magazines hold nothing and take nothing, and whose home
//! part is empty: the hit paths need no question whether the thread has a cache, they miss. The
//! class bytes of free slots and of runs have magazines of capacity 0 in every head, so they miss
//! as well.
#![allow(unsafe_code)] // Shares heads that nobody writes, and reaches magazines by pointers.

use crate::geometry::{ClassId, Kind, SLOT};
use core::mem::offset_of;
use core::sync::atomic::AtomicU8;
use theap_arch::{Magazine, TINY_PLACES};

/// The index of the magazine of class 0; the one of class `c` is `FIRST + c`.
pub const FIRST: usize = Kind::Class(ClassId::FIRST).magazine();

/// The fields that the hit paths read; the front of a [`super::cache::ThreadCache`].
#[repr(C)]
pub struct Head {
    /// First address of the home part: the part of the range that belongs to the cache's node, and
    /// whose blocks may go into the magazines.
    pub home_part: usize,
    /// Bytes of the home part that are open, or were when the thread last looked.
    pub home_bytes: usize,
    /// Class bytes of the slots of the home part.
    pub kinds: *const AtomicU8,
    /// The largest size of which a free that knows it looks at nothing else: none where blocks of
    /// other nodes are to be told from those of the home part.
    pub sized: usize,
    /// [`TINY_PLACES`], which assembly reads here without the address of a table.
    pub places: [u8; TINY_PLACES.len()],
    /// A magazine for each kind.
    pub magazines: [Magazine; Kind::COUNT],
    /// What is behind the magazines.
    pub behind: Behind,
}

/// What is behind a head. Zero is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Behind {
    /// The cache whose first field the head is.
    Cache = 0,
    /// Nothing yet: the thread gets a cache when it first misses.
    Nothing,
    /// Nothing any more: the thread's cache was retired.
    Retired,
    /// The cache to which the slot [`aside`] points: every call of a watched thread misses.
    Watched,
}

/// The distances of a head's fields, for hit paths that are written in assembly: the first address
/// of the home part, its bytes, the class bytes, the places of sizes, and the magazines.
pub const HEAD_FIELDS: [usize; 5] = [
    offset_of!(Head, home_part),
    offset_of!(Head, home_bytes),
    offset_of!(Head, kinds),
    offset_of!(Head, places),
    offset_of!(Head, magazines),
];

const _: () = assert!(
    size_of::<Magazine>() == 2 * WORD
        && Kind::Class(ClassId::FIRST).byte() == TINY_PLACES[0]
        && SLOT == 1 << 16,
    "assembly has these numbers"
);

/// Bytes of a word, in which the places of magazines are counted.
const WORD: usize = size_of::<usize>();

/// A head that nobody writes.
#[repr(transparent)]
pub struct EmptyHead(Head);

// SAFETY: nothing is ever written through it: its magazines are full and empty at once, and the
// paths behind a miss ask what is behind it before they do anything else.
unsafe impl Sync for EmptyHead {}

/// A sentinel, and the place above it to which every empty top points.
static NOTHING: [usize; 2] = [0; 2];

const fn nothing() -> *mut *mut u8 {
    (&raw const NOTHING)
        .cast_mut()
        .cast::<*mut u8>()
        .wrapping_add(1)
}

/// A head whose magazines hold nothing and take nothing.
const fn empty(behind: Behind) -> EmptyHead {
    EmptyHead(Head {
        home_part: 0,
        home_bytes: 0,
        kinds: core::ptr::null(),
        sized: 0,
        places: TINY_PLACES,
        magazines: [const {
            Magazine {
                top: nothing(),
                limit: nothing(),
            }
        }; Kind::COUNT],
        behind,
    })
}

/// The head of a thread that has no cache yet.
pub static EMPTY: EmptyHead = empty(Behind::Nothing);

/// The head of a thread whose cache was retired at the thread's end: like [`EMPTY`], but what the
/// thread still frees goes straight to the spans, as nothing would retire another cache after the
/// last of the thread's destructors.
static RETIRED: EmptyHead = empty(Behind::Retired);

/// The head of all threads of which every call is to be seen.
static WATCHED: EmptyHead = empty(Behind::Watched);

theap_arch::thread_slot! {
    /// The pointer to this thread's head.
    pub mod slot: Head = EMPTY;
}

theap_arch::thread_slot! {
    /// The pointer to this thread's cache while [`slot`] points to the head of watched threads.
    pub mod aside: Head = EMPTY;
}

/// The head of the cache behind a head. Null if there is none.
///
/// # Safety
/// `head` is what this thread's slot holds.
#[inline]
pub unsafe fn cache_behind(head: *mut Head) -> *mut Head {
    // SAFETY: a slot points to a whole head (this function's own Safety section), of which nobody
    // else writes this field.
    match unsafe { (&raw const (*head).behind).read() } {
        Behind::Cache => head,
        Behind::Nothing | Behind::Retired => core::ptr::null_mut(),
        Behind::Watched => aside::get(),
    }
}

/// The head of this thread's cache. Null if it has none.
#[inline]
pub fn own() -> *mut Head {
    // SAFETY: the slot's own value.
    unsafe { cache_behind(slot::get()) }
}

/// What tells this thread from all others that have a cache.
pub fn identity() -> *mut Head {
    let own = own();
    if own.is_null() { slot::get() } else { own }
}

/// Has every call of this thread miss from now on, or no longer.
///
/// # Safety
/// `cache` is the head of this thread's cache.
pub unsafe fn watch(cache: *mut Head, on: bool) {
    // In this order, for a signal's handler in between.
    aside::set(cache);
    slot::set(if on {
        (&raw const WATCHED).cast_mut().cast()
    } else {
        cache
    });
}

/// Tells whether this thread's cache was retired.
pub fn is_retired() -> bool {
    slot::get() == retired()
}

/// The head of a thread whose cache was retired.
pub fn retired() -> *mut Head {
    (&raw const RETIRED).cast_mut().cast()
}

/// The magazine at this place.
///
/// # Safety
/// `head` is what this thread's slot holds, and `place` is the byte of a [`Kind`].
#[inline(always)]
pub unsafe fn magazine(head: *mut Head, place: usize) -> *mut Magazine {
    // SAFETY: a slot points to a whole head, and the place lies in its array (this function's own
    // Safety section).
    unsafe { (&raw mut (*head).magazines).byte_add(place * WORD).cast() }
}

/// The place of the magazine of the class with this index.
#[inline(always)]
pub const fn place_of_class(class: usize) -> usize {
    (class + FIRST) * (size_of::<Magazine>() / WORD)
}

/// The place of the magazine for `size` bytes.
///
/// # Safety
/// The size is at most [`theap_arch::TINY_MAX`].
#[inline(always)]
pub unsafe fn place_of_tiny(size: usize) -> usize {
    // SAFETY: the table goes up to that size (this function's own Safety section).
    unsafe { (*TINY_PLACES.get_unchecked((size + 15) >> 4)).into() }
}

/// Takes a block from the magazine at this place; null if the magazine is empty.
///
/// # Safety
/// `head` is what this thread's slot holds, and `place` is the byte of a [`Kind`].
#[inline(always)]
pub unsafe fn pop(head: *mut Head, place: usize) -> *mut u8 {
    // SAFETY: the promises of this function's Safety section are those of `magazine`. The magazines
    // of static heads are empty, and a pop does not write to an empty magazine; those of a
    // cache are this thread's alone.
    unsafe { theap_arch::pop(magazine(head, place)) }
}
