//! The thread cache: a thread's magazines and heap in one piece of memory.
//!
//! ```text
//! | ThreadCache: head, heap, state by class | nest | each class: a null sentinel, its places |
//! ```
//!
//! The nest has arrays too, of a few places for each class. Memory up to its end is accessible from
//! the start, and the rest when a magazine first leaves the nest: a thread that allocates little
//! has no more.
//!
//! The arrays lie behind the struct, not in it, and are reached through pointers that were made
//! from the pointer to the whole memory. So a `&mut ThreadCache` never covers them, and the
//! magazines' pointers into them stay valid while such references come and go. The memory is the
//! arena's; it is never unmapped, and later threads use it again.
#![allow(unsafe_code)] // Pointers into the arrays behind the struct.

use super::classic::List;
use super::head::{FIRST, Head};
use super::kept::Kept;
use super::magazines::{MagazineState, NEST, nest_places, places};
use super::promise::Scope;
use super::quarantine::Quarantine;
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::geometry::{ClassId, NodeIndex};
use crate::heap::Heap;
use crate::pool::heap_lock::HeapLock;
use crate::pool::{Arena, HeapBytes, Look, Scan};
use theap_arch::Magazine;
use theap_platform::PAGE;

/// The struct at the beginning of a cache's memory. Every field is zero or was written by
/// `life::new_in`; only the thread that has the cache touches it.
#[repr(C)]
pub struct ThreadCache {
    /// The head is first, as the thread's slot points here.
    pub head: Head,
    /// The arena that the cache's memory and blocks come from.
    pub arena: &'static Arena,
    /// The lock that a step has.
    pub lock: &'static HeapLock,
    /// The thread's spans. A reclaimer, too, may use them between steps.
    pub heap: Heap,
    /// The arena's number of this cache and its heap.
    pub index: usize,
    /// The number of latest misses in a row that found the thread on another node.
    pub away: u32,
    /// The memory behind the struct.
    pub arrays: *mut *mut u8,
    /// Bottom of each class's array, which is its magazine or FastCache.
    pub bases: [*mut *mut u8; CLASS_COUNT],
    /// Blocks of a class that the cache may hold: in a magazine, or in a FastCache and its list
    /// together.
    pub capacities: [u16; CLASS_COUNT],
    /// The classic front's lists.
    pub lists: [List; CLASS_COUNT],
    /// The classes whose lists may have blocks, by their bits.
    pub listed: u64,
    /// The classes of which the board may show blocks in this cache, by their bits.
    noted: u64,
    /// What the thread has promised.
    pub scope: Scope,
    /// Times that the thread has broken a promise.
    pub breaches: u64,
    /// The learner's state.
    pub magazines: MagazineState,
    /// Freed blocks that the feature `hardened` keeps.
    pub quarantine: Quarantine,
    /// Freed blocks that the feature `valgrind` keeps.
    pub kept: Kept,
}

/// Places of the arrays below this class, and their sentinels.
const fn array_places_before(end: usize) -> usize {
    let (mut sum, mut class) = (0, 0);
    while class < end {
        sum += places(ClassId::new(class)) + 1;
        class += 1;
    }
    sum
}

/// Places of the nest below this class, with their sentinels.
const fn nest_places_before(end: usize) -> usize {
    let (mut sum, mut class) = (0, 0);
    while class < end && NEST != 0 {
        sum += nest_places(ClassId::new(class)) + 1;
        class += 1;
    }
    sum
}

/// Places of the nest, with their sentinels.
const NEST_PLACES: usize = nest_places_before(CLASS_COUNT);

/// The place in the nest at which each class's array begins, above its sentinel.
#[cfg(feature = "magazines")]
const NESTS_AT: [u16; CLASS_COUNT] = {
    let (mut at, mut class) = ([0; CLASS_COUNT], 0);
    while class < CLASS_COUNT {
        at[class] = nest_places_before(class) as u16 + 1;
        class += 1;
    }
    at
};

/// Where in the arrays' memory each class's array begins, above its sentinel.
const ARRAYS: [u16; CLASS_COUNT] = {
    let (mut arrays, mut class) = ([0; CLASS_COUNT], 0);
    while class < CLASS_COUNT {
        arrays[class] = (NEST_PLACES + array_places_before(class) + 1) as u16;
        class += 1;
    }
    arrays
};

/// Bytes from the beginning of a cache's memory to its arrays.
pub const ARRAYS_AT: usize = size_of::<ThreadCache>();

/// Bytes of a cache's memory up to the end of this many places of its arrays, in whole pages.
const fn bytes_with(places: usize) -> usize {
    (ARRAYS_AT + places * size_of::<*mut u8>()).next_multiple_of(PAGE)
}

/// Bytes of a cache's memory: all, and those that it needs as long as its magazines are in the
/// nest.
pub const CACHE_BYTES: HeapBytes = {
    let whole = bytes_with(NEST_PLACES + array_places_before(CLASS_COUNT));
    let first = if NEST == 0 {
        whole
    } else {
        bytes_with(NEST_PLACES)
    };
    HeapBytes {
        first,
        whole,
        take_idle,
    }
};

/// Takes what is idle out of the heap of a cache.
///
/// # Safety
/// The memory has a cache that is in use, and the caller has its heap's lock as a reclaimer.
unsafe fn take_idle(memory: *mut u8, scan: &mut Scan) -> Look {
    let cache = memory.cast::<ThreadCache>();
    // SAFETY: references to the cache live within steps alone, which need the lock. What the hit
    // path reads and writes in between lies outside of the heap.
    unsafe { (*cache).heap.take_idle(scan) }
}

const _: () = assert!(ARRAYS_AT.is_multiple_of(align_of::<*mut u8>()));

impl ThreadCache {
    /// The array that the class has in the cache's own memory.
    pub fn own_array(&self, class: ClassId) -> *mut *mut u8 {
        // SAFETY: `arrays` points to the memory behind the struct, which `CACHE_BYTES` makes large
        // enough for the arrays of all classes.
        unsafe { self.arrays.add(usize::from(ARRAYS[class.index()])) }
    }

    /// The array that the class has in the nest.
    #[cfg(feature = "magazines")]
    pub fn nest(&self, class: ClassId) -> *mut *mut u8 {
        // SAFETY: the nest lies at the beginning of the memory behind the struct.
        unsafe { self.arrays.add(usize::from(NESTS_AT[class.index()])) }
    }

    /// The header of the class's array.
    #[inline]
    pub fn magazine(&mut self, class: ClassId) -> &mut Magazine {
        &mut self.head.magazines[class.index() + FIRST]
    }

    /// Number of blocks in the class's array.
    #[inline]
    pub fn held(&self, class: ClassId) -> usize {
        let (top, base) = (
            self.head.magazines[class.index() + FIRST].top,
            self.bases[class.index()],
        );
        (top as usize - base as usize) / size_of::<*mut u8>()
    }

    /// Notes on the board how many blocks of the class the cache has: in its array, its list and
    /// its quarantine, and blocks that are arrays themselves. To be called where batches move.
    #[inline]
    pub fn note_cached(&mut self, class: ClassId) {
        if cfg!(feature = "stats") {
            let count = self.held(class)
                + self.lists[class.index()].len()
                + self.magazines.arrays(class)
                + self.quarantine.count(class)
                + self.kept.count(class);
            let counters = &self.heap.class_counters[class.index()];
            // Most threads use few classes: the others' places on the board stay untouched.
            if counters.cached_blocks.get() != count as u64 {
                counters.cached_blocks.set(count as u64);
            }
            self.noted |= u64::from(count > 0) << class.index();
        }
    }

    /// Notes on the board how many blocks the cache has of those classes of which it shows some.
    pub fn note_noted(&mut self) {
        let noted = core::mem::take(&mut self.noted);
        for class in ClassId::of(noted) {
            self.note_cached(class);
        }
    }

    /// Notes on the board how many blocks of each class the cache has.
    pub fn note_all_cached(&mut self) {
        ClassId::all().for_each(|class| self.note_cached(class));
    }

    /// The class's capacity according to the option `magazine`.
    pub fn fixed_capacity(&self, class: ClassId) -> usize {
        let info = &CLASSES[class.index()];
        (self.arena().policy().config().magazine / info.size as usize)
            .clamp(info.least as usize, info.magazine as usize)
    }

    /// The arena that the cache's memory and blocks come from.
    #[inline]
    pub fn arena(&self) -> &'static Arena {
        self.arena
    }

    /// The node that the cache takes memory from.
    #[inline]
    pub fn node(&self) -> NodeIndex {
        self.heap.node()
    }

    /// Bytes that the cache and its heap have claimed of the budget.
    pub fn claimed(&self) -> usize {
        self.magazines.claimed() + self.heap.claimed()
    }
}
