//! Without the feature `drain`, a full magazine stays full.

use crate::front::cache::ThreadCache;
use crate::geometry::ClassId;

impl ThreadCache {
    /// True, there is room, if the magazine may hold more now, and false otherwise.
    #[inline]
    pub fn drain_magazine(&mut self, class: ClassId) -> bool {
        self.magazines.allowance.note_miss(class);
        self.raise(class)
    }
}
