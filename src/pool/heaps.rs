//! The memory of heaps: given to threads, kept when they end, never unmapped. A purge empties what no thread has.

use super::Arena;
use crate::sync::{AtomicU32, Ordering};

/// Ids of heaps: how many were ever made, and the ones that wait for a new thread (linked through `heap_links`).
#[derive(Debug, Default)]
pub struct HeapIds {
    pub made: u32,
    /// Id plus one of the latest retired heap, or zero.
    pub idle: u32,
    /// The same of those whose memory was given back.
    pub blank: u32,
}

/// A heap id that a thread got.
#[derive(Clone, Copy, Debug)]
pub struct HeapSlot {
    /// From 0.
    pub index: usize,
    /// Its memory, as many bytes as [`Arena::create`] was told: zero if blank, as it was left if not.
    pub memory: *mut u8,
    /// Whether it was never used, or its memory was given back.
    pub blank: bool,
}

impl Arena {
    /// An idle heap, or a new one; `None` if there are as many as the metadata has room for, or no memory.
    pub fn acquire_heap(&self) -> Option<HeapSlot> {
        let mut ids = self.heaps.lock();
        let HeapIds { idle, blank, .. } = &mut *ids;
        for (list, blank) in [(idle, false), (blank, true)] {
            // One whose memory was given back would fault, and may need a system call.
            if blank && self.is_sealed() {
                break;
            }
            if let Some(index) = self.pop_heap(list) {
                let memory = self.heap_at(index);
                return Some(HeapSlot {
                    index,
                    memory,
                    blank,
                });
            }
        }
        let index = ids.made as usize;
        if index == self.max_heaps || self.refuses() {
            return None;
        }
        let memory = self.heap_at(index);
        // SAFETY: the heap's place is part of the metadata reservation.
        unsafe { self.os.commit(memory as usize, self.heap_bytes) }.ok()?;
        self.lock_memory(memory as usize, self.heap_bytes);
        self.commit_heap_board(index).ok()?;
        ids.made += 1;
        self.header().heap_made(ids.made);
        Some(HeapSlot {
            index,
            memory,
            blank: true,
        })
    }

    /// Keeps a heap for a later thread.
    pub fn release_heap(&self, index: usize) {
        self.push_heap(&mut self.heaps.lock().idle, index);
    }

    /// Gives the memory of the heaps that no thread has back to the system, one at a time, as threads that start wait
    /// meanwhile.
    pub fn purge_heaps(&self) {
        while !self.refuses() {
            let mut ids = self.heaps.lock();
            let Some(index) = self.pop_heap(&mut ids.idle) else {
                return;
            };
            // SAFETY: committed, and nobody's: the heap is retired, and on no list now.
            let purged = unsafe { self.os.purge(self.heap_at(index) as usize, self.heap_bytes) };
            if purged.is_err() {
                return self.push_heap(&mut ids.idle, index);
            }
            self.push_heap(&mut ids.blank, index);
        }
    }

    fn push_heap(&self, list: &mut u32, index: usize) {
        self.heap_link(index).store(*list, Ordering::Relaxed);
        *list = index as u32 + 1;
    }

    fn pop_heap(&self, list: &mut u32) -> Option<usize> {
        let index = list.checked_sub(1)? as usize;
        *list = self.heap_link(index).load(Ordering::Relaxed);
        Some(index)
    }

    /// Number of heaps that were ever made; their memory stays valid.
    pub fn heaps_made(&self) -> usize {
        self.heaps.lock().made as usize
    }

    /// The memory of heap `index`.
    pub fn heap_at(&self, index: usize) -> *mut u8 {
        (self.heap_memory + index * self.heap_bytes) as *mut u8
    }

    fn heap_link(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the table has a link for each possible heap.
        unsafe { &*self.heap_links.add(index) }
    }
}
