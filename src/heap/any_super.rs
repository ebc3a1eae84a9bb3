//! With the shared pool a heap takes slots of any SuperSlab, and owns none. The twin of
//! `own_super`.

use crate::geometry::{ClassId, SlotId};
use crate::pool::{Arena, SlotRun};

/// Nothing to remember.
pub struct OwnSupers;

impl OwnSupers {
    /// No SuperSlabs.
    pub fn new() -> Self {
        Self
    }

    /// There is no SuperSlab to take slots of before the pool is asked.
    #[inline(always)]
    pub fn take(&mut self, _: &Arena, _: ClassId, _heap: u64, _slots: usize) -> Option<SlotRun> {
        None
    }

    /// A SuperSlab stays everybody's.
    #[inline(always)]
    pub fn adopt(&mut self, _: &Arena, _: ClassId, _heap: u64, _slot: SlotId) {}

    /// There is nothing to forget.
    #[inline(always)]
    pub fn forget(&mut self) {}
}
