//! The question of a crash report, which cache has a block. It is asked in a signal handler, while
//! all threads may go on.
#![allow(unsafe_code)] // Reads other threads' caches through raw pointers.

use super::cache::ThreadCache;
use super::head::FIRST;
use crate::geometry::ClassId;
use crate::pool::global::existing_arena;
use core::sync::atomic::Ordering;

/// The number of the heap whose cache has the block in its array of the class; lists of the classic
/// front are not searched. For a report only: other threads may change their arrays meanwhile.
pub fn cached_by(class: ClassId, block: usize) -> Option<usize> {
    let arena = existing_arena()?;
    let made = arena.figures().header().heaps.load(Ordering::Acquire) as usize;
    (0..made).find(|&heap| {
        let cache = arena.heaps().at(heap).cast::<ThreadCache>();
        // SAFETY: a made heap's memory is committed, and zero until its cache is written. No
        // reference is made, as the cache's thread may have one; the top is read once, as its
        // thread may move it. A magazine that grows or shrinks at this moment may have no such
        // places: then there is no report, and the process ends as it would have.
        unsafe {
            let base = (&raw const (*cache).bases[class.index()]).read_volatile();
            let capacity =
                usize::from((&raw const (*cache).capacities[class.index()]).read_volatile());
            let magazine = &raw const (*cache).head.magazines[class.index() + FIRST];
            let top = (&raw const (*magazine).top).read_volatile();
            let held = (top as usize).saturating_sub(base as usize) / size_of::<*mut u8>();
            (0..held.min(capacity)).any(|i| base.add(i).read_volatile() as usize == block)
        }
    })
}
