//! The feature `hardened`: what stands between the API and the front, to catch the misuse of blocks early.
//!
//! - A bit a block says whether it is live ([`crate::pool::Place`]): a double free is found in the second call, whoever
//!   makes it and wherever the block is meanwhile.
//! - The last [`TAIL`] bytes of every block are a canary, made of the arena's secret and the block's address: a write
//!   beyond the end is found when the block is freed. The byte next to the user's is never zero.
//! - A freed block is filled with [`POISON`] (its first [`POISONED`] bytes). It is compared when the block leaves the
//!   quarantine and again when it is handed out: a write after free is found there.
//! - A freed block of at most [`QUARANTINED`] bytes changes places with a random one of its thread's quarantine, and
//!   that one goes on to the front: at most 1 MiB a thread waits. Blocks leave spans in random order.
//! - A size that is told to free must be of the block's class.
//!
//! Runs (above 256 KiB) have a canary and are known to be live as in every build; they are neither filled nor kept.

use super::slow::check_size;
use super::thread::is_retired;
pub use super::*;
use crate::fatal::{Misuse, misuse};
use crate::pool::{Arena, Place};
use core::ptr;
use theap_platform::Os;

/// What freed blocks are filled with: no address that a program can have.
pub const POISON: u64 = 0xFDFD_FDFD_FDFD_FDFD;
/// Bytes of a freed block that are filled.
const POISONED: usize = 4 << 10;
/// The largest block that is kept in quarantine.
const QUARANTINED: usize = 4 << 10;
/// Blocks in a thread's quarantine.
const KEPT: usize = 256;

/// Blocks that were freed and are not to be used yet. Zero is valid: none.
pub struct Quarantine([*mut u8; KEPT]);

/// Memory of the heap that a caller names.
enum Named {
    Block(Place),
    /// A run of so many bytes.
    Run(usize),
}

fn examine(arena: &Arena, block: *mut u8) -> Named {
    let address = block as usize;
    if !arena.contains(address) {
        misuse(arena.os, Misuse::Foreign, address);
    }
    if let Some(place) = arena.place(address) {
        return Named::Block(place);
    }
    match arena.run_at(address) {
        Some((_, len)) => Named::Run(len * SLOT),
        None => misuse(arena.os, Misuse::NotABlock, address),
    }
}

fn canary(arena: &Arena, block: *mut u8) -> u64 {
    (arena.secret as u64 ^ block as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}

/// # Safety
/// `block` is memory of the heap of this size, and the caller's.
unsafe fn write_canary(arena: &Arena, block: *mut u8, size: usize) {
    // SAFETY: the end of the block.
    unsafe {
        block
            .add(size - TAIL)
            .cast::<u64>()
            .write(canary(arena, block));
    }
}

/// # Safety
/// As for `write_canary`.
unsafe fn check_canary(arena: &Arena, block: *mut u8, size: usize) {
    // SAFETY: the end of the block.
    let found = unsafe { block.add(size - TAIL).cast::<u64>().read() };
    if found != canary(arena, block) {
        misuse(arena.os, Misuse::Overflow, block as usize);
    }
}

/// # Safety
/// `block` is a free block of this size that nobody else has.
unsafe fn words<'a>(block: *mut u8, size: usize) -> &'a mut [u64] {
    // SAFETY: classes are multiples of 16, and so are blocks' addresses.
    unsafe { core::slice::from_raw_parts_mut(block.cast(), size.min(POISONED) / 8) }
}

/// # Safety
/// As for `words`; the block was filled when it was freed.
unsafe fn check_poison(arena: &Arena, block: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    let words = unsafe { words(block, size) };
    // All of them, and no way out in between: whole vectors are compared at once.
    if words
        .iter()
        .fold(0, |differs, word| differs | (word ^ POISON))
        != 0
    {
        misuse(arena.os, Misuse::WriteAfterFree, block as usize);
    }
}

/// Makes what the front gave a live block. Null stays null.
fn begin(block: *mut u8) -> *mut u8 {
    let Some(arena) = existing_arena().filter(|_| !block.is_null()) else {
        return block;
    };
    // SAFETY: the block is new to the caller, and of the size that the heap knows.
    unsafe {
        match examine(arena, block) {
            Named::Run(size) => write_canary(arena, block, size),
            Named::Block(place) => {
                let (was_live, was_used) = arena.begin_life(place);
                if was_live {
                    misuse(arena.os, Misuse::DoubleFree, block as usize);
                }
                if was_used {
                    check_poison(arena, block, place.size);
                }
                write_canary(arena, block, place.size);
            }
        }
    }
    block
}

/// As [`super::alloc`].
pub fn alloc(size: usize, config: &Config) -> *mut u8 {
    begin(super::alloc(size.saturating_add(TAIL), config))
}

/// Nothing is at hand that needs no check.
pub fn alloc_cached(_size: usize) -> *mut u8 {
    ptr::null_mut()
}

/// As [`super::alloc_aligned`].
pub fn alloc_aligned(size: usize, align: usize, config: &Config) -> *mut u8 {
    begin(super::alloc_aligned(
        size.saturating_add(TAIL),
        align,
        config,
    ))
}

/// As [`super::alloc_zeroed`].
pub fn alloc_zeroed(size: usize, align: usize, config: &Config) -> *mut u8 {
    let whole = size.saturating_add(TAIL);
    let (block, zero) = match classes::class_for(whole, align) {
        Some(_) => (alloc_aligned(size, align, config), false),
        None => {
            let (run, zero) = alloc_run(whole, align, config);
            (begin(run), zero)
        }
    };
    if !block.is_null() && !zero {
        // SAFETY: a new block of more than `size` bytes.
        unsafe { theap_arch::clear(block, size) };
    }
    block
}

/// As [`super::free`], but every misuse that the module tells of is found here.
///
/// # Safety
/// `block` is null or a live block of the heap, and nobody uses it any more.
pub unsafe fn free(block: *mut u8, config: &Config) {
    if block.is_null() {
        return;
    }
    let Some(arena) = existing_arena() else {
        misuse(Os::LINUX, Misuse::Foreign, block as usize);
    };
    let out = match examine(arena, block) {
        Named::Run(size) => {
            // SAFETY: the run is live.
            unsafe { check_canary(arena, block, size) };
            block
        }
        Named::Block(place) => {
            if !arena.end_life(place) {
                misuse(arena.os, Misuse::DoubleFree, block as usize);
            }
            // SAFETY: the block was live until now, and is nobody else's.
            unsafe {
                check_canary(arena, block, place.size);
                words(block, place.size).fill(POISON);
            }
            let head = slot::get();
            if place.size <= QUARANTINED
                && !is_retired(head)
                && let Some(front) = front(head, config)
            {
                front.keep(block)
            } else {
                block
            }
        }
    };
    // SAFETY: a run of the caller's, or a free block that this thread alone has.
    unsafe { super::free(out, config) };
}

/// As [`super::free_sized`]; the size is compared with the block's.
///
/// # Safety
/// As for `free`.
pub unsafe fn free_sized(block: *mut u8, size: usize, config: &Config) {
    check_size(block, size.saturating_add(TAIL));
    // SAFETY: the caller's promise.
    unsafe { free(block, config) };
}

/// As [`super::resize`].
///
/// # Safety
/// As for `free`; `old` and `align` are the block's.
pub unsafe fn resize(
    block: *mut u8,
    old: usize,
    new: usize,
    align: usize,
    config: &Config,
) -> *mut u8 {
    let Some(arena) = existing_arena() else {
        misuse(Os::LINUX, Misuse::Foreign, block as usize);
    };
    let (was, is) = (old.saturating_add(TAIL), new.saturating_add(TAIL));
    let in_class = match examine(arena, block) {
        Named::Block(place) => {
            if !arena.is_live(place) {
                misuse(arena.os, Misuse::DoubleFree, block as usize);
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
    // SAFETY: the caller's promise; the new block has `new` bytes, and is another one.
    unsafe {
        if !in_class && class.is_none() {
            return begin(super::resize(block, was, is, align, config));
        }
        let moved = alloc_aligned(new, align, config);
        if !moved.is_null() {
            ptr::copy_nonoverlapping(block, moved, old.min(new));
            free(block, config);
        }
        moved
    }
}

impl Front {
    /// Takes a freed block into quarantine for another one, or for null.
    fn keep(&mut self, block: *mut u8) -> *mut u8 {
        let at = self.heap.random.below(KEPT);
        let out = core::mem::replace(&mut self.quarantine.0[at], block);
        self.check_kept(out);
        out
    }

    fn check_kept(&self, block: *mut u8) {
        if let Some(place) = self.arena().place(block as usize) {
            // SAFETY: from the quarantine: free, filled, and this thread's.
            unsafe { check_poison(self.arena(), block, place.size) };
        }
    }

    /// Returns what is in quarantine to the spans.
    pub(super) fn release_quarantine(&mut self) {
        for at in 0..KEPT {
            let out = core::mem::replace(&mut self.quarantine.0[at], ptr::null_mut());
            if !out.is_null() {
                self.check_kept(out);
                self.heap.give(&[out]);
            }
        }
    }
}
