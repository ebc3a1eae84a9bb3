//! Preparation: a thread asks for memory ahead of its need.
#![allow(unsafe_code)] // Touches the cache's own memory.

use super::TAIL;
use super::handle::Handle;
use super::setup::Setup;
use crate::classes;
use crate::geometry::{SLOT, SUPER};
use theap_platform::Error;

/// Prepares the calling thread's node for allocations of `bytes`. Sizes are rounded up to classes
/// and spans hold whole classes, so a quarter and 16 MiB are prepared on top.
///
/// # Errors
/// The system's error when it refused memory, or out of memory while sealed; what was
/// prepared until then stays.
pub fn warm_up(bytes: usize, setup: &Setup) -> Result<(), Error> {
    let cache = touched(setup)?;
    warm_node(
        cache,
        bytes.saturating_add(bytes / 4).saturating_add(8 * SUPER),
    )
}

/// Prepares the calling thread for `count` blocks of `size` bytes, or its node where the size is a
/// run's.
///
/// # Errors
/// The system's error when it refused memory; what was prepared until then stays.
pub fn warm_up_class(size: usize, count: usize, setup: &Setup) -> Result<(), Error> {
    let size = size.saturating_add(TAIL);
    let Some(class) = classes::class_for(size, 1) else {
        let run = size.checked_next_multiple_of(SLOT).ok_or(Error::NoMemory)?;
        return warm_up(run.saturating_mul(count), setup);
    };
    let bytes = (classes::CLASSES[class.index()].size as usize).saturating_mul(count);
    let cache = touched(setup)?;
    // Grows in large steps, and refuses what the machine has not.
    warm_node(cache, bytes)?;
    // SAFETY: the step calls only the heap and the arena.
    unsafe { cache.step(|cache| cache.heap.prepare(class, count)) }
}

fn warm_node(cache: Handle, bytes: usize) -> Result<(), Error> {
    // SAFETY: the step reads a field.
    let node = unsafe { cache.step(|cache| cache.node()) };
    cache.arena().node(node).warm(bytes)
}

/// The calling thread's cache, with all of its memory touched.
fn touched(setup: &Setup) -> Result<Handle, Error> {
    let cache = Handle::mine(setup).ok_or(Error::NoMemory)?;
    let arena = cache.arena();
    if arena.policy().refuses() {
        return Err(Error::NoMemory);
    }
    // SAFETY: the step reads a field.
    let index = unsafe { cache.step(|cache| cache.index) };
    arena.heaps().open_whole(index)?;
    let bytes = arena.heaps().accessible(index);
    // SAFETY: the cache's memory is accessible; populating keeps its contents.
    unsafe { arena.os().populate(cache.memory() as usize, bytes)? };
    arena.policy().set_prepared();
    arena.touch_figures()?;
    // The page of the kernel's clock faults at its first use too.
    arena.os().recently();
    Ok(cache)
}
