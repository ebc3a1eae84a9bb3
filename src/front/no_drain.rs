//! Without the feature `drain`, a full magazine stays full.

use crate::front::cache::ThreadCache;
use crate::geometry::ClassId;

impl ThreadCache {
    /// False: there is no room.
    #[inline(always)]
    pub fn drain_magazine(&mut self, _class: ClassId) -> bool {
        false
    }
}
