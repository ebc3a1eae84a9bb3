//! The memory of heaps: given to threads, kept when they end, never unmapped. A purge empties what
//! no thread has. Heap 0 is no thread's: those that can have none share it, under a lock.
//!
//! A heap's memory is accessible in its first part alone until its thread needs more.
#![allow(unsafe_code)] // Commits and purges the memory of heaps.

use super::ground::Ground;
use super::metadata::column::Column;
use crate::sync::{AtomicU32, Ordering};
#[cfg(feature = "magazines")]
use theap_platform::Cpu;
use theap_platform::{Error, Guard, Mutex, PAGE, Rank};

/// Tries after which a thread goes on without the nursery: some µs.
#[cfg(feature = "magazines")]
const NURSERY_TRIES: usize = 1 << 7;
/// The least and the most nurseries: a few are there for threads that find their CPU's taken, and
/// CPUs beyond the most share those of others.
pub const NURSERIES: (usize, usize) = (8, 64);

/// The bit of a heap's link that says that all of its memory is accessible.
const WHOLE: u32 = 1 << 31;
/// Links whose memory is opened together.
const LINKS_AT_ONCE: usize = PAGE / size_of::<AtomicU32>();

/// Bytes of the memory of a heap, in whole pages.
#[derive(Clone, Copy, Debug)]
pub struct HeapBytes {
    /// Bytes that are accessible from the start.
    pub first: usize,
    /// All bytes.
    pub whole: usize,
}

/// The lock on a nursery, and the number of its heap, or zero as long as there is none.
#[repr(align(64))]
pub struct Nursery(Mutex<u32>);

impl Nursery {
    /// A nursery without a heap.
    pub const fn new() -> Self {
        Self(Mutex::new(Rank::Shared, 0))
    }
}

/// The ids of heaps: the number ever made, and those that wait for a new thread (linked through
/// `links`).
#[derive(Debug, Default)]
struct HeapIds {
    made: u32,
    /// Links that are accessible.
    links: u32,
    /// Id plus one of the latest retired heap, or zero.
    idle: u32,
    /// Id plus one of the latest retired heap whose memory was given back, or zero.
    blank: u32,
}

/// A heap id that a thread got.
#[derive(Clone, Copy, Debug)]
pub struct HeapSlot {
    /// The index of the heap, from 0.
    pub index: usize,
    /// The memory of the heap: zero if blank, as it was left if not.
    pub memory: *mut u8,
    /// The heap was never used, or its memory was given back.
    pub blank: bool,
}

/// The heaps of an arena.
pub struct Heaps {
    ground: Ground,
    ids: Mutex<HeapIds>,
    /// The lock on heap 0, and whether its owner has laid it out.
    shared: Mutex<bool>,
    shared_memory: usize,
    /// At least one.
    nurseries: &'static [Nursery],
    /// A link for each possible heap, guarded by the lock of `ids`, and the bit [`WHOLE`], which
    /// belongs to the heap's thread.
    links: Column<'static, AtomicU32>,
    memory: usize,
    bytes: HeapBytes,
}

impl Heaps {
    /// The heaps of an arena in which no thread has one yet; there can be as many as there are
    /// links.
    ///
    /// # Safety
    /// `shared` is the memory of heap 0, zero and accessible in its first part. `memory` is a range
    /// with room for a heap for each link that is the heap's as long as the arena lives, not open
    /// yet, and that nobody else uses. The links are not open yet either.
    pub unsafe fn new(
        ground: Ground,
        links: Column<'static, AtomicU32>,
        nurseries: &'static [Nursery],
        shared: usize,
        memory: usize,
        bytes: HeapBytes,
    ) -> Self {
        let ids = HeapIds {
            made: 1,
            ..HeapIds::default()
        };
        ground.figures.header().heap_made(ids.made);
        Self {
            ground,
            ids: Mutex::new(Rank::Heaps, ids),
            shared: Mutex::new(Rank::Shared, false),
            shared_memory: shared,
            nurseries,
            links,
            memory,
            bytes,
        }
    }

    /// An idle heap, or a new one; `None` if there are as many as the metadata has room for, or no
    /// memory.
    pub fn acquire(&self) -> Option<HeapSlot> {
        let policy = self.ground.policy;
        let mut ids = self.ids.lock();
        let HeapIds { idle, blank, .. } = &mut *ids;
        for (list, blank) in [(idle, false), (blank, true)] {
            // A heap whose memory was given back would cost page faults, and maybe a system call.
            if blank && policy.is_sealed() {
                break;
            }
            if let Some(index) = self.pop(list) {
                let memory = self.at(index);
                return Some(HeapSlot {
                    index,
                    memory,
                    blank,
                });
            }
        }
        let index = ids.made as usize;
        if index == self.links.len() || policy.refuses() {
            return None;
        }
        self.commit(&mut ids.links, index).ok()?;
        ids.made += 1;
        self.ground.figures.header().heap_made(ids.made);
        Some(HeapSlot {
            index,
            memory: self.at(index),
            blank: true,
        })
    }

    /// Makes the first part of a heap's memory accessible, and its link.
    fn commit(&self, links: &mut u32, index: usize) -> Result<(), Error> {
        let (policy, memory) = (self.ground.policy, self.at(index) as usize);
        // SAFETY: the heap's places in the ranges that `new` was given, of which `links` are open.
        unsafe {
            if index >= *links as usize {
                let page = core::ptr::from_ref(self.links.at(*links as usize)).addr();
                policy.open(page, PAGE)?;
                *links += LINKS_AT_ONCE as u32;
            }
            policy.open(memory, self.bytes.first)?;
            (self.ground.figures.commit_heap(index))
                .inspect_err(|_| policy.close(memory, self.bytes.first))
        }
    }

    /// Makes all of a heap's memory accessible. For its thread. Once it has succeeded it always
    /// does. Heap 0 keeps to its first part.
    ///
    /// # Errors
    /// The system's error, or out of memory while sealed.
    pub fn open_whole(&self, index: usize) -> Result<(), Error> {
        let HeapBytes { first, whole } = self.bytes;
        if whole == first {
            return Ok(());
        }
        let policy = self.ground.policy;
        if index == 0 {
            return Err(Error::NoMemory);
        }
        let link = self.links.at(index);
        if link.load(Ordering::Relaxed) & WHOLE != 0 {
            return Ok(());
        }
        // Not a refusal: the thread goes on with what it has.
        if policy.is_sealed() {
            return Err(Error::NoMemory);
        }
        // SAFETY: the rest of the heap's place, which nobody but its thread opens.
        unsafe { policy.open(self.at(index) as usize + first, whole - first)? };
        link.fetch_or(WHOLE, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps a heap for a later thread.
    pub fn release(&self, index: usize) {
        self.push(&mut self.ids.lock().idle, index);
    }

    /// Gives the memory of the heaps that no thread has back to the system, one at a time, as
    /// threads that start wait meanwhile.
    pub fn purge(&self) {
        let policy = self.ground.policy;
        while !policy.refuses() {
            let mut ids = self.ids.lock();
            let Some(index) = self.pop(&mut ids.idle) else {
                return;
            };
            let memory = self.at(index) as usize;
            // SAFETY: committed, and nobody's: the heap is retired, and on no list now.
            let purged = unsafe { policy.os().purge(memory, self.accessible(index)) };
            if purged.is_err() {
                return self.push(&mut ids.idle, index);
            }
            self.push(&mut ids.blank, index);
        }
    }

    fn push(&self, list: &mut u32, index: usize) {
        let link = self.links.at(index);
        let whole = link.load(Ordering::Relaxed) & WHOLE;
        link.store(*list | whole, Ordering::Relaxed);
        *list = index as u32 + 1;
    }

    fn pop(&self, list: &mut u32) -> Option<usize> {
        let index = list.checked_sub(1)? as usize;
        *list = self.links.at(index).load(Ordering::Relaxed) & !WHOLE;
        Some(index)
    }

    /// The bytes of a heap's memory that are accessible. For its thread.
    pub fn accessible(&self, index: usize) -> usize {
        let is_whole = index > 0 && self.links.at(index).load(Ordering::Relaxed) & WHOLE != 0;
        if is_whole {
            self.bytes.whole
        } else {
            self.bytes.first
        }
    }

    /// The number of heaps that were ever made; their memory stays valid.
    pub fn made(&self) -> usize {
        self.ids.lock().made as usize
    }

    /// The bytes of the memory of heaps that was opened since the start.
    #[cfg(any(test, debug_assertions))]
    pub fn opened(&self) -> usize {
        let ids = self.ids.lock();
        let heaps: usize = (1..ids.made as usize)
            .map(|index| self.accessible(index))
            .sum();
        heaps + ids.links as usize * size_of::<AtomicU32>()
    }

    /// The memory of a heap.
    pub fn at(&self, index: usize) -> *mut u8 {
        match index {
            0 => self.shared_memory as *mut u8,
            _ => (self.memory + index * self.bytes.whole) as *mut u8,
        }
    }

    /// Locks heap 0. The value says whether its memory was laid out; it is false at first.
    pub fn share(&self) -> Guard<'_, bool> {
        self.shared.lock()
    }

    /// Locks the nursery of a CPU, or one that is `away` places from it; `None` if another thread
    /// has it, in the CPU's own for long.
    #[cfg(feature = "magazines")]
    pub fn nursery(&self, cpu: Cpu, away: usize) -> Option<Guard<'_, u32>> {
        let nursery = &self.nurseries[(cpu.0 as usize + away) % self.nurseries.len()];
        nursery
            .0
            .try_lock_often(if away == 0 { NURSERY_TRIES } else { 1 })
    }

    /// Calls `each` with the number of each nursery's heap, under the nursery's lock.
    #[cfg(feature = "magazines")]
    pub fn each_nursery(&self, mut each: impl FnMut(usize)) {
        for nursery in self.nurseries {
            let index = nursery.0.lock();
            if *index != 0 {
                each(*index as usize);
            }
        }
    }

    /// The number of nurseries.
    #[cfg(test)]
    pub fn nurseries(&self) -> usize {
        self.nurseries.len()
    }

    /// The number of heaps that were ever made, for a thread that has called `lock`.
    ///
    /// # Safety
    /// This thread (or in a child, the thread that forked) called `lock` before, and not `unlock`
    /// since.
    pub unsafe fn made_locked(&self) -> u32 {
        // SAFETY: this thread holds the lock, as this function's Safety section asks.
        unsafe { self.ids.held().made }
    }

    /// Takes the locks on heap 0, on the nurseries and on heap ids, before fork.
    pub fn lock(&self) {
        self.shared.lock_for_fork();
        for nursery in self.nurseries {
            nursery.0.lock_for_fork();
        }
        core::mem::forget(self.ids.lock());
    }

    /// Frees the lock that `lock` took, in the parent or in the child.
    ///
    /// # Safety
    /// This thread (or in a child, the thread that forked) called `lock` before.
    pub unsafe fn unlock(&self) {
        // SAFETY: this thread holds the lock, as this function's Safety section asks.
        unsafe {
            self.ids.force_unlock();
            for nursery in self.nurseries {
                nursery.0.force_unlock();
            }
            self.shared.force_unlock();
        }
    }
}
