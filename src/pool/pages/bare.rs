//! Giving back the metadata of SuperSlabs that have no memory, where it lies on hugepages.
//!
//! 2 MiB of metadata describe 58 SuperSlabs. When none of these has memory, the 2 MiB go back as a
//! whole, so no hugepage is split. Meanwhile all of these SuperSlabs are held: the slots of those
//! that are mapped are ABSENT, the others are claimed. A thread that grows waits for the growth
//! lock, and finds the slots again.
#![allow(unsafe_code)] // Purges memory.

use super::Pages;
use crate::geometry::{NodeSuper, SLOTS, SUPER};
use crate::pool::metadata::DESCRIBED;
use crate::stats::events::EventKind;
use theap_platform::{HUGE, PageMode};

/// A bit for each SuperSlab that a piece describes, from the first one on.
type Few = u64;

const _: () = assert!(DESCRIBED <= Few::BITS as usize);

/// The SuperSlabs of a piece that this thread holds.
struct Held {
    first: NodeSuper,
    /// All slots.
    slots: Few,
    /// The right to map it.
    claims: Few,
}

impl Pages {
    /// After a SuperSlab's memory was given back: gives back the hugepages of metadata that
    /// describe no SuperSlab with memory any more. Where the program has asked for memory ahead,
    /// they stay, as the metadata of that memory is meant to cost no fault.
    pub(super) fn drop_bare_metadata(&self, i: NodeSuper) {
        let on_small = self.mode(i) == Some(PageMode::Small);
        let warmed = self.supers.decay().warmed() > 0;
        if warmed
            || on_small && !self.supers.nursed().is_reserved(i)
            // A thread at the limit would not find what is held.
            || self.is_short_of(DESCRIBED * SUPER)
        {
            return;
        }
        for piece in self.ground.metadata.pieces_of(self.supers.id(i)) {
            if self.is_bare(piece) {
                self.drop_metadata(piece);
            }
        }
    }

    /// The SuperSlabs that a piece of the metadata describes, up to the frontier; then the first
    /// one beyond it, and how many there are. `None` unless all are this node's, and open.
    fn described(
        &self,
        piece: usize,
    ) -> Option<(
        impl ExactSizeIterator<Item = NodeSuper> + use<>,
        NodeSuper,
        usize,
    )> {
        let (first, end) = self.ground.metadata.described_by(piece)?;
        let base = self.supers.id(NodeSuper(0));
        if first < base || end.within(base).index() > self.ground.addresses.open_supers(self.node())
        {
            return None;
        }
        let (first, end) = (first.within(base), end.within(base));
        let until = self.frontier().clamp(first, end);
        let beyond = end.index() - until.index();
        Some(((first.0..until.0).map(NodeSuper), until, beyond))
    }

    /// Tells whether no SuperSlab that a piece describes has memory, or a slot that is in use.
    fn is_bare(&self, piece: usize) -> bool {
        let bare = |i| match self.mode(i) {
            Some(_) => self.is_untouched(i),
            None => self.claims.is_free(i),
        };
        self.described(piece)
            .is_some_and(|(mut supers, ..)| supers.all(bare))
    }

    fn is_untouched(&self, i: NodeSuper) -> bool {
        !self.has_memory(i) && self.supers.slots(i).free_count() as usize == SLOTS
    }

    /// Drops a piece of the metadata, if nobody uses what it describes or has begun to map that.
    #[cold]
    fn drop_metadata(&self, piece: usize) {
        let Some(_growth) = self.growth.try_lock() else {
            return;
        };
        let Some((mut supers, until, beyond)) = self.described(piece) else {
            return;
        };
        if beyond > 0 && !self.claims.claim(until, beyond) {
            return;
        }
        let mut held = Held {
            first: until.back(supers.len()),
            slots: 0,
            claims: 0,
        };
        if supers.all(|i| self.hold(i, &mut held)) {
            let metadata = self.ground.metadata;
            // SAFETY: all that the piece describes is held: no slot of it is in use, and none can
            // be taken.
            let drop = || unsafe { metadata.purge_piece(piece) };
            (self.ground.figures).recorded(EventKind::Purge, 0, HUGE, drop);
        }
        self.let_go(&held);
        if beyond > 0 {
            self.give_up(until, beyond);
        }
    }

    /// Holds a SuperSlab without memory, so that nobody takes a slot of it or maps it. Whether that
    /// could be done.
    fn hold(&self, i: NodeSuper, held: &mut Held) -> bool {
        let bit = 1 << (i.index() - held.first.index());
        if self.mode(i).is_none() {
            let claimed = self.claims.claim(i, 1);
            held.claims |= if claimed { bit } else { 0 };
            return claimed;
        }
        let Some(purging) = self.supers.begin_purge(i, true) else {
            return false;
        };
        if purging.empty_count() > 0 || self.is_populated(i) {
            // Somebody has used it just now.
            self.supers.not_purged(purging);
            return false;
        }
        self.supers.hold(purging);
        held.slots |= bit;
        true
    }

    fn let_go(&self, held: &Held) {
        for at in 0..DESCRIBED {
            let i = held.first.add(at);
            if held.slots >> at & 1 == 1 {
                // SAFETY: all of its slots were FRESH, and the SuperSlab is mapped and untouched.
                unsafe { self.supers.untouched(i) };
            } else if held.claims >> at & 1 == 1 {
                self.give_up(i, 1);
            }
        }
    }
}
