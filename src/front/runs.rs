//! Runs: allocations of more than a class holds, which go to the arena past the magazines.
#![allow(unsafe_code)] // Takes steps of the thread cache.

use super::cache::ThreadCache;
use super::handle::Handle;
use super::life::share;
use super::limits;
use super::setup::{Setup, arena};
use crate::contract::Act;
use crate::geometry::NodeIndex;
use crate::messages::{Misuse, misuse};
use crate::pool::Arena;
use crate::pool::RunPart;
use crate::stats::events::EventKind;
use core::ptr;

/// Bytes of addresses that the machine gives a process: what is larger can never be served.
const ADDRESSES: usize = 1 << 47;

/// Whether no process can have a run of this size and alignment. Such a request fails without a
/// message: it says nothing about the memory that is left.
pub fn is_absurd(bytes: usize, align: usize) -> bool {
    bytes > ADDRESSES || align > ADDRESSES || bytes + align > ADDRESSES
}

/// A run of at least `bytes` at a multiple of `align`, and whether it reads zero. Null if there is
/// no memory.
#[cold]
#[inline(never)]
pub fn alloc_run(bytes: usize, align: usize, setup: &Setup) -> (*mut u8, bool) {
    if is_absurd(bytes, align) {
        return (ptr::null_mut(), false);
    }
    let alloc = |cache: &mut ThreadCache| cache.alloc_run(bytes, align);
    // SAFETY: the step calls only the heap and the arena.
    let run = unsafe {
        match Handle::mine(setup) {
            Some(cache) => {
                cache.note_act(Act::Allocate(bytes));
                cache.step(alloc)
            }
            None => arena(setup).and_then(|arena| share(arena, alloc)),
        }
    };
    let (block, zero) = run.unwrap_or((ptr::null_mut(), false));
    (limits::leave(block, bytes), zero)
}

/// A block of whole pages that the program may protect, advise and drop one by one: where the heap
/// takes hugetlb pages, which allow no such thing, a mapping of its own. Null if there is none.
#[cold]
pub fn alloc_protectable(bytes: usize, align: usize, setup: &Setup) -> *mut u8 {
    let mapping = arena(setup).and_then(|arena| {
        let policy = arena.policy();
        let wanted = policy.config().pages.takes_hugetlb() && !policy.is_plain();
        let node = || arena.affinity().current_node().unwrap_or(NodeIndex(0));
        (wanted && !is_absurd(bytes, align))
            .then(|| arena.runs().acquire_outside(node(), bytes, align))
            .flatten()
    });
    if mapping.is_some()
        && let Some(cache) = Handle::mine(setup)
    {
        cache.note_act(Act::Allocate(bytes));
        // SAFETY: the step writes a counter.
        unsafe { cache.step(|cache| cache.heap.counters.runs_allocated.add(1)) };
    }
    mapping.map_or(ptr::null_mut(), |block| limits::leave(block, bytes))
}

/// Frees the run that starts at `block`, or ends the process if none does.
///
/// # Safety
/// The address lies in the run's slot, and nobody uses the run any more. The handle is of this
/// thread's cache.
pub unsafe fn free_run(arena: &Arena, run: RunPart, block: *mut u8, cache: Option<Handle>) {
    // SAFETY: the step reads a field.
    let tracer = cache.map(|cache| unsafe { cache.step(|cache| cache.heap.tracer) });
    let begin = tracer.map_or(0, |tracer| tracer.begin());
    match run.first.filter(|_| run.at_start) {
        None => misuse(arena.os(), Misuse::NotABlock, block as usize),
        Some(slot) => {
            // SAFETY: the tables say that a run starts there, and it is nobody's any more, as
            // this function's Safety section has it.
            if !unsafe { arena.runs().release(slot) } {
                misuse(arena.os(), Misuse::DoubleFree, block as usize);
            }
        }
    }
    if let Some(cache) = cache {
        // SAFETY: the step writes a counter and an event.
        unsafe {
            cache.step(|cache| {
                cache.heap.counters.runs_freed.add(1);
                let tracer = cache.heap.tracer;
                tracer.note(begin, EventKind::FreeRun, 0, 0, block as u64);
            });
        }
    }
}

/// Counts a run outside of the range that this thread freed.
pub fn count_freed(cache: Option<Handle>) {
    if let Some(cache) = cache {
        // SAFETY: the step writes a counter.
        unsafe { cache.step(|cache| cache.heap.counters.runs_freed.add(1)) };
    }
}

impl ThreadCache {
    fn alloc_run(&mut self, bytes: usize, align: usize) -> Option<(*mut u8, bool)> {
        self.follow();
        self.heap.note_batch();
        let tracer = self.heap.tracer;
        let begin = tracer.begin();
        let (arena, node) = (self.arena(), self.node());
        let run = arena.runs().acquire(node, bytes, align).or_else(|| {
            // What the thread keeps for its classes may be what is missing.
            self.flush();
            self.heap.collect();
            arena.runs().acquire(node, bytes, align)
        })?;
        self.heap.counters.runs_allocated.add(1);
        tracer.note(begin, EventKind::Run, 0, 0, bytes as u64);
        Some(run)
    }
}
