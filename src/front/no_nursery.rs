//! Without the feature `magazines` there are no nurseries: all blocks come from the thread's spans.
#![allow(unsafe_code)] // The same function as with nurseries.

use super::cache::ThreadCache;
use crate::geometry::ClassId;
use crate::pool::Arena;

/// There are none.
///
/// # Safety
/// There are no conditions.
#[inline(always)]
pub unsafe fn each_nursery(_arena: &'static Arena, _step: impl FnMut(&mut ThreadCache)) {}

impl ThreadCache {
    /// A block of the class that reads zero.
    #[cfg_attr(
        any(feature = "hardened", feature = "valgrind"),
        allow(dead_code, reason = "every block is cleared there")
    )]
    pub fn take_fresh(&mut self, class: ClassId) -> Option<*mut u8> {
        self.follow();
        self.heap.take_fresh(class)
    }
}
