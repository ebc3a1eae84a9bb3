//! Preparation: a thread asks for memory ahead of its need.
#![allow(unsafe_code)] // Touches the cache's own memory.

use super::TAIL;
use super::handle::Handle;
use super::limits;
use super::setup::{Setup, arena};
use crate::classes;
use crate::config::Pages;
use crate::geometry::{SLOT, SUPER};
use crate::messages::Shortage;
use crate::pool::{Arena, Node};
use theap_platform::{Error, HUGE_1G, Os, PageMode};

/// Prepares the calling thread's node for `bytes` of memory.
///
/// # Errors
/// The system's error when it refused memory, or out of memory while sealed; what was
/// prepared until then stays.
pub fn warm_up(bytes: usize, setup: &Setup) -> Result<(), Error> {
    warm_node(touched(setup)?, bytes)
}

/// Does what `warm_up` does, if there is so much memory; else for as many bytes as there are. A
/// sixteenth of what there is stays: the program needs memory besides its heap, and what is read
/// here is an estimate.
///
/// # Errors
/// The bytes that were prepared, and the reason why they are fewer.
pub fn reserve(bytes: usize, setup: &Setup) -> Result<(), (usize, Shortage)> {
    let arena = arena(setup).ok_or((0, Shortage::Refused(Error::NoMemory)))?;
    let (most, why) = reservable(arena);
    let had = bytes.min(most);
    if had > 0
        && let Err(error) = warm_up(had, setup)
    {
        let ready = |node: &Node| {
            // What was mapped until then is had too, as far as it can be touched.
            let _ = node.pages().touch_all();
            node.pages().ready_bytes() as u64
        };
        let ready = arena.nodes().iter().map(ready).sum::<u64>();
        return Err((had.min(ready as usize), Shortage::Refused(error)));
    }
    if had < bytes { Err((had, why)) } else { Ok(()) }
}

/// The bytes that can be reserved now, and the reason why there are no more.
pub fn reservable(arena: &Arena) -> (usize, Shortage) {
    let (os, most) = (arena.os(), arena.policy().limit().spare() as u64);
    // A sixteenth stays, and the metadata counts too.
    let within = |most: u64| (most - most / 16).saturating_sub(2 * SUPER as u64);
    let spare = within(most);
    let pools: u64 = match arena.policy().config().pages {
        Pages::Small | Pages::Thp => 0,
        Pages::Auto | Pages::Hugetlb => pool(os, PageMode::Hugetlb),
        Pages::Hugetlb1g => pool(os, PageMode::Hugetlb) + pool(os, PageMode::Hugetlb1g),
    };
    let room = os.room();
    let (available, why) = match within(room.bytes).saturating_add(pools) {
        available if available <= spare => (available, Shortage::Room(room.bound)),
        _ => (spare, Shortage::Limit),
    };
    (available.try_into().unwrap_or(usize::MAX), why)
}

/// The free bytes of a hugetlb pool.
fn pool(os: Os, mode: PageMode) -> u64 {
    let page = if mode == PageMode::Hugetlb1g {
        HUGE_1G
    } else {
        SUPER
    };
    os.hugetlb_free(mode) as u64 * page as u64
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
    let done = unsafe { cache.step(|cache| cache.heap.prepare(class, count)) };
    limits::heed_growth();
    done
}

fn warm_node(cache: Handle, bytes: usize) -> Result<(), Error> {
    // SAFETY: the step reads a field.
    let node = unsafe { cache.step(|cache| cache.node()) };
    let done = cache.arena().node(node).warm(bytes);
    limits::heed_growth();
    done
}

/// The calling thread's cache, with all of its memory touched.
fn touched(setup: &Setup) -> Result<Handle, Error> {
    let cache = Handle::mine(setup).ok_or(Error::NoMemory)?;
    let arena = cache.arena();
    if arena.policy().refuses() {
        return Err(Error::NoMemory);
    }
    let index = cache.index();
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
