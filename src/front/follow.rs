//! A thread that moves to another NUMA node, by `sched_setaffinity` or the scheduler's choice,
//! takes its memory there.
//!
//! A miss that takes memory compares the node of the CPU with the node of the thread's cache. A
//! thread that was found elsewhere [`PATIENCE`] times in a row has moved: its magazines are
//! flushed, its spans go to the pool, and the new node's part of the range becomes the home part. A
//! thread that bounces faster than that stays where it was, and pays for remote memory instead of a
//! flush at every refill. The blocks that it allocated before stay where they are, and go to their
//! own node when they are freed.

use super::cache::ThreadCache;
use super::life::SHARED;

/// Misses in a row.
pub const PATIENCE: u32 = 16;

impl ThreadCache {
    /// Moves the cache to the node of its thread if the thread has moved. To be called before
    /// memory is taken, with all magazines in order. The shared cache has no thread, and stays.
    #[inline]
    pub fn follow(&mut self) {
        if self.arena().addresses().node_count() > 1 && self.index != SHARED {
            self.compare_nodes();
        }
    }

    fn compare_nodes(&mut self) {
        match self.arena().affinity().current_node() {
            Some(here) if here != self.node() => {
                self.away += 1;
                if self.away >= PATIENCE {
                    self.flush();
                    self.heap.retire();
                    self.settle_on(here);
                    self.heap.counters.node_moves.add(1);
                }
            }
            _ => self.away = 0,
        }
    }
}
