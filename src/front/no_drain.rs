//! Without the feature `drain`, a full magazine stays full.

use crate::front::cache::ThreadCache;
use crate::geometry::ClassId;

impl ThreadCache {
    /// True, there is room, if the magazine was in the nest, and false otherwise.
    #[inline(always)]
    pub fn drain_magazine(&mut self, class: ClassId) -> bool {
        self.outgrow_nest(class)
    }
}
