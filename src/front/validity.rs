//! The invariants of thread caches while no thread is inside the allocator.
#![allow(unsafe_code)] // Reads the caches of all threads.

use super::cache::ThreadCache;
use super::head::FIRST;
use crate::geometry::ClassId;
use crate::pool::{Arena, Invalid, Location, ensure};

/// Whether all caches, heaps, spans and SuperSlabs of the arena are valid.
///
/// # Safety
/// No thread is inside the allocator.
///
/// # Errors
/// The first thing that is wrong.
pub unsafe fn check(arena: &Arena) -> Result<(), Invalid> {
    let mut held = 0;
    for index in 0..arena.heaps().made() {
        let cache = arena.heaps().at(index).cast::<ThreadCache>();
        // A heap that no thread has may be zero.
        // SAFETY: a made heap's memory is committed.
        if unsafe { (&raw const (*cache).bases[0]).read() }.is_null() {
            continue;
        }
        // SAFETY: the thread that had the heap first has written its cache, and nobody changes it
        // now (this function's own Safety section).
        let cache = unsafe { &*cache };
        for class in ClassId::all() {
            // SAFETY: this function's own Safety section.
            unsafe { cache.check_class(class, index)? };
        }
        #[cfg(feature = "magazines")]
        ensure(cache.is_within_allowance(), "allowance of heap", index)?;
        held += cache.heap.is_valid()?;
    }
    // SAFETY: this function's own Safety section.
    unsafe { arena.is_valid(held) }
}

impl ThreadCache {
    /// Whether the class's array and list lie where they should and hold blocks that are not free.
    ///
    /// # Safety
    /// No thread is inside the allocator.
    unsafe fn check_class(&self, class: ClassId, index: usize) -> Result<(), Invalid> {
        let base = self.bases[class.index()];
        let magazine = &self.head.magazines[class.index() + FIRST];
        let end = base.wrapping_add(self.places_in_use(class));
        let bounds = (magazine.limit == end || magazine.limit < end && self.may_be_shut(class))
            && (base..=magazine.limit).contains(&magazine.top);
        ensure(bounds, "bounds of a magazine of heap", index)?;
        // SAFETY: the arrays' memory has a sentinel below each array, and the array's pointers up
        // to the top.
        let (sentinel, held) = unsafe {
            (
                *base.sub(1),
                core::slice::from_raw_parts(base, self.held(class)),
            )
        };
        ensure(sentinel.is_null(), "sentinel of a magazine of heap", index)?;
        let arena = self.arena();
        let (home_part, bytes) = arena.addresses().part(self.node());
        let is_ours =
            |block: usize| block.wrapping_sub(home_part) < bytes && arena.is_out(block, class);
        // A block that its owner has made smaller where it was is freed as one of another class.
        let is_outsized = |block: usize| {
            let is_home = block.wrapping_sub(home_part) < bytes;
            arena.policy().has_outsized()
                && match arena.addresses().locate(block) {
                    Location::Block(part) => is_home && arena.is_out(block, part.class),
                    Location::Run(run) => is_home && run.at_start,
                    Location::Foreign => arena.runs().outside().bytes_at(block).is_some(),
                    Location::Free => false,
                }
        };
        let all = held
            .iter()
            .map(|&block| block as usize)
            .all(|block| is_ours(block) || is_outsized(block));
        ensure(all, "blocks in a magazine of heap", index)?;
        // SAFETY: this function's own Safety section; the span of each of these blocks says that it
        // has given it out.
        let listed = unsafe { self.lists[class.index()].is_valid(arena, is_ours) };
        ensure(listed, "blocks of a list of heap", index)
    }
}
