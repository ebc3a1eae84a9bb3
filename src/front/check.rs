//! What must hold of fronts while no thread is inside the allocator.

use super::thread::Front;
#[cfg(feature = "theap")]
use crate::classes::CLASS_COUNT;
#[cfg(feature = "theap")]
use crate::pool::kind;
use crate::pool::{Arena, Invalid, ensure};

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
        // SAFETY: whoever made a heap has written its front, and nobody changes it now.
        let front = unsafe { &*arena.heap_at(index).cast::<Front>() };
        front.check_magazines(index)?;
        held += front.heap.is_valid()?;
    }
    // SAFETY: the caller's promise.
    unsafe { arena.is_valid(held) }
}

impl Front {
    /// Whether the magazines lie where they should and hold blocks that are not free.
    fn check_magazines(&self, index: usize) -> Result<(), Invalid> {
        #[cfg(feature = "theap")]
        for class in 0..CLASS_COUNT {
            let (base, magazine) = (
                self.bases[class],
                &self.head.magazines[class + kind::FIRST as usize],
            );
            let capacity = usize::from(self.capacities[class]);
            let bounds = (base..=base.wrapping_add(capacity)).contains(&magazine.top);
            ensure(bounds, "bounds of a magazine of heap", index)?;
            // SAFETY: the storage has a sentinel below each magazine, and its pointers up to the top.
            let (sentinel, held) = unsafe {
                let held = magazine.top.offset_from(base) as usize;
                (*base.sub(1), core::slice::from_raw_parts(base, held))
            };
            ensure(sentinel.is_null(), "sentinel of a magazine of heap", index)?;
            let arena = self.arena();
            let (home, len) = arena.part(self.node());
            let out = held.iter().all(|&block| {
                (block as usize).wrapping_sub(home) < len && arena.is_out(block as usize, class)
            });
            ensure(out, "blocks in a magazine of heap", index)?;
        }
        let _ = index;
        Ok(())
    }
}
