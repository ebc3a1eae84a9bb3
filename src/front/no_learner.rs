//! Without the feature `drain`, magazines keep their fixed capacities: nothing turns between
//! refills and drains.
#![allow(unsafe_code)] // Moves arrays.

use crate::front::cache::ThreadCache;
use crate::geometry::ClassId;

/// There is nothing to remember.
pub struct Learner;

impl Learner {
    /// No class has learned.
    pub fn grown(&self) -> u64 {
        0
    }

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

    /// Changes a magazine's capacity, up to the option `magazine`; what it holds beyond that goes
    /// to the spans. False if there is no memory for its pointers: nothing has changed then.
    pub fn set_capacity(&mut self, class: ClassId, capacity: usize) -> bool {
        let Some(base) = self.own_array_for(class, capacity) else {
            return false;
        };
        // SAFETY: the class's own array has places for the option `magazine`, and a nest for what
        // fits it.
        unsafe { self.move_array(class, base, capacity) };
        let before = core::mem::replace(&mut self.capacities[class.index()], capacity as u16);
        self.note_capacity(class, before.into());
        true
    }

    /// There is nothing to take back.
    #[inline(always)]
    pub fn unlearn(&mut self, _class: ClassId) {}

    /// There is nothing to forget.
    #[inline(always)]
    pub fn unlearn_all(&mut self) {}
}
