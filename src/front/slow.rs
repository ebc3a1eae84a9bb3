//! Behind the fast path: what a miss of either front comes to, runs, and everything odd.

use super::thread::{Front, existing_arena, front, is_retired};
use super::{Head, free};
use crate::classes::{self, CLASS_COUNT, CLASSES};
use crate::config::Config;
use crate::fatal::{Misuse, misuse};
use crate::heap::give_without_heap;
use crate::pool::{Arena, SLOT, SUPER, kind};
use crate::stats::events::EventKind;
use core::ptr;
use core::sync::atomic::Ordering;
use theap_platform::Os;

/// From this size on a zeroed block is taken from memory that reads zero already where there is such, as clearing
/// costs more than the way to the span.
const TAKE_FRESH: u32 = 32 << 10;

/// A block of the class when its magazine has none.
#[cold]
#[inline(never)]
pub fn alloc_class(head: *mut Head, class: usize, config: &Config) -> *mut u8 {
    match front(head, config) {
        Some(front) => front.alloc_class(class),
        None => ptr::null_mut(),
    }
}

/// A run of at least `bytes` at a multiple of `align`, and whether it reads zero. Null if there is no memory.
#[cold]
#[inline(never)]
pub fn alloc_run(bytes: usize, align: usize, config: &Config) -> (*mut u8, bool) {
    if bytes > isize::MAX as usize {
        return (ptr::null_mut(), false);
    }
    let Some(front) = front(super::slot::get(), config) else {
        return (ptr::null_mut(), false);
    };
    front.follow();
    let begin = front.heap.tracer.begin();
    let acquire = |front: &Front| front.arena().acquire_run(front.node(), bytes, align);
    let run = acquire(front).or_else(|| {
        // What the heap keeps for its classes may be what is missing.
        front.heap.collect();
        acquire(front)
    });
    match run {
        Some(run) => {
            front.heap.counters.runs_allocated.add(1);
            let tracer = front.heap.tracer;
            tracer.note(begin, EventKind::Run, 0, 0, bytes as u64);
            run
        }
        None => (ptr::null_mut(), false),
    }
}

/// As `alloc_aligned`, zeroed.
pub fn alloc_zeroed(size: usize, align: usize, config: &Config) -> *mut u8 {
    let Some(class) = classes::class_for(size, align) else {
        let (block, zero) = alloc_run(size, align, config);
        if !block.is_null() && !zero {
            // SAFETY: a new run of at least `size` bytes.
            unsafe { theap_arch::clear(block, size) };
        }
        return block;
    };
    if CLASSES[class].size >= TAKE_FRESH
        && let Some(block) = take_fresh(class, config)
    {
        return block;
    }
    let block = super::pop_or(class, config);
    if !block.is_null() {
        // SAFETY: a new block of at least `size` bytes.
        unsafe { theap_arch::clear(block, size) };
    }
    block
}

/// A block that reads zero; `None` if warm blocks are at hand or no span has one.
fn take_fresh(class: usize, config: &Config) -> Option<*mut u8> {
    let front = front(super::slot::get(), config)?;
    if front.has_cached(class) {
        return None;
    }
    front.follow();
    front.heap.take_fresh(class)
}

/// Frees what the fast path could not.
///
/// # Safety
/// As for `free`.
#[cold]
#[inline(never)]
pub unsafe fn free_slow(head: *mut Head, block: *mut u8, config: &Config) {
    if block.is_null() {
        return;
    }
    let front = if is_retired(head) {
        None
    } else {
        front(head, config)
    };
    let Some(arena) = front.as_ref().map(|f| f.arena()).or_else(existing_arena) else {
        misuse(Os::LINUX, Misuse::Foreign, block as usize);
    };
    if !arena.contains(block as usize) {
        misuse(arena.os, Misuse::Foreign, block as usize);
    }
    match arena
        .kind(arena.slot_of(block as usize))
        .load(Ordering::Relaxed)
    {
        kind::FREE => misuse(arena.os, Misuse::NotABlock, block as usize),
        kind::LARGE | kind::HUGE => {
            let tracer = front.as_ref().map(|front| front.heap.tracer);
            let begin = tracer.map_or(0, |tracer| tracer.begin());
            free_run(arena, block);
            if let Some(front) = front {
                front.heap.counters.runs_freed.add(1);
                let tracer = front.heap.tracer;
                tracer.note(begin, EventKind::FreeRun, 0, 0, block as u64);
            }
        }
        what => match front {
            Some(front) => front.free_class(usize::from(what - kind::FIRST), block),
            None => give_without_heap(arena, block),
        },
    }
}

/// Ends the process if no block of `size` bytes is at the address, but for one that the free itself finds wrong.
#[cfg(any(debug_assertions, feature = "hardened"))]
pub fn check_size(block: *mut u8, size: usize) {
    let address = block as usize;
    let Some(arena) = existing_arena().filter(|arena| arena.contains(address)) else {
        return;
    };
    let fits = match arena.kind(arena.slot_of(address)).load(Ordering::Relaxed) {
        kind::FREE => true,
        kind::LARGE | kind::HUGE => arena
            .run_at(address)
            .is_none_or(|(_, len)| len == size.div_ceil(SLOT)),
        what => classes::class_for(size, 1) == Some(usize::from(what - kind::FIRST)),
    };
    if !fits {
        misuse(arena.os, Misuse::WrongSize, address);
    }
}

/// Bytes that the user of a block may use; 0 for what is no block of the heap, as far as that is known.
pub fn usable_size(block: *const u8) -> usize {
    whole_size(block).saturating_sub(super::TAIL)
}

/// As `usable_size`, with the tail.
pub fn whole_size(block: *const u8) -> usize {
    let address = block as usize;
    let Some(arena) = existing_arena().filter(|arena| arena.contains(address)) else {
        return 0;
    };
    let slot = arena.slot_of(address);
    match arena.kind(slot).load(Ordering::Relaxed) {
        kind::FREE => 0,
        kind::LARGE | kind::HUGE => arena.run_at(address).map_or(0, |(_, len)| len * SLOT),
        what => {
            let class = &classes::CLASSES[usize::from(what - kind::FIRST)];
            let first = slot - usize::from(arena.head(slot).load(Ordering::Relaxed));
            class
                .index_of(address - arena.address_of(first))
                .map_or(0, |_| class.size as usize)
        }
    }
}

fn free_run(arena: &Arena, block: *mut u8) {
    match arena.run_at(block as usize) {
        None => misuse(arena.os, Misuse::NotABlock, block as usize),
        Some((slot, _)) => {
            if !arena.release_run(slot) {
                misuse(arena.os, Misuse::DoubleFree, block as usize);
            }
        }
    }
}

impl Front {
    pub(super) fn alloc_class(&mut self, class: usize) -> *mut u8 {
        self.heed_gate();
        // SAFETY: this thread's magazine. A thread that had no front may have got one with blocks in it.
        let block = unsafe { theap_arch::pop(self.magazine(class)) };
        if !block.is_null() {
            return block;
        }
        #[cfg(feature = "theap")]
        if self.has_magazine(class) {
            return self.refill_magazine(class);
        }
        self.refill_fast_cache(class)
    }

    /// Fills the class's empty array with up to `from_list` blocks of the list, or if it has none with up to
    /// `from_spans` of the spans, and pops the first. The array has as many places.
    pub(super) fn fill(&mut self, class: usize, from_list: usize, from_spans: usize) -> *mut u8 {
        let base = self.bases[class];
        // SAFETY: the array is empty and has that many places; the blocks end up at its bottom.
        unsafe {
            let mut got = self.unlist(class, base, from_list);
            if got == 0 {
                self.follow();
                got = self.heap.take(class, base.add(from_spans), from_spans);
                if got == 0 {
                    return ptr::null_mut();
                }
                if got < from_spans {
                    ptr::copy(base.add(from_spans - got), base, got);
                }
                #[cfg(feature = "hardened")]
                self.heap
                    .random
                    .shuffle(core::slice::from_raw_parts_mut(base, got));
            }
            self.magazine(class).top = base.add(got);
            self.wipe(class);
            theap_arch::pop(self.magazine(class))
        }
    }

    fn has_cached(&mut self, class: usize) -> bool {
        self.magazine(class).top != self.bases[class] || !self.lists[class].is_empty()
    }

    /// Takes a block whose magazine is full or that is no magazine's.
    pub(super) fn free_class(&mut self, class: usize, block: *mut u8) {
        self.heed_gate();
        let (home, len) = self.arena().part(self.node());
        if (block as usize).wrapping_sub(home) < len && self.make_room(class) {
            // SAFETY: this thread's magazine.
            unsafe { theap_arch::push(self.magazine(class), block) };
        } else {
            self.heap.give(&[block]);
        }
    }

    /// Sees to it that the class's array takes another block; false if the block must go to its span.
    fn make_room(&mut self, class: usize) -> bool {
        let magazine = self.magazine(class);
        if magazine.top != magazine.limit {
            return true;
        }
        #[cfg(feature = "theap")]
        if self.has_magazine(class) {
            #[cfg(feature = "drain")]
            self.drain_magazine(class);
            return cfg!(feature = "drain");
        }
        self.spill(class);
        true
    }

    /// Switches classes to the other front if the gate says so.
    #[inline]
    fn heed_gate(&mut self) {
        #[cfg(feature = "theap")]
        {
            let served = self.arena().gate.served();
            if served != self.served {
                self.switch(served);
            }
        }
    }

    /// Returns all blocks of all magazines, FastCaches and lists.
    pub fn flush(&mut self) {
        #[cfg(feature = "hardened")]
        self.release_quarantine();
        #[cfg(feature = "valgrind")]
        self.release_kept();
        for class in 0..CLASS_COUNT {
            self.flush_array(class);
            self.flush_list(class);
        }
    }

    /// Returns all blocks of the class's magazine or FastCache.
    pub(super) fn flush_array(&mut self, class: usize) {
        let base = self.bases[class];
        // SAFETY: the array's pointers lie from its base to its top, and this thread alone uses them.
        unsafe {
            let held = self.magazine(class).top.offset_from(base) as usize;
            if held > 0 {
                self.heap.give(core::slice::from_raw_parts(base, held));
                self.magazine(class).top = base;
                self.wipe(class);
            }
        }
    }
}

/// Returns all blocks and wholly free spans that this thread keeps at hand.
pub fn release_cached(front: &mut Front) {
    front.heed_gate();
    front.flush();
    #[cfg(all(feature = "theap", feature = "drain"))]
    front.unlearn_all();
    front.heap.collect();
}

/// Changes the size of a block that was allocated with `old` bytes and this alignment. Null if there is no memory;
/// the old block then stays.
///
/// # Safety
/// `block` is a live block of the heap, allocated with `old` and `align`.
pub unsafe fn resize(
    block: *mut u8,
    old: usize,
    new: usize,
    align: usize,
    config: &Config,
) -> *mut u8 {
    match (
        classes::class_for(old, align),
        classes::class_for(new, align),
    ) {
        (Some(was), Some(is)) if was == is => return block,
        (None, None) => {
            // SAFETY: the caller's promise; both sizes are runs'.
            if let Some(moved) = unsafe { resize_run(block, new, align, config) } {
                return moved;
            }
        }
        _ => {}
    }
    let moved = super::alloc_aligned(new, align, config);
    if !moved.is_null() {
        // SAFETY: two different live blocks of at least these sizes.
        unsafe {
            ptr::copy_nonoverlapping(block, moved, old.min(new));
            free(block, config);
        }
    }
    moved
}

/// Changes a run in place, or moves its pages; `None` if it must be copied (or there is no memory).
///
/// # Safety
/// As for `resize`.
unsafe fn resize_run(block: *mut u8, new: usize, align: usize, config: &Config) -> Option<*mut u8> {
    let front = front(super::slot::get(), config)?;
    let arena = front.arena();
    if new > isize::MAX as usize {
        return Some(ptr::null_mut());
    }
    let (slot, len) = arena.run_at(block as usize)?;
    let old = len * SLOT;
    if arena.resize_run(slot, new) {
        front.heap.counters.run_bytes_kept.add(old.min(new) as u64);
        return Some(block);
    }
    if old < 2 * SUPER || !(block as usize).is_multiple_of(SUPER) {
        return None;
    }
    let (moved, _) = alloc_run(new, align.max(SUPER), config);
    if moved.is_null() {
        return Some(ptr::null_mut());
    }
    // A run grows here (a smaller one is cut in place), so the old contents fit.
    let whole = old / SUPER * SUPER;
    // SAFETY: two different runs of the caller's, each at a SuperSlab's start, of at least `old` bytes.
    unsafe {
        if arena
            .move_supers(block as usize, moved as usize, whole)
            .is_err()
        {
            return Some(ptr::null_mut());
        }
        ptr::copy_nonoverlapping(block.add(whole), moved.add(whole), old - whole);
        free(block, config);
    }
    front.heap.counters.run_bytes_kept.add(whole as u64);
    Some(moved)
}
