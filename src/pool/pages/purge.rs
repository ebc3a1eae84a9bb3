//! Giving memory back to the system.
//!
//! A SuperSlab whose slots are all free is taken as a whole (all ABSENT), so nobody can take a slot
//! of it meanwhile. Small and transparent pages are dropped in place and the slots become FRESH. A
//! hugetlb page goes back to its pool and leaves a hole, since touching it again could meet an
//! empty pool; at the limits of the heap other pages leave a hole too, since what is mapped counts.
//! A 1 GiB page is never given back. A SuperSlab in use gives its EMPTY slots back when
//! the program asks for a purge, on transparent hugepages only if half of it is free: it splits the
//! hugepage (see also `discard`).
#![allow(unsafe_code)] // Purges and unmaps memory.

use super::Pages;
use crate::geometry::{NodeSuper, SLOT, SLOTS, SUPER, SlotId};
use crate::pool::supers::Purging;
use crate::stats::events::EventKind;
use core::sync::atomic::AtomicU32;
use theap_platform::{Error, Guard, PageMode};

/// SuperSlabs that a free gives back at once, beyond the one that it made free.
const AT_ONCE: usize = 2;
/// Slots that a node keeps however long they are free, if `retain` allows as much: 2 MiB.
const FLOOR: usize = SLOTS;
/// SuperSlabs that a free looks at for that: untouched ones cannot be given back.
const LOOKED_AT: usize = 64;
/// The waiting of a thread at the limit for the warmer: tries, then a nap of so many nanoseconds,
/// and so often, for 200 ms at least.
const TRIES: usize = 1 << 7;
const NAP: u64 = 100_000;
const NAPS: usize = 2000;

impl Pages {
    /// After a SuperSlab became free: purges it if the node keeps more warm memory than it should.
    /// Tells whether some of it may be idle otherwise.
    pub(super) fn trim(&self, i: NodeSuper) -> bool {
        // The warmer gives the memory back later, so this thread's free need not wait for that.
        if self.has_warmer() {
            return false;
        }
        if !self.has_too_much() {
            return self.supers.warm() > self.floor() && !self.has_thread();
        }
        let bytes = self.purge_super(i, false);
        // A program that retains nothing wants to see everything go.
        let policy = self.ground.policy;
        if !policy.bounds_all() && policy.learns() {
            self.supers.decay().gave(bytes / SLOT);
        }
        false
    }

    /// Whether more memory of the node is warm and free than it should keep: slots, and spans that
    /// heaps keep.
    pub fn has_too_much(&self) -> bool {
        self.would_have_too_much(0)
    }

    /// Tells whether that would be so with so many slots more.
    pub(super) fn would_have_too_much(&self, more: usize) -> bool {
        let (policy, decay) = (self.ground.policy, self.supers.decay());
        let warm = self.supers.warm() + more + decay.in_heaps();
        warm > self.retain() + decay.kept() && !policy.is_sealed()
    }

    /// After slots of a SuperSlab in use were given back: where the program has said how much a
    /// node retains, and it has more, those go that the SuperSlab can give back.
    #[cold]
    pub(super) fn shed(&self, i: NodeSuper) {
        let is_told = self.ground.policy.bounds_all() && !self.has_warmer();
        if is_told && self.has_too_much() && self.supers.slots(i).has_empty() {
            self.purge_part(i);
        }
    }

    /// Slots that stay warm without learning: what the options say, and what the program has asked
    /// for.
    pub fn retain(&self) -> usize {
        self.ground.policy.retain() / SLOT + self.supers.decay().warmed()
    }

    /// Slots that stay warm although nobody has needed them for long.
    pub fn floor(&self) -> usize {
        let retain = self.ground.policy.retain() / SLOT;
        retain.min(FLOOR) + self.supers.decay().warmed()
    }

    /// Ends the period of the node's decay if it is over.
    pub fn end_period(&self, now: u64) {
        let (supers, decay) = (self.supers, self.ground.policy.decay());
        let times = (now, decay);
        let decay = supers.decay();
        let over = decay.end_period(times, supers.warm(), self.retain(), self.floor());
        if over && decay.idle() > 0 {
            self.clear_shelf();
        }
    }

    /// After slots were given back: what the node did not need for a while goes, a few SuperSlabs
    /// at a time, as the caller waits for it.
    #[cold]
    pub(super) fn trim_idle(&self) {
        let supers = self.supers;
        self.end_period(self.ground.policy.os().recently());
        let too_much = self.has_too_much();
        if !too_much && (supers.decay().idle_for_all() == 0 || self.has_thread())
            || self.has_warmer()
            || self.ground.policy.is_sealed()
        {
            return;
        }
        // Memory that was never used is there because the program asked for it (`warm_up`,
        // `reserve`).
        let gone = |i: NodeSuper| {
            let bytes = (supers.slots(i).has_empty()).then(|| self.purge_super(i, false));
            bytes.filter(|&bytes| bytes > 0)
        };
        let looked_at = supers.offered_whole().take(LOOKED_AT);
        let bytes: usize = looked_at.filter_map(gone).take(AT_ONCE).sum();
        if bytes > 0 {
            supers.decay().gave_idle(bytes / SLOT);
        } else {
            // Without a wholly free SuperSlab the rest has to wait for a reclaimer.
            supers.decay().leave_to_reclaimer();
        }
    }

    /// For a reclaimer: gives idle slots of a SuperSlab that is in use back, the next one from
    /// `cursor` on that has some and can. The number of the one after it, or 0 if there is none.
    /// Where the program has asked for memory ahead, such slots serve first, and so stay.
    pub fn give_back_slots(&self, cursor: usize, mut each: impl FnMut(usize)) -> usize {
        let idle = match self.supers.decay().warmed() {
            0 => self.supers.decay().idle(),
            _ => 0,
        };
        let end = self.claims.frontier().index();
        for i in cursor..end {
            let i_th = NodeSuper(i as u32);
            let gives = idle > 0 && self.supers.slots(i_th).has_empty();
            let bytes = if gives { self.purge_part(i_th) } else { 0 };
            if bytes > 0 {
                self.supers.decay().gave_idle(bytes / SLOT);
                each(bytes);
                return i + 1;
            }
        }
        if cursor == 0 {
            // None is left that could.
            self.supers.decay().gave_idle(usize::MAX);
        }
        0
    }

    /// For the warmer, which has the lock of `unmapping`: gives up to `count` free SuperSlabs with
    /// memory back, but for the `keep` first ones, and the spare ones to which the hugetlb pool has
    /// promised pages. `each` is told the bytes of every one that had memory.
    pub fn give_back(&self, keep: usize, count: usize, mut each: impl FnMut(usize)) {
        self.drop_promised();
        let beyond = self.supers.whole().filter(|&i| self.has_memory(i));
        for i in beyond.skip(keep).take(count) {
            each(self.purge_super(i, true));
        }
    }

    /// Whether a free SuperSlab has pages: those that the warmer prepared, or those that threads
    /// touched.
    pub fn has_memory(&self, i: NodeSuper) -> bool {
        self.is_populated(i) || self.supers.slots(i).has_empty()
    }

    /// Gives all free memory of the node back, as far as pages allow. The bytes given back.
    pub fn purge(&self) -> usize {
        self.clear_shelf();
        self.mapped_supers()
            .map(|i| match self.purge_super(i, false) {
                0 => self.purge_part(i),
                whole => whole,
            })
            .sum()
    }

    /// Purges a SuperSlab whose slots are all free, its metadata included. `warmer`: the caller is
    /// the warmer. The bytes.
    fn purge_super(&self, i: NodeSuper, warmer: bool) -> usize {
        let bytes = self.purge_whole(i, warmer);
        if bytes > 0 {
            self.drop_bare_metadata(i);
        }
        bytes
    }

    fn purge_whole(&self, i: NodeSuper, warmer: bool) -> usize {
        let Some(mode) = self.mode(i).filter(|&mode| mode != PageMode::Hugetlb1g) else {
            return 0;
        };
        let unmaps = mode == PageMode::Hugetlb || self.is_bridge(i);
        let fresh_too = warmer || unmaps;
        let Some(purging) = self.supers.begin_purge(i, fresh_too) else {
            return 0;
        };
        if unmaps {
            // A fork that looks after hugetlb pages finds them all mapped.
            let _lock = (!warmer).then(|| self.unmapping().lock());
            // It may have been moved meanwhile.
            return self.unmap_super(i, purging, self.mode(i).unwrap_or(mode));
        }
        // SAFETY: all slots are ABSENT: nobody uses the SuperSlab.
        if unsafe { self.drop_pages(self.address(i), SUPER, mode) }.is_err() {
            self.supers.not_purged(purging);
            return 0;
        }
        self.claims.unmark(i);
        if mode == PageMode::Small && !self.supers.nursed().is_reserved(i) {
            // The rest of the metadata of a SuperSlab without spans means nothing, but for remote
            // words, which are zero. On hugepages it goes only in whole ones (`bare`): dropping
            // 36 KiB of a hugepage splits it.
            // SAFETY: no slot of the SuperSlab is in use, nor can one be taken.
            unsafe { self.ground.metadata.purge(self.supers.id(i)) };
        }
        let empty = purging.empty_count();
        // SAFETY: purged just now, and mapped as before.
        unsafe { self.supers.purged(purging) };
        let slots = if warmer { SLOTS } else { empty };
        slots * SLOT
    }

    /// Whether the limit of the heap may refuse so many bytes.
    pub fn is_short_of(&self, bytes: usize) -> bool {
        self.ground.policy.limit().is_short_of(bytes)
    }

    /// Where the limit leaves less than `bytes`: unmaps what is spare, and wholly free SuperSlabs
    /// of all nodes, in any state, until it leaves so many, and the metadata for them. Nothing is
    /// unmapped in vain: what is free must be enough for `bytes`.
    pub fn make_room(&self, bytes: usize) {
        let limit = self.ground.policy.limit();
        let nodes = self.all_nodes().iter();
        nodes.clone().for_each(|pages| {
            pages.clear_shelf();
        });
        let free: usize = nodes
            .map(|pages| pages.supers.whole().count() * SUPER + pages.spare_bytes())
            .sum();
        if limit.room().saturating_add(free) >= bytes {
            (self.all_nodes().iter()).for_each(|pages| {
                pages.unmap_free(|| limit.is_short_of(bytes));
            });
        }
    }

    /// Unmaps what is spare, and wholly free SuperSlabs as long as `wanted` says so; 1 GiB pages
    /// stay. The bytes of the latter.
    pub fn unmap_free(&self, wanted: impl Fn() -> bool) -> usize {
        let Some(_lock) = self.keep_from_warmer() else {
            return 0;
        };
        let unmap = |i| {
            let mode = self.mode(i).filter(|&mode| mode != PageMode::Hugetlb1g);
            let taken = mode.and_then(|mode| Some((self.supers.begin_purge(i, true)?, mode)));
            taken.map_or(0, |(purging, mode)| self.unmap_super(i, purging, mode))
        };
        let sealed = self.ground.policy.is_sealed();
        if !sealed && wanted() {
            self.unmap_spare();
        }
        let free = self.supers.whole().take_while(|_| !sealed && wanted());
        free.map(unmap).sum()
    }

    /// Unmaps a SuperSlab if all of it is free, and nobody keeps it mapped. Whether it is gone.
    pub(super) fn unmap_if_free(&self, i: NodeSuper) -> bool {
        let lock = self.unmapping().try_lock_often(TRIES);
        let taken = lock.as_ref().and_then(|_| {
            let mode = self.mode(i).filter(|&mode| !mode.is_hugetlb())?;
            Some((self.supers.begin_purge(i, true)?, mode))
        });
        taken.is_some_and(|(purging, mode)| self.unmap_super(i, purging, mode) > 0)
    }

    /// The lock of `unmapping`. The end of a step of the warmer is worth waiting for, but not that
    /// of a fork, which may wait for a lock that this thread holds: after a while the answer is
    /// `None`.
    fn keep_from_warmer(&self) -> Option<Guard<'_, ()>> {
        let (os, nobody) = (self.ground.policy.os(), AtomicU32::new(0));
        (0..NAPS).find_map(|_| {
            let lock = self.unmapping().try_lock_often(TRIES);
            if lock.is_none() {
                os.sleep(&nobody, 0, NAP);
            }
            lock
        })
    }

    /// Unmaps a SuperSlab. The caller has the lock of `unmapping`, or is the warmer, which has it.
    pub(super) fn unmap_super(&self, i: NodeSuper, purging: Purging, mode: PageMode) -> usize {
        let (os, address) = (self.ground.policy.os(), self.address(i));
        // SAFETY: all slots are ABSENT: nobody uses the SuperSlab.
        let unmap = || unsafe { os.unmap(address, SUPER, mode) };
        let unmapped = (self.ground.figures).recorded(EventKind::Unmap, mode as u8, SUPER, unmap);
        match unmapped {
            Ok(()) => {
                // SAFETY: unmapped just now.
                unsafe {
                    self.ground.policy.unreserve(address, SUPER);
                    self.set_unmapped(i);
                }
                self.supers.unmapped(purging);
                SUPER
            }
            Err(Error::Lost) => {
                // SAFETY: all slots are ABSENT, and `purging` is the proof of that.
                unsafe { self.set_lost(i) };
                self.supers.unmapped(purging);
                0
            }
            Err(_) => {
                self.claims.unmark(i);
                self.supers.not_purged(purging);
                0
            }
        }
    }

    /// Purges the EMPTY slots of a SuperSlab that is in use, if its pages allow that: small ones,
    /// or a sparse hugepage, which is split. The bytes.
    fn purge_part(&self, i: NodeSuper) -> usize {
        match self.mode(i) {
            Some(PageMode::Small) => self.purge_slots(i, PageMode::Small),
            Some(PageMode::Thp) if self.is_sparse(i) => self.purge_slots(i, PageMode::Thp),
            _ => 0,
        }
    }

    /// Purges the EMPTY slots of a SuperSlab that is in use.
    fn purge_slots(&self, i: NodeSuper, mode: PageMode) -> usize {
        let purge = |slot: SlotId, len: usize| {
            let address = self.ground.addresses.address_of(slot);
            // SAFETY: the slots are ABSENT: nobody uses them.
            let purged = unsafe { self.drop_pages(address, len * SLOT, mode) }.is_ok();
            if purged {
                self.claims.unmark(i);
            }
            purged
        };
        // SAFETY: purged memory reads zero.
        unsafe { self.supers.purge_empty(i, purge) * SLOT }
    }

    /// Drops the contents of a mapped range, which stays mapped, and records that.
    ///
    /// # Safety
    /// Nobody uses the range.
    pub(super) unsafe fn drop_pages(
        &self,
        address: usize,
        len: usize,
        mode: PageMode,
    ) -> Result<(), Error> {
        let os = self.ground.policy.os();
        // SAFETY: nobody uses the range, as this function's Safety section asks.
        let purge = || unsafe { os.purge(address, len) };
        (self.ground.figures).recorded(EventKind::Purge, mode as u8, len, purge)
    }
}
