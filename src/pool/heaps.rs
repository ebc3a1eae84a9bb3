//! The memory of heaps: given to threads, kept when they end, never unmapped. A purge empties what
//! no thread has. Heap 0 is no thread's: those that can have none share it, under a lock.
//!
//! A heap's memory is accessible in its first part alone until its thread needs more.
#![allow(unsafe_code)] // Commits and purges the memory of heaps.

use super::ground::Ground;
use super::heap_lock::{HeapLock, Steps};
use super::metadata::column::Column;
use super::scan::TakeIdle;
use super::spans::stash::Stash;
use crate::sync::{AtomicU32, Ordering};
use theap_platform::{Cpu, Error, Guard, Mutex, PAGE, Rank};

/// Tries after which a thread goes on without the nursery: some µs.
#[cfg(feature = "magazines")]
const NURSERY_TRIES: usize = 1 << 7;
/// The least and the most nurseries: a few are there for threads that find their CPU's taken, and
/// CPUs beyond the most share those of others.
pub const NURSERIES: (usize, usize) = (8, 64);

/// The bit of a heap's link that says that all of its memory is accessible.
const WHOLE: u32 = 1 << 31;
/// Entries whose memory is opened together.
const ENTRIES_AT_ONCE: usize = PAGE / size_of::<HeapEntry>();

/// The memory of a heap, in bytes of whole pages, and what is to be done with it.
#[derive(Clone, Copy, Debug)]
pub struct HeapBytes {
    /// Bytes that are accessible from the start.
    pub first: usize,
    /// All bytes.
    pub whole: usize,
    /// Takes what is idle out of a heap with this memory.
    pub take_idle: TakeIdle,
}

/// The entry of a heap, on a cache line of its own, as its thread writes to it at each step.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct HeapEntry {
    /// The lock on the heap.
    lock: HeapLock,
    /// The next one in a list of ids, guarded by their lock, and the bit [`WHOLE`], which belongs
    /// to the heap's thread.
    link: AtomicU32,
    /// What reclaimers know of the heap, guarded by their lock: its steps when one of them looked,
    /// the time since when these are as many, in ms, and the steps after which there was nothing
    /// for growth.
    seen: AtomicU32,
    since: AtomicU32,
    nothing: AtomicU32,
}

impl HeapEntry {
    /// The lock on the heap.
    pub fn lock(&self) -> &HeapLock {
        &self.lock
    }

    /// For a reclaimer: the steps of the heap's thread if it has made none for `rest` ms.
    pub fn rested(&self, now: u32, rest: u32) -> Option<Steps> {
        let steps = self.lock.steps()?;
        if self.seen.load(Ordering::Relaxed) != steps.0 {
            self.seen.store(steps.0, Ordering::Relaxed);
            self.since.store(now, Ordering::Relaxed);
        }
        (self.rest(now) >= rest).then_some(steps)
    }

    /// For a reclaimer: the ms since it was seen first that the thread rests, or since the heap was
    /// looked through.
    pub fn rest(&self, now: u32) -> u32 {
        now.wrapping_sub(self.since.load(Ordering::Relaxed))
    }

    /// For a reclaimer: the steps of the heap's thread if it has made none since the last look.
    pub fn still_rests(&self) -> Option<Steps> {
        let seen = self.seen.load(Ordering::Relaxed);
        self.lock.steps().filter(|steps| steps.0 == seen)
    }

    /// For a reclaimer that looks for slots: the steps of the heap's thread if it has made none for
    /// `rest` ms, unless there was nothing to take at the last look and it has made none since.
    pub fn rests_briefly(&self, now: u32, rest: u32) -> Option<Steps> {
        let steps = self.rested(now, rest)?;
        (self.nothing.load(Ordering::Relaxed) != steps.0).then_some(steps)
    }

    /// For a reclaimer that looks for slots: notes that the heap has none to give.
    pub fn has_nothing(&self, Steps(steps): Steps) {
        self.nothing.store(steps, Ordering::Relaxed);
    }

    /// For a reclaimer: notes that it has looked through the heap. It will do so again when the
    /// thread has rested for as long once more, as blocks come home meanwhile.
    pub fn looked_through(&self, now: u32) {
        self.since.store(now, Ordering::Relaxed);
    }
}

/// What a CPU has for the threads that run there.
#[repr(align(64))]
pub struct Nursery {
    /// The lock on the nursery, and the number of its heap, or zero as long as there is none.
    heap: Mutex<u32>,
    /// The heaps that threads have left there, with what these hold.
    left: Stash,
}

impl Nursery {
    /// A nursery without a heap.
    pub fn new() -> Self {
        Self {
            heap: Mutex::new(Rank::Shared, 0),
            left: Stash::new(),
        }
    }
}

/// The ids of heaps: the number ever made, and those that wait for a new thread (linked through
/// `links`).
#[derive(Debug, Default)]
struct HeapIds {
    made: u32,
    /// Entries that are accessible.
    entries: u32,
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
    /// An entry for each possible heap but heap 0, which may be used before there are any.
    entries: Column<'static, HeapEntry>,
    shared_lock: HeapLock,
    /// The number of heaps that were ever made, for who must not wait.
    made: AtomicU32,
    memory: usize,
    bytes: HeapBytes,
}

impl Heaps {
    /// The heaps of an arena in which no thread has one yet; there can be as many as there are
    /// entries.
    ///
    /// # Safety
    /// `shared` is the memory of heap 0, zero and accessible in its first part. `memory` is a range
    /// with room for a heap for each entry that is the heap's as long as the arena lives, not open
    /// yet, and that nobody else uses. The entries are not open yet either.
    pub unsafe fn new(
        ground: Ground,
        entries: Column<'static, HeapEntry>,
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
            entries,
            shared_lock: HeapLock::default(),
            made: AtomicU32::new(1),
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
        if index == self.entries.len() || policy.refuses() {
            return None;
        }
        self.commit(&mut ids.entries, index).ok()?;
        ids.made += 1;
        self.made.store(ids.made, Ordering::Release);
        self.ground.figures.header().heap_made(ids.made);
        Some(HeapSlot {
            index,
            memory: self.at(index),
            blank: true,
        })
    }

    /// Makes the first part of a heap's memory accessible, and its entry.
    fn commit(&self, entries: &mut u32, index: usize) -> Result<(), Error> {
        let (policy, memory) = (self.ground.policy, self.at(index) as usize);
        // SAFETY: the heap's places in the ranges that `new` was given; `entries` are open.
        unsafe {
            if index >= *entries as usize {
                let page = core::ptr::from_ref(self.entries.at(*entries as usize)).addr();
                policy.open(page, PAGE)?;
                *entries += ENTRIES_AT_ONCE as u32;
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
        let HeapBytes { first, whole, .. } = self.bytes;
        if whole == first {
            return Ok(());
        }
        let policy = self.ground.policy;
        if index == 0 {
            return Err(Error::NoMemory);
        }
        let link = &self.entries.at(index).link;
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

    /// Leaves a heap to the next thread on this CPU, which finds what the heap holds in the CPU's
    /// caches, and takes no lock. False if there are as many already: the heap is the caller's
    /// still.
    pub fn leave(&self, index: usize) -> bool {
        let cpu = self.ground.affinity.current_cpu();
        self.of_cpu(cpu, 0).left.put_number(index as u32)
    }

    /// Takes a heap that a thread has left on this CPU.
    pub fn take_left(&self) -> Option<usize> {
        let cpu = self.ground.affinity.current_cpu();
        let index = self.of_cpu(cpu, 0).left.take_number()?;
        Some(index as usize)
    }

    /// Takes a heap that a thread has left on any CPU.
    pub fn take_left_anywhere(&self) -> Option<usize> {
        let index = (self.nurseries.iter()).find_map(|nursery| nursery.left.take_number())?;
        Some(index as usize)
    }

    /// What the CPU that is `away` places from this one has.
    fn of_cpu(&self, cpu: Cpu, away: usize) -> &'static Nursery {
        &self.nurseries[(cpu.0 as usize + away) % self.nurseries.len()]
    }

    /// Keeps a heap that holds nothing for a later thread.
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
        let link = &self.entries.at(index).link;
        let whole = link.load(Ordering::Relaxed) & WHOLE;
        link.store(*list | whole, Ordering::Relaxed);
        *list = index as u32 + 1;
    }

    fn pop(&self, list: &mut u32) -> Option<usize> {
        let index = list.checked_sub(1)? as usize;
        *list = self.entries.at(index).link.load(Ordering::Relaxed) & !WHOLE;
        Some(index)
    }

    /// The bytes of a heap's memory that are accessible. For its thread.
    pub fn accessible(&self, index: usize) -> usize {
        let is_whole =
            index > 0 && self.entries.at(index).link.load(Ordering::Relaxed) & WHOLE != 0;
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
        heaps + ids.entries as usize * size_of::<HeapEntry>()
    }

    /// The number of heaps that were ever made, without waiting; it may be behind.
    pub fn made_before(&self) -> usize {
        self.made.load(Ordering::Acquire) as usize
    }

    /// The entry of a heap that was made, but for heap 0.
    pub fn entry(&self, index: usize) -> &'static HeapEntry {
        self.entries.at(index)
    }

    /// The lock on a heap that was made.
    pub fn lock_of(&'static self, index: usize) -> &'static HeapLock {
        match index {
            0 => &self.shared_lock,
            _ => self.entry(index).lock(),
        }
    }

    /// The function that takes what is idle out of a heap.
    pub fn take_idle(&self) -> TakeIdle {
        self.bytes.take_idle
    }

    /// In a forked child: what other threads have left in their heaps stays there. `own` is the
    /// heap of the one thread.
    ///
    /// # Safety
    /// This thread holds the locks that `lock` takes.
    pub unsafe fn forget_others(&self, own: Option<usize>) {
        // SAFETY: this function's own Safety section.
        let (made, is_nursery) = unsafe {
            let is_nursery = |index: usize| {
                (self.nurseries.iter()).any(|nursery| *nursery.heap.held() as usize == index)
            };
            (self.made_locked(), is_nursery)
        };
        let others = (1..made as usize).filter(|&index| own != Some(index) && !is_nursery(index));
        others.for_each(|index| self.entry(index).lock.close_for_ever());
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
        self.of_cpu(cpu, away)
            .heap
            .try_lock_often(if away == 0 { NURSERY_TRIES } else { 1 })
    }

    /// Calls `each` with the number of each nursery's heap, under the nursery's lock.
    #[cfg(feature = "magazines")]
    pub fn each_nursery(&self, mut each: impl FnMut(usize)) {
        for nursery in self.nurseries {
            let index = nursery.heap.lock();
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
            nursery.heap.lock_for_fork();
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
                nursery.heap.force_unlock();
            }
            self.shared.force_unlock();
        }
    }
}
