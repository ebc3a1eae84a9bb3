//! The slots of a node: taken by [`Supers::find`] and [`Supers::take_exact`], given back by
//! [`Supers::release`].
//!
//! `warm` counts the EMPTY slots, and those of freed runs that are shelved: a thread that turns
//! slots EMPTY adds to it before, and a thread that takes them subtracts after, so that the count
//! never falls below the real number.
#![allow(unsafe_code)] // Makes runs of the slots that it took.

use super::Tags;
use super::avail::{Avail, Bitmap, LEVELS, WHOLE};
use super::decay::Decay;
use super::extents::Extents;
#[cfg(any(test, debug_assertions))]
use super::extents::Free;
#[cfg(feature = "shared-pool")]
use super::fullest::Chosen;
use super::nursed::{Nursed, Taker};
use super::slot_word::{SlotWord, Slots, Taken};
use crate::geometry::{NodeSuper, SLOTS, SlotId, SuperId};
use crate::pool::addresses::SlotRun;
use crate::pool::metadata::Metadata;
use crate::pool::metadata::column::Column;
use core::sync::atomic::{AtomicUsize, Ordering};

/// A SuperSlab all of whose slots were taken for purging or unmapping.
#[must_use = "the slots stay ABSENT"]
pub struct Purging {
    i: NodeSuper,
    before: Slots,
}

impl Purging {
    /// The number of slots that were EMPTY.
    pub fn empty_count(&self) -> usize {
        self.before.empty_count() as usize
    }
}

/// Adjacent SuperSlabs that have their bits in the same word: the first and the last of them.
#[derive(Default)]
struct Whole(Option<(NodeSuper, NodeSuper)>);

impl Whole {
    /// Adds the next SuperSlab. Those that it cannot join, which it replaces.
    fn add(&mut self, i: NodeSuper) -> Option<Self> {
        match &mut self.0 {
            Some((_, last)) if !i.index().is_multiple_of(64) => {
                *last = i;
                None
            }
            others => Some(Self(others.replace((i, i)))),
        }
    }
}

/// The SuperSlabs of a node.
pub struct Supers {
    first: SuperId,
    words: Column<'static, SlotWord>,
    avail: Avail<'static>,
    extents: Extents<'static>,
    /// Which SuperSlabs serve at present.
    #[cfg(feature = "shared-pool")]
    pub(super) chosen: Chosen,
    nursed: Nursed,
    decay: Decay,
    /// EMPTY slots now, and those of shelved runs.
    warm: &'static AtomicUsize,
    /// Which class of which heap each SuperSlab serves, without the shared pool.
    pub(super) tags: Tags,
}

impl Supers {
    /// The SuperSlabs of a part that begins with `first`; all slots are ABSENT. `warm` is where
    /// EMPTY slots are counted.
    pub fn new(
        first: SuperId,
        words: Column<'static, SlotWord>,
        (avail, extents, nursed): (Avail<'static>, Extents<'static>, Nursed),
        warm: &'static AtomicUsize,
        metadata: Metadata,
    ) -> Self {
        Self {
            first,
            words,
            avail,
            extents,
            #[cfg(feature = "shared-pool")]
            chosen: Chosen::new(),
            nursed,
            decay: Decay::default(),
            warm,
            tags: Tags::new(metadata),
        }
    }

    /// The first SuperSlab of the part.
    pub fn first(&self) -> SuperId {
        self.first
    }

    /// The number of SuperSlabs of the part, mapped or not.
    pub fn count(&self) -> usize {
        self.words.len()
    }

    /// The number in the range of a SuperSlab of the part.
    #[inline]
    pub fn id(&self, i: NodeSuper) -> SuperId {
        i.from(self.first)
    }

    /// The number in the part of a SuperSlab that belongs to it.
    #[inline]
    pub fn local(&self, super_id: SuperId) -> NodeSuper {
        super_id.within(self.first)
    }

    #[inline]
    pub(super) fn word(&self, i: NodeSuper) -> &'static SlotWord {
        self.words.at(i.index())
    }

    /// The states of a SuperSlab's slots now.
    pub fn slots(&self, i: NodeSuper) -> Slots {
        #[cfg(test)]
        super::looks::count();
        self.word(i).get()
    }

    /// The number of EMPTY slots now.
    pub fn warm(&self) -> usize {
        self.warm.load(Ordering::Relaxed)
    }

    /// The memory that the node has learned to keep warm beyond the option `retain`.
    pub fn decay(&self) -> &Decay {
        &self.decay
    }

    /// The SuperSlabs that nurseries take from.
    pub fn nursed(&self) -> &Nursed {
        &self.nursed
    }

    /// The index of adjacent free SuperSlabs.
    pub fn extents(&self) -> &Extents<'static> {
        &self.extents
    }

    /// Withdraws the hint that a SuperSlab is wholly free, if it is not.
    pub fn withdraw_whole(&self, i: NodeSuper) {
        self.withdraw_if_offered(i, WHOLE);
    }

    fn withdraw_if_offered(&self, i: NodeSuper, level: usize) {
        if self.avail.levels[level].has(i.index()) {
            self.withdraw(i, level);
        }
    }

    /// Leaves a SuperSlab that nurseries had to all.
    pub fn leave_to_all(&self, i: NodeSuper) {
        self.nursed.mark(i, false);
        // It may have become wholly free meanwhile.
        if self.avail.levels[WHOLE].has(i.index()) {
            self.extents.offer_whole(i);
        }
    }

    /// Offers the room that a SuperSlab has since `before` turned into `after`.
    fn offer(&self, i: NodeSuper, before: Slots, after: Slots) {
        if self.avail.offer(i, before, after) {
            self.extents.offer_whole(i);
        }
    }

    /// The SuperSlabs that are offered as wholly free; the hints may be stale.
    pub fn offered_whole(&self) -> impl Iterator<Item = NodeSuper> + '_ {
        self.offered(WHOLE, Taker::Anyone)
    }

    /// The SuperSlabs that are offered at `level` to the taker; the hints may be stale.
    pub(super) fn offered(
        &self,
        level: usize,
        taker: Taker,
    ) -> impl Iterator<Item = NodeSuper> + '_ {
        let mut from = NodeSuper(0);
        core::iter::from_fn(move || {
            let i = self.nursed.next(&self.avail, (level, from), taker)?;
            from = i.add(1);
            Some(i)
        })
    }

    /// Withdraws a hint that the SuperSlab's word does not bear out.
    pub(super) fn withdraw(&self, i: NodeSuper, level: usize) {
        if self.avail.withdraw(i, level, self.word(i)) && level == WHOLE {
            self.extents.offer_whole(i);
        }
    }

    /// The SuperSlabs of which all slots are free.
    pub fn whole(&self) -> impl Iterator<Item = NodeSuper> + '_ {
        self.offered_whole()
            .filter(|&i| self.slots(i).free_count() as usize == SLOTS)
    }

    /// Counts slots that became EMPTY.
    pub(super) fn count_warm(&self, slots: usize) {
        self.warm.fetch_add(slots, Ordering::Relaxed);
    }

    fn count_taken(&self, len: usize, warm: u32) {
        if warm == 0 {
            return self.decay.took_cold(len);
        }
        let warm = warm as usize;
        let before = self.warm.fetch_sub(warm, Ordering::Relaxed);
        self.decay.took_warm(before - warm);
    }

    /// The slots that a compare-exchange on the SuperSlab's word took just now.
    pub(super) fn taken(&self, i: NodeSuper, len: usize, taken: Taken) -> SlotRun {
        self.count_taken(len, taken.warm);
        // SAFETY: this thread turned the slots ACTIVE, and FRESH slots read zero.
        unsafe { SlotRun::held(self.id(i).slot(taken.first), len, taken.warm == 0) }
    }

    /// Looks at up to `tries` SuperSlabs that are offered at `level` to the taker, until one has
    /// what `take` takes.
    pub(super) fn search(
        &self,
        (level, taker): (usize, Taker),
        tries: usize,
        take: impl Fn(&SlotWord) -> Option<Taken>,
    ) -> Option<(NodeSuper, Taken)> {
        self.offered(level, taker).take(tries).find_map(|i| {
            let taken = take(self.word(i));
            if taken.is_none() {
                self.withdraw(i, level);
            }
            Some((i, taken?))
        })
    }

    /// Takes exactly the slots `first..first + len` of a SuperSlab; `None` if one of them is not
    /// free.
    pub fn take_exact(&self, i: NodeSuper, first: usize, len: usize) -> Option<SlotRun> {
        let taken = self.word(i).take_exact(first, len)?;
        Some(self.taken(i, len, taken))
    }

    /// Takes the first `len` slots from a SuperSlab on, of as many as these need. If one of them is
    /// not free, it takes nothing and answers the SuperSlab.
    pub fn take_adjacent(&self, i: NodeSuper, len: usize) -> Result<SlotRun, NodeSuper> {
        let (mut done, mut warm, mut cold) = (0, 0, 0);
        while done < len {
            let part = SLOTS.min(len - done);
            let Some(taken) = self.word(i.add(done / SLOTS)).take_exact(0, part) else {
                break;
            };
            warm += taken.warm;
            cold += if taken.warm == 0 { part } else { 0 };
            done += part;
        }
        let blocked = i.add(done / SLOTS);
        if done == 0 {
            return Err(blocked);
        }
        if cold > 0 {
            self.decay.took_cold(cold);
        }
        if warm > 0 {
            self.count_taken(done, warm);
        }
        // SAFETY: this thread turned the slots ACTIVE, and FRESH slots read zero.
        let run = unsafe { SlotRun::held(self.id(i).slot(0), done, warm == 0) };
        if done < len {
            // Without a look at what is too much: the search goes on.
            self.release(run, |_| {});
            return Err(blocked);
        }
        // So that searches find what is free at once.
        self.avail.withdraw_taken(i, i.add((len - 1) / SLOTS));
        Ok(run)
    }

    /// Publishes the slots of a SuperSlab: the first `active` of them are ACTIVE and the caller's,
    /// the others FRESH and offered.
    ///
    /// # Safety
    /// The caller has claimed and mapped the SuperSlab, which reads zero.
    pub unsafe fn publish_fresh(&self, i: NodeSuper, active: usize) -> SlotRun {
        self.clear_tag(i);
        self.word(i).publish_fresh(active);
        // Without the shared pool, what is left of a taken SuperSlab is the taker's.
        if active == 0 || cfg!(feature = "shared-pool") {
            self.offer(i, Slots(0), self.word(i).get());
        }
        // SAFETY: ACTIVE from the start, and zero as this function's Safety section has it.
        unsafe { SlotRun::held(self.id(i).slot(0), active, true) }
    }

    /// Counts slots that are free and warm although they are ACTIVE, of a run that is shelved.
    pub fn count_shelved(&self, slots: usize) {
        self.count_warm(slots);
    }

    /// Counts slots of a shelved run as taken.
    pub fn count_unshelved(&self, slots: usize) {
        self.count_taken(slots, slots as u32);
    }

    /// Counts slots that `publish_fresh` made ACTIVE as taken.
    pub fn count_published(&self, run: &SlotRun) {
        self.count_taken(run.len(), 0);
    }

    /// Gives slots of one or several SuperSlabs back. `whole` is told of each SuperSlab whose slots
    /// are all free now.
    pub fn release(&self, run: SlotRun, mut whole: impl FnMut(NodeSuper)) {
        self.count_warm(run.len());
        let mut all = Whole::default();
        run.for_each_super(|super_id, first, part| {
            let i = self.local(super_id);
            let (before, after) = self.word(i).release(first, part);
            if part == SLOTS {
                // Offered together, as far as they have their bits in the same word.
                if let Some(others) = all.add(i) {
                    self.offer_all(others, &mut whole);
                }
                return;
            }
            self.offer(i, before, after);
            if after.free_count() as usize == SLOTS {
                whole(i);
            }
        });
        self.offer_all(all, whole);
    }

    /// Offers SuperSlabs that became wholly free at once, and tells `whole` of each.
    fn offer_all(&self, all: Whole, whole: impl FnMut(NodeSuper)) {
        if let Whole(Some((first, last))) = all {
            self.avail.offer_all(first, last);
            self.extents.offer_all(first, last);
            (first.0..=last.0).map(NodeSuper).for_each(whole);
        }
    }

    /// Takes all slots of a SuperSlab for purging or unmapping if all are free and at least one is
    /// EMPTY or `fresh_too`: they become ABSENT. Ended by one of `purged`, `not_purged` and
    /// `unmapped`.
    pub fn begin_purge(&self, i: NodeSuper, fresh_too: bool) -> Option<Purging> {
        let before = self.word(i).begin_purge_all(fresh_too)?;
        Some(Purging { i, before })
    }

    /// Ends `begin_purge`: the memory is gone, and the slots become FRESH.
    ///
    /// # Safety
    /// The SuperSlab is mapped and reads zero.
    pub unsafe fn purged(&self, purging: Purging) {
        self.warm
            .fetch_sub(purging.empty_count(), Ordering::Relaxed);
        self.end_purge(purging.i, 0, SLOTS, true);
    }

    /// Puts the end of `begin_purge` off: nobody can take a slot until [`Supers::untouched`].
    pub fn hold(&self, purging: Purging) {
        debug_assert_eq!(purging.empty_count(), 0);
    }

    /// Ends what [`Supers::hold`] has put off: the slots become FRESH, as all of them were.
    ///
    /// # Safety
    /// The SuperSlab is held by the caller, is mapped and reads zero.
    pub unsafe fn untouched(&self, i: NodeSuper) {
        self.end_purge(i, 0, SLOTS, true);
    }

    /// Ends `begin_purge`: the memory is still there, and the slots become EMPTY.
    pub fn not_purged(&self, purging: Purging) {
        self.count_warm(SLOTS - purging.empty_count());
        self.end_purge(purging.i, 0, SLOTS, false);
    }

    /// Ends `begin_purge`: the SuperSlab is not mapped any more, and its slots stay ABSENT.
    pub fn unmapped(&self, purging: Purging) {
        self.warm
            .fetch_sub(purging.empty_count(), Ordering::Relaxed);
        // Else the next search would meet the hints of all that went, and withdraw them.
        (0..LEVELS).for_each(|level| self.withdraw_if_offered(purging.i, level));
    }

    /// Takes the EMPTY slots of a SuperSlab, gives each stretch of them (first slot, length) to
    /// `purge`, which says whether their memory is gone, and makes them FRESH then, else EMPTY
    /// again. The number of slots purged.
    ///
    /// # Safety
    /// What `purge` says is gone reads zero.
    pub unsafe fn purge_empty(
        &self,
        i: NodeSuper,
        mut purge: impl FnMut(SlotId, usize) -> bool,
    ) -> usize {
        let mut slots = 0;
        for (first, len) in self.word(i).begin_purge_empty() {
            let purged = purge(self.id(i).slot(first), len);
            if purged {
                self.warm.fetch_sub(len, Ordering::Relaxed);
                slots += len;
            }
            self.end_purge(i, first, len, purged);
        }
        slots
    }

    fn end_purge(&self, i: NodeSuper, first: usize, len: usize, purged: bool) {
        let (before, after) = self.word(i).end_purge(first, len, purged);
        self.offer(i, before, after);
    }

    /// Counts the EMPTY slots of the mapped SuperSlabs anew, and those of freed runs that were
    /// `shelved`. Nobody else is inside the allocator.
    pub fn recount(&self, mapped: impl Iterator<Item = NodeSuper>, shelved: usize) {
        let empty = mapped.map(|i| self.slots(i).empty_count() as usize);
        self.warm
            .store(empty.sum::<usize>() + shelved, Ordering::Relaxed);
    }

    /// Where the words and hints of `count` SuperSlabs lie: addresses and lengths.
    pub fn table_rows(
        &self,
        first: NodeSuper,
        count: usize,
    ) -> impl Iterator<Item = (usize, usize)> {
        let first = first.index();
        let words = (
            core::ptr::from_ref(self.word(NodeSuper(first as u32))) as usize,
            count * 8,
        );
        let hints = self.avail.levels.iter().flat_map(move |level| {
            let Bitmap { words, summary } = level;
            let (from, to) = (first / 64, (first + count).div_ceil(64));
            [
                (core::ptr::from_ref(&words[from]) as usize, (to - from) * 8),
                (core::ptr::from_ref(&summary[from / 64]) as usize, 8),
            ]
        });
        core::iter::once(words)
            .chain(hints)
            .chain(self.extents.rows(first, count))
    }

    /// Whether every room that a SuperSlab has is offered, while nobody else is at it.
    #[cfg(any(test, debug_assertions))]
    pub fn keeps_promise(&self, i: NodeSuper) -> bool {
        self.avail.keeps_promise(i, self.word(i))
    }

    /// Tells whether there is a hint of every extent of the SuperSlabs below `end`, of which
    /// `is_hole` tells the holes, while nobody else is at it.
    #[cfg(any(test, debug_assertions))]
    pub fn keeps_extents(&self, end: usize, is_hole: impl Fn(NodeSuper) -> bool) -> bool {
        self.extents.keeps_promise(end, |i| {
            let whole = self.slots(i).free_count() as usize == SLOTS;
            match (whole && !self.nursed.is_reserved(i), is_hole(i)) {
                (true, _) => Some(Free::Whole),
                (false, true) => Some(Free::Mixed),
                (false, false) => None,
            }
        })
    }
}
