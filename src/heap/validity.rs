//! The invariants of a heap's spans while its thread is outside of the allocator.

use super::Heap;
use super::spans::span_bytes;
use crate::geometry::{ClassId, SLOT};
use crate::pool::metadata::ownership::FIRST_HEAP;
use crate::pool::{Invalid, ensure};
use crate::stats::Count;

impl Heap {
    /// Whether the current spans and those on the heap's lists are its own; their number.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn is_valid(&self) -> Result<usize, Invalid> {
        let mut held = 0;
        // The bytes of the heap's spans, and of those of them that are wholly free.
        let (mut owned, mut kept) = (0, 0);
        for class in ClassId::all() {
            let bytes = span_bytes(class.index() as u8);
            let mut count = |span| {
                owned += bytes;
                kept += if self.is_free(span) { bytes } else { 0 };
            };
            let this = &self.classes[class.index()];
            let known =
                self.used & class.bit() != 0 || this.current.is_none() && this.partial.is_empty();
            ensure(
                known,
                "spans that a heap does not know, of class",
                class.index(),
            )?;
            held += self.arena.check_list(&this.partial, class, self.id)?;
            let mut all_listed = true;
            this.partial.is_linked(self.arena.metadata(), |span| {
                all_listed &= self.meta(span).listed.get();
                count(span);
            });
            let what = "marks of a heap's list of class";
            ensure(all_listed, what, class.index())?;
            if let Some(span) = this.current {
                count(span);
                let meta = self.meta(span);
                let mine = meta.shake.owner() == self.id
                    && usize::from(meta.class.get()) == class.index()
                    && !meta.listed.get();
                ensure(mine, "a heap's current span of class", class.index())?;
                held += 1;
            }
        }
        // A forked child's figures may have what the parent did meanwhile.
        let exact = cfg!(feature = "stats") && !self.arena.policy().is_child();
        let figures = [&self.board.span_bytes, &self.board.kept].map(Count::get);
        let told = self.free_slots * SLOT == kept as usize && self.told() >= self.free_slots;
        let agree =
            (!exact || figures == [owned, kept]) && (told || self.arena.policy().is_child());
        ensure(agree, "figures of heap", (self.id - FIRST_HEAP) as usize)?;
        Ok(held)
    }
}
