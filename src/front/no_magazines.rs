//! Without the feature `magazines`, the classic front serves all classes whatever the gate says.
#![allow(unsafe_code)] // Passes its callers' promises on.

use crate::classes::CLASSES;
use crate::front::cache::ThreadCache;
use crate::front::classic::FAST;
use crate::geometry::ClassId;

/// There is nothing to remember.
pub struct MagazineState;

impl MagazineState {
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

/// There is no nest: a FastCache is small.
pub const NEST: usize = 0;

/// There is no nest.
pub const fn nest_places(_class: ClassId) -> usize {
    0
}

/// Places of a class's array: those of a FastCache.
pub const fn places(class: ClassId) -> usize {
    let most = CLASSES[class.index()].magazine as usize;
    if most < FAST { most } else { FAST }
}

impl ThreadCache {
    /// The array that the class begins with.
    pub fn first_array(&mut self, class: ClassId) -> *mut *mut u8 {
        self.own_array(class)
    }

    /// There is no nest to leave.
    #[inline(always)]
    pub fn leave_nests(&mut self) {}

    /// Places of the class's array that may be used now.
    pub fn places_in_use(&self, class: ClassId) -> usize {
        self.fast_places(class)
    }

    /// Places of the class's array.
    #[cfg(feature = "valgrind")]
    pub fn array_places(&self, class: ClassId) -> usize {
        places(class)
    }

    /// A block for an empty array, which takes more. Null if there is no memory.
    ///
    /// # Safety
    /// The class's array is empty.
    #[inline]
    pub unsafe fn refill(&mut self, class: ClassId) -> *mut u8 {
        // SAFETY: the array is empty (this function's own Safety section), and every array is a
        // FastCache.
        unsafe { self.refill_fast_cache(class) }
    }

    /// Makes room in a full array.
    ///
    /// # Safety
    /// The class's array is full.
    #[inline]
    pub unsafe fn empty_in_part(&mut self, class: ClassId) -> bool {
        // SAFETY: the array is full (this function's own Safety section), and every array is a
        // FastCache.
        unsafe { self.spill(class) };
        true
    }

    /// A FastCache is never shut.
    #[cfg(any(test, debug_assertions))]
    pub fn may_be_shut(&self, _class: ClassId) -> bool {
        false
    }

    /// There is nothing to switch.
    #[inline(always)]
    pub fn heed_gate(&mut self) {}

    /// A cache is emptied when its thread ends.
    #[inline(always)]
    pub fn rest(&mut self) -> bool {
        false
    }

    /// There is nothing to forget.
    #[inline(always)]
    pub fn reset_magazines(&mut self) {}

    /// There is nothing to forget.
    #[inline(always)]
    pub fn unlearn_all(&mut self) {}
}
