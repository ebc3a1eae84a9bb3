//! The memory of heaps: given to threads, kept when they end, never unmapped.

use super::Arena;
use crate::sync::{AtomicU32, Ordering};

/// Ids of heaps: how many were ever made, and the ones that wait for a new thread (linked through `heap_links`).
#[derive(Debug)]
pub struct HeapIds {
    pub made: u32,
    /// Id plus one of the latest retired heap, or zero.
    pub idle: u32,
}

/// A heap id that a thread got.
#[derive(Clone, Copy, Debug)]
pub struct HeapSlot {
    /// From 0.
    pub index: usize,
    /// Its memory, as many bytes as [`Arena::create`] was told: zero if new, as it was left if not.
    pub memory: *mut u8,
    /// Whether it was never used.
    pub new: bool,
}

impl Arena {
    /// An idle heap, or a new one; `None` if there are as many as the metadata has room for, or no memory.
    pub fn acquire_heap(&self) -> Option<HeapSlot> {
        let mut ids = self.heaps.lock();
        if ids.idle != 0 {
            let index = ids.idle as usize - 1;
            ids.idle = self.heap_link(index).load(Ordering::Relaxed);
            return Some(HeapSlot {
                index,
                memory: self.heap_at(index),
                new: false,
            });
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
            new: true,
        })
    }

    /// Keeps a heap for a later thread.
    pub fn release_heap(&self, index: usize) {
        let mut ids = self.heaps.lock();
        self.heap_link(index).store(ids.idle, Ordering::Relaxed);
        ids.idle = index as u32 + 1;
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
