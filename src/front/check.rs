//! What must hold of fronts while no thread is inside the allocator.

use super::thread::Front;
use crate::classes::CLASS_COUNT;
use crate::pool::{Arena, Invalid, ensure, kind};

/// Whether all fronts, heaps, spans and SuperSlabs of the arena are valid.
///
/// # Safety
/// No thread is inside the allocator.
///
/// # Errors
/// The first thing that is wrong.
pub unsafe fn check(arena: &Arena) -> Result<(), Invalid> {
    let mut held = 0;
    for index in 0..arena.heaps_made() {
        let front = arena.heap_at(index).cast::<Front>();
        // A heap that no thread has may be zero.
        // SAFETY: a made heap's memory is committed.
        if unsafe { (&raw const (*front).bases[0]).read() }.is_null() {
            continue;
        }
        // SAFETY: whoever made a heap has written its front, and nobody changes it now.
        let front = unsafe { &*front };
        for class in 0..CLASS_COUNT {
            front.check_class(class, index)?;
        }
        held += front.heap.is_valid()?;
    }
    // SAFETY: the caller's promise.
    unsafe { arena.is_valid(held) }
}

impl Front {
    /// Whether the class's array and list lie where they should and hold blocks that are not free.
    fn check_class(&self, class: usize, index: usize) -> Result<(), Invalid> {
        let base = self.bases[class];
        let capacity = usize::from(self.capacities[class]);
        let magazine = &self.head.magazines[class + kind::FIRST as usize];
        #[cfg(feature = "theap")]
        let served = self.has_magazine(class);
        #[cfg(not(feature = "theap"))]
        let served = false;
        let places = if served {
            capacity
        } else {
            self.fast_places(class)
        };
        let bounds = magazine.limit == base.wrapping_add(places)
            && (base..=magazine.limit).contains(&magazine.top);
        ensure(bounds, "bounds of a magazine of heap", index)?;
        // SAFETY: the storage has a sentinel below each array, and its pointers up to the top.
        let (sentinel, held) = unsafe {
            let held = magazine.top.offset_from(base) as usize;
            (*base.sub(1), core::slice::from_raw_parts(base, held))
        };
        ensure(sentinel.is_null(), "sentinel of a magazine of heap", index)?;
        let arena = self.arena();
        let (home, len) = arena.part(self.node());
        let is_ours = |block: usize| block.wrapping_sub(home) < len && arena.is_out(block, class);
        let all = held.iter().all(|&block| is_ours(block as usize));
        ensure(all, "blocks in a magazine of heap", index)?;
        let listed = self.lists[class].is_valid(arena, is_ours);
        ensure(listed, "blocks of a list of heap", index)
    }
}
