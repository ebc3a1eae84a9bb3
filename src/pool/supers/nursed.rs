//! The SuperSlabs that nurseries take slots of: they lie on small pages in a heap that has
//! hugepages, as a thread that allocates little would touch a fraction of a hugepage.
//!
//! The mark of a SuperSlab is set or cleared by the thread that maps it, before its slots are
//! offered. Whoever looks for slots reads it as a hint, as any slot serves anyone.

use super::avail::{Avail, Bitmap};
use crate::geometry::NodeSuper;

/// Who looks for slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// A thread, which leaves nurseries what is theirs.
    Thread,
    /// A nursery, which takes slots of nursed SuperSlabs alone.
    #[cfg_attr(not(feature = "magazines"), allow(dead_code, reason = "no nursery"))]
    Nursery,
    /// A thread that needs any slots that there are.
    Anyone,
}

/// The marks of a node's nursed SuperSlabs.
pub struct Nursed {
    marks: Bitmap<'static>,
    /// Nursed SuperSlabs before this one serve threads as well.
    common: usize,
}

impl Nursed {
    /// No SuperSlab is nursed yet; those before `common` will serve threads as well.
    pub fn new(marks: Bitmap<'static>, common: usize) -> Self {
        Self { marks, common }
    }

    /// Marks a SuperSlab, or takes its mark away.
    pub fn mark(&self, i: NodeSuper, nursed: bool) {
        match nursed {
            true => self.marks.set(i.index()),
            false if self.marks.has(i.index()) => self.marks.clear(i.index()),
            false => {}
        }
    }

    /// Whether a SuperSlab is there for nurseries alone.
    #[inline]
    pub fn is_reserved(&self, i: NodeSuper) -> bool {
        i.index() >= self.common && self.marks.has(i.index())
    }

    /// The SuperSlabs that are there for nurseries alone, from `from` on.
    pub fn reserved(&self, from: NodeSuper) -> Option<NodeSuper> {
        let found = self.marks.next(from.index().max(self.common))?;
        Some(NodeSuper(found as u32))
    }

    /// The first SuperSlab at or after `from` that is offered at a level, and to this taker.
    pub fn next(
        &self,
        avail: &Avail<'_>,
        (level, from): (usize, NodeSuper),
        taker: Taker,
    ) -> Option<NodeSuper> {
        let mut from = from;
        loop {
            let i = avail.next(level, from)?;
            from = match taker {
                Taker::Thread if self.is_reserved(i) => i.add(1),
                Taker::Thread | Taker::Anyone => return Some(i),
                Taker::Nursery => match NodeSuper(self.marks.next(i.index())? as u32) {
                    marked if marked == i => return Some(i),
                    marked => marked,
                },
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::avail::LEVELS;
    use super::*;
    use crate::sync::AtomicU64;
    use std::boxed::Box;
    use std::vec::Vec;

    fn bitmap() -> Bitmap<'static> {
        let zeros = |count: usize| -> &'static [AtomicU64] {
            Box::leak((0..count).map(|_| AtomicU64::new(0)).collect())
        };
        Bitmap {
            words: zeros(128),
            summary: zeros(2),
        }
    }

    #[test]
    fn each_taker_finds_what_is_offered_to_it() {
        let nursed = Nursed::new(bitmap(), 4);
        let avail = Avail {
            levels: core::array::from_fn::<_, LEVELS, _>(|_| bitmap()),
        };
        let marked = [0, 2, 70, 71, 5000].map(NodeSuper);
        marked.into_iter().for_each(|i| nursed.mark(i, true));
        let offered = [2, 3, 9, 71, 200, 5000, 8191];
        offered.into_iter().for_each(|i| avail.levels[1].set(i));
        let found = |taker| {
            let mut from = NodeSuper(0);
            let next = || {
                let i = nursed.next(&avail, (1, from), taker)?;
                from = i.add(1);
                Some(i.0)
            };
            core::iter::from_fn(next).collect::<Vec<_>>()
        };
        assert_eq!(found(Taker::Nursery), [2, 71, 5000]);
        assert_eq!(found(Taker::Thread), [2, 3, 9, 200, 8191]);
        assert_eq!(found(Taker::Anyone), [2, 3, 9, 71, 200, 5000, 8191]);
        assert_eq!(nursed.reserved(NodeSuper(0)), Some(NodeSuper(70)));
        nursed.mark(NodeSuper(71), false);
        assert_eq!(found(Taker::Nursery), [2, 5000]);
        assert!(nursed.is_reserved(NodeSuper(70)) && !nursed.is_reserved(NodeSuper(2)));
    }
}
