//! Without the feature `drain`, magazines keep their fixed capacities: nothing turns between
//! refills and drains.

use crate::front::cache::ThreadCache;
use crate::geometry::ClassId;

/// There is nothing to remember.
pub struct Learner;

impl Learner {
    /// Nothing is claimed of the budget.
    pub fn claimed(&self) -> usize {
        0
    }

    /// No block is an array.
    #[inline(always)]
    pub fn arrays(&self, _class: ClassId) -> usize {
        0
    }
}

impl ThreadCache {
    /// Learns nothing from a refill.
    #[inline(always)]
    pub fn learn(&mut self, _class: ClassId, _drain: bool) {}

    /// There is nothing to take back.
    #[inline(always)]
    pub fn unlearn(&mut self, _class: ClassId) {}

    /// There is nothing to forget.
    #[inline(always)]
    pub fn unlearn_all(&mut self) {}
}
