//! Blocks that are not the heap's: another allocator of the process may know them.
//!
//! A plugin that binds to the C library before everything else frees blocks of this heap there and
//! the other way round, and so does a library that was loaded earlier. The front end that serves a
//! whole process names the other allocator ([`Elsewhere`]); where nobody is named, where the other
//! allocator does not know the block, or where the option `foreign` says so, the process ends.
#![allow(unsafe_code)] // Calls the other allocator.

use super::setup::Setup;
use crate::config::Foreign;
use crate::messages::{self, Misuse, OnceMessage, misuse};
use crate::pool::Arena;
use crate::pool::global::existing_arena;
use theap_platform::Os;

/// The other allocator of a process: the one that would serve it without this heap.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere {
    /// Whether the address is a block of that allocator, as far as that can be told without a
    /// fault. It is called without a lock.
    pub knows: fn(*const u8) -> bool,
    /// Frees a block that it knows.
    pub free: unsafe fn(*mut u8),
    /// Changes the size of a block that it knows, as C's `realloc` does.
    pub realloc: unsafe fn(*mut u8, usize) -> *mut u8,
    /// The bytes that may be used of a block that it knows.
    pub usable_size: unsafe fn(*const u8) -> usize,
}

/// Answers the option `foreign`: the heap's, or before there is one the program's.
fn option(setup: &Setup) -> Foreign {
    existing_arena().map_or(setup.config.foreign, |arena| {
        arena.policy().config().foreign
    })
}

/// Tells whether the options let the heap stand in for the other allocator.
pub fn stands_in(setup: &Setup) -> bool {
    option(setup) == Foreign::HandOver
}

/// The other allocator, if the address is not the heap's, the other allocator knows the block, and
/// the options let it have the block.
fn taker(block: *const u8, setup: &Setup) -> Option<&'static Elsewhere> {
    let ours = existing_arena().is_some_and(|arena| arena.addresses().contains(block as usize));
    if ours || option(setup) == Foreign::Abort {
        return None;
    }
    (setup.elsewhere)().filter(|elsewhere| (elsewhere.knows)(block))
}

/// Says once that the other allocator takes over.
fn say(block: *const u8) {
    if let Some(arena) = existing_arena()
        && arena.policy().first_to_say(OnceMessage::HandedOver)
    {
        messages::handed_over(arena.os(), block as usize);
    }
}

/// Lets the other allocator free a block that is not the heap's, or ends the process.
///
/// # Safety
/// `block` is a live block of the other allocator, and nobody uses it any more. What is none, as
/// far as that can be told, ends the process.
#[cold]
#[inline(never)]
pub unsafe fn free_foreign(block: *mut u8, setup: &Setup) {
    let Some(elsewhere) = taker(block, setup) else {
        let os = existing_arena().map_or(Os::LINUX, Arena::os);
        misuse(os, Misuse::Foreign, block as usize);
    };
    say(block);
    // SAFETY: the other allocator knows the block, which is live (this function's own Safety
    // section).
    unsafe { (elsewhere.free)(block) };
}

/// Lets the other allocator change the size of a block that is not the heap's. `None` if it does
/// not know the block.
///
/// # Safety
/// The conditions of [`free_foreign`], but the block is used on if the answer is null.
#[cold]
pub unsafe fn resize_foreign(block: *mut u8, size: usize, setup: &Setup) -> Option<*mut u8> {
    let elsewhere = taker(block, setup)?;
    say(block);
    // SAFETY: as in `free_foreign`.
    Some(unsafe { (elsewhere.realloc)(block, size) })
}

/// The bytes that may be used of a block that is not the heap's; 0 if the other allocator does not
/// know it.
#[cold]
pub fn usable_size_foreign(block: *const u8, setup: &Setup) -> usize {
    // SAFETY: the other allocator knows the block.
    taker(block, setup).map_or(0, |elsewhere| unsafe { (elsewhere.usable_size)(block) })
}
