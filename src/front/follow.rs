//! A thread that moves to another NUMA node, by `sched_setaffinity` or the scheduler's choice, takes its memory there.
//!
//! Slow paths that take memory compare the node of the CPU with the front's. A thread that was found elsewhere
//! [`PATIENCE`] times in a row has moved: its magazines are flushed, its spans go to the pool, and the new node's part
//! of the range becomes home. One that bounces faster than that stays where it was, and pays for remote memory instead
//! of a flush at every refill. What it allocated before stays where it is, and goes home when it is freed.

use super::thread::Front;

/// Slow paths in a row.
pub(super) const PATIENCE: u32 = 16;

impl Front {
    /// To be called before memory is taken, with all magazines in order.
    #[inline]
    pub(super) fn follow(&mut self) {
        if self.arena().node_count() > 1 {
            self.look_around();
        }
    }

    fn look_around(&mut self) {
        match self.arena().current_node() {
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
