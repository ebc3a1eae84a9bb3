//! The invariants of a heap's spans while its thread is outside of the allocator.

use super::Heap;
use crate::geometry::ClassId;
use crate::pool::{Invalid, ensure};

impl Heap {
    /// Whether the current spans and those on the heap's lists are its own; their number.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn is_valid(&self) -> Result<usize, Invalid> {
        let mut held = 0;
        for class in ClassId::all() {
            let this = &self.classes[class.index()];
            held += self.arena.check_list(&this.partial, class, self.id)?;
            let mut all_listed = true;
            this.partial.is_linked(self.arena.metadata(), |span| {
                all_listed &= self.meta(span).listed.get();
            });
            let what = "marks of a heap's list of class";
            ensure(all_listed, what, class.index())?;
            if let Some(span) = this.current {
                let meta = self.meta(span);
                let mine = meta.shake.owner() == self.id
                    && usize::from(meta.class.get()) == class.index()
                    && !meta.listed.get();
                ensure(mine, "a heap's current span of class", class.index())?;
                held += 1;
            }
        }
        Ok(held)
    }
}
