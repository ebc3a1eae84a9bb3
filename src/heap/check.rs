//! What must hold of a heap's spans while its thread is outside of the allocator.

use super::Heap;
use crate::classes::CLASS_COUNT;
use crate::pool::queue::NIL;
use crate::pool::{Invalid, SpanId, ensure};

impl Heap {
    /// Whether the current spans and those on the heap's lists are its own; their number.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn is_valid(&self) -> Result<usize, Invalid> {
        let mut held = 0;
        for class in 0..CLASS_COUNT {
            let this = &self.classes[class];
            held += self.arena.check_list(&this.partial, class, self.id)?;
            let mut all_listed = true;
            this.partial.is_linked(self.arena, |span| {
                all_listed &= self.arena.span(span).listed.get();
            });
            ensure(all_listed, "marks of a heap's list of class", class)?;
            if this.current != NIL {
                let meta = self.arena.span(SpanId(this.current));
                let mine = meta.shake.owner() == self.id && usize::from(meta.class.get()) == class;
                ensure(
                    mine && !meta.listed.get(),
                    "a heap's current span of class",
                    class,
                )?;
                held += 1;
            }
        }
        Ok(held)
    }
}
