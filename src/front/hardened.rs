//! The entry points of the feature `hardened`, which catch the misuse of blocks early.
//!
//! - One bit for each block says whether it is live ([`crate::pool::BlockId`]): a double free is
//!   found in the second call, whichever thread makes it and wherever the block is meanwhile.
//! - The last [`TAIL`] bytes of every block are a canary, made of the arena's secret and the
//!   block's address: a write beyond the end is found when the block is freed. The byte next to the
//!   user's is never zero.
//! - A freed block is filled with [`POISON`] (its first [`POISONED`] bytes). It is compared when
//!   the block leaves the quarantine and again when it is handed out: a write after free is found
//!   there.
//! - A freed block of at most [`QUARANTINED`] bytes changes places with a random one of its
//!   thread's quarantine, and that one goes on to the magazine: at most 1 MiB of a thread waits.
//!   Blocks leave spans in random order.
//! - A size that a caller tells to free must be of the block's class.
//!
//! Runs (above 2 MiB) have a canary and are known to be live as in every build; they are neither
//! filled nor kept.
#![allow(unsafe_code)] // Reads and writes the contents of free blocks, and their ends.

use super::foreign::free_foreign;
use super::handle::Handle;
use super::head::{is_retired, slot};
use super::runs::alloc_run;
use super::setup::Setup;
use super::sizes::{check_size, whole_size};
use super::{hit, resize as plain_resize};
use crate::classes;
use crate::messages::{Misuse, misuse};
use crate::pool::Location;
use crate::pool::global::existing_arena;
use crate::pool::{Arena, BlockId};
use core::ptr;
use theap_platform::Os;

/// Bytes at a block's end that are not the user's: the canary.
pub const TAIL: usize = 8;

/// The word that freed blocks are filled with: no address that a program can have.
pub const POISON: u64 = 0xFDFD_FDFD_FDFD_FDFD;
/// Bytes of a freed block that are filled.
const POISONED: usize = 4 << 10;
/// The largest block that is kept in quarantine.
const QUARANTINED: usize = 4 << 10;

/// Memory of the heap that a caller names.
enum Named {
    /// A block of a class.
    Block(BlockId),
    /// A run, by its bytes.
    Run(usize),
}

/// The memory that a caller names, or the end of the process if it is none of the heap's.
fn examine(arena: &Arena, block: *mut u8) -> Named {
    let address = block as usize;
    let named = match arena.addresses().locate(address) {
        Location::Free => None,
        Location::Block(_) => BlockId::at(arena.addresses(), address).map(Named::Block),
        Location::Run(_) | Location::Foreign => arena.runs().bytes_at(address).map(Named::Run),
    };
    named.unwrap_or_else(|| {
        let is_ours = arena.addresses().contains(address);
        let what = if is_ours {
            Misuse::NotABlock
        } else {
            Misuse::Foreign
        };
        misuse(arena.os(), what, address)
    })
}

/// The canary of a block.
fn canary(arena: &Arena, block: *mut u8) -> u64 {
    (arena.policy().secret() as u64 ^ block as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}

/// Writes the canary at a block's end.
///
/// # Safety
/// `block` is memory of the heap of this size, and the caller's.
unsafe fn write_canary(arena: &Arena, block: *mut u8, size: usize) {
    // SAFETY: the block's last word (this function's own Safety section).
    unsafe {
        block
            .add(size - TAIL)
            .cast::<u64>()
            .write(canary(arena, block));
    }
}

/// Ends the process if the canary is not the block's.
///
/// # Safety
/// The conditions of [`write_canary`].
unsafe fn check_canary(arena: &Arena, block: *mut u8, size: usize) {
    // SAFETY: the block's last word (this function's own Safety section).
    let found = unsafe { block.add(size - TAIL).cast::<u64>().read() };
    if found != canary(arena, block) {
        misuse(arena.os(), Misuse::Overflow, block as usize);
    }
}

/// The words of a block that are filled when it is freed.
///
/// # Safety
/// `block` is a free block of this size that nobody else has.
unsafe fn words<'a>(block: *mut u8, size: usize) -> &'a mut [u64] {
    // SAFETY: the block is the caller's alone (this function's own Safety section); the sizes of
    // classes are multiples of 16, and so are blocks' addresses.
    unsafe { core::slice::from_raw_parts_mut(block.cast(), size.min(POISONED) / 8) }
}

/// Ends the process if a free block is no longer filled as it was.
///
/// # Safety
/// The conditions of [`words`]; the block was filled when it was freed.
pub unsafe fn check_poison(arena: &Arena, block: *mut u8, size: usize) {
    // SAFETY: this function's own Safety section.
    let words = unsafe { words(block, size) };
    // All of them, and no way out in between: whole vectors are compared at once.
    if words
        .iter()
        .fold(0, |differs, word| differs | (word ^ POISON))
        != 0
    {
        misuse(arena.os(), Misuse::WriteAfterFree, block as usize);
    }
}

/// Notes that a new block is live. Null stays null.
///
/// # Safety
/// `block` is null, or a block or run that the plain front has just given to the caller.
unsafe fn begin(block: *mut u8) -> *mut u8 {
    let Some(arena) = existing_arena().filter(|_| !block.is_null()) else {
        return block;
    };
    // SAFETY: the block is new to the caller (this function's own Safety section), and of the size
    // that the heap knows.
    unsafe {
        match examine(arena, block) {
            Named::Run(size) => write_canary(arena, block, size),
            Named::Block(block_id) => {
                let (was_live, was_used) = arena.metadata().begin_life(block_id);
                if was_live {
                    misuse(arena.os(), Misuse::DoubleFree, block as usize);
                }
                if was_used {
                    check_poison(arena, block, block_id.size);
                }
                write_canary(arena, block, block_id.size);
            }
        }
    }
    block
}

/// Like [`hit::alloc`].
pub fn alloc(size: usize, setup: &Setup) -> *mut u8 {
    // SAFETY: the plain front's new block.
    unsafe { begin(hit::alloc(size.saturating_add(TAIL), setup)) }
}

/// Nothing is at hand that needs no check.
pub fn alloc_cached(_size: usize) -> *mut u8 {
    ptr::null_mut()
}

/// Like [`hit::alloc_aligned`].
pub fn alloc_aligned(size: usize, align: usize, setup: &Setup) -> *mut u8 {
    // SAFETY: the plain front's new block.
    unsafe { begin(hit::alloc_aligned(size.saturating_add(TAIL), align, setup)) }
}

/// Like [`hit::alloc_aligned`]; the block reads zero.
pub fn alloc_zeroed(size: usize, align: usize, setup: &Setup) -> *mut u8 {
    let whole = size.saturating_add(TAIL);
    let (block, zero) = match classes::class_for(whole, align) {
        Some(_) => (alloc_aligned(size, align, setup), false),
        None => {
            let (run, zero) = alloc_run(whole, align, setup);
            // SAFETY: the plain front's new run.
            (unsafe { begin(run) }, zero)
        }
    };
    if !block.is_null() && !zero {
        // SAFETY: a new block of more than `size` bytes.
        unsafe { theap_arch::clear(block, size) };
    }
    block
}

/// Like [`hit::free`], but every misuse that the module tells of is found here.
///
/// # Safety
/// `block` is null or a live block of the heap, and nobody uses it any more.
pub unsafe fn free(block: *mut u8, setup: &Setup) {
    if block.is_null() {
        return;
    }
    let is_ours = |arena: &&Arena| {
        let address = block as usize;
        arena.addresses().contains(address) || arena.runs().bytes_at(address).is_some()
    };
    let Some(arena) = existing_arena().filter(is_ours) else {
        // SAFETY: a block as this function's Safety section has it, which may be the other
        // allocator's.
        return unsafe { free_foreign(block, setup) };
    };
    let out = match examine(arena, block) {
        Named::Run(size) => {
            // SAFETY: the run is live.
            unsafe { check_canary(arena, block, size) };
            block
        }
        Named::Block(block_id) => {
            if !arena.metadata().end_life(block_id) {
                misuse(arena.os(), Misuse::DoubleFree, block as usize);
            }
            // SAFETY: the block was live until now, and is nobody else's.
            unsafe {
                check_canary(arena, block, block_id.size);
                words(block, block_id.size).fill(POISON);
            }
            let head = slot::get();
            if block_id.size <= QUARANTINED && !is_retired() {
                // SAFETY: the slot's own value, and a block that was freed and filled just now. The
                // step calls only the arena.
                unsafe {
                    Handle::of(head, setup).map_or(block, |cache| {
                        cache.step(|cache| cache.quarantine.exchange(block, &cache.heap))
                    })
                }
            } else {
                block
            }
        }
    };
    // SAFETY: a run as this function's Safety section has it, or a free block that this thread
    // alone has.
    unsafe { hit::free(out, setup) };
}

/// Like [`free`]; the size is compared with the block's.
///
/// # Safety
/// The conditions of `free`.
pub unsafe fn free_sized(block: *mut u8, size: usize, setup: &Setup) {
    check_size(block, size.saturating_add(TAIL));
    // SAFETY: this function's own Safety section.
    unsafe { free(block, setup) };
}

/// Like [`plain_resize::resize`].
///
/// # Safety
/// The conditions of `free`; `old` and `align` are the block's.
pub unsafe fn resize(
    block: *mut u8,
    old: usize,
    new: usize,
    align: usize,
    setup: &Setup,
) -> *mut u8 {
    let Some(arena) = existing_arena() else {
        misuse(Os::LINUX, Misuse::Foreign, block as usize);
    };
    let (was, is) = (old.saturating_add(TAIL), new.saturating_add(TAIL));
    let in_class = match examine(arena, block) {
        Named::Block(block_id) => {
            if !arena.metadata().is_live(block_id) {
                misuse(arena.os(), Misuse::DoubleFree, block as usize);
            }
            true
        }
        Named::Run(size) => {
            // SAFETY: the run is live.
            unsafe { check_canary(arena, block, size) };
            false
        }
    };
    let class = classes::class_for(is, align);
    if in_class && class == classes::class_for(was, align) {
        return block;
    }
    // SAFETY: this function's own Safety section; the new block has `new` bytes, and is another
    // one.
    unsafe {
        if !in_class && class.is_none() {
            return begin(plain_resize::resize(block, was, is, align, setup));
        }
        let moved = alloc_aligned(new, align, setup);
        if moved.is_null() && stay(block, new) {
            return block;
        }
        if !moved.is_null() {
            ptr::copy_nonoverlapping(block, moved, old.min(new));
            free(block, setup);
        }
        moved
    }
}

/// Keeps a block that cannot be moved for lack of memory as [`plain_resize::stay`] does.
///
/// # Safety
/// `block` is a live block of the heap.
pub unsafe fn stay(block: *mut u8, new: usize) -> bool {
    // SAFETY: this function's own Safety section; a run that was cut is the caller's as before, and
    // its canary is elsewhere now.
    unsafe {
        let stays = plain_resize::stay(block, new.saturating_add(TAIL));
        if let Some(arena) = existing_arena().filter(|_| stays)
            && let Named::Run(size) = examine(arena, block)
        {
            write_canary(arena, block, size);
        }
        stays
    }
}

/// Bytes that the user of a block may use; 0 for what is no block of the heap, as far as that is
/// known.
pub fn usable_size(block: *const u8) -> usize {
    whole_size(block).saturating_sub(TAIL)
}
