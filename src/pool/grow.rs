//! Growth: new SuperSlabs, under the node's growth lock.
//!
//! Steps double (1, 1, 2, 4, … SuperSlabs), since hugetlb mappings do not merge and each is one of the kernel's
//! limited number of mappings. The page mode is what the options ask for, or the next one that the system serves.
//! The metadata of a SuperSlab is committed before its slots are published, and populated along with them where the
//! pages are huge, so that a first touch of blocks costs no faults but the blocks' own.

use super::avail::Bitmap;
use super::budget::SHARE;
use super::claims::{LOST, MODE, POPULATED};
use super::node::{Node, SlotRun};
use super::superslab::{SLOTS, Slots, Taken};
use super::{SLOT, SUPER, Stage, kind};
use crate::config::{Pages, Prefault};
use crate::fatal::{self, Saying};
use crate::stats::events::EventKind;
use core::sync::atomic::Ordering;
use theap_platform::{Error, HUGE_1G, PageMode};

/// What the growth lock guards: that one thread grows where several found nothing, and the length of its step.
#[derive(Debug)]
pub struct Growth {
    /// SuperSlabs of the next step.
    step: usize,
}

impl Default for Growth {
    fn default() -> Self {
        Self { step: 1 }
    }
}

impl Node {
    /// How a SuperSlab of this node is mapped.
    pub(super) fn mode(&self, i: usize) -> Option<PageMode> {
        match self.claims.byte(i).load(Ordering::Acquire) & MODE {
            1 => Some(PageMode::Small),
            2 => Some(PageMode::Thp),
            3 => Some(PageMode::Hugetlb),
            4 => Some(PageMode::Hugetlb1g),
            _ => None,
        }
    }

    /// SuperSlab `i` is mapped so now.
    pub(super) fn set_mode(&self, i: usize, mode: PageMode) {
        self.uncount(i);
        self.mapped[mode as usize].fetch_add(1, Ordering::Relaxed);
        self.claims.set_mode(i, mode as u8);
    }

    /// SuperSlab `i` was unmapped: a hole.
    pub(super) fn set_unmapped(&self, i: usize) {
        self.uncount(i);
        self.claims.give_up(i, 1);
    }

    /// Never uses SuperSlab `i` again: its addresses went to a foreign mapping.
    pub(super) fn set_lost(&self, i: usize) {
        self.uncount(i);
        self.claims.byte(i).store(LOST, Ordering::Release);
    }

    fn uncount(&self, i: usize) {
        if let Some(mode) = self.mode(i) {
            self.mapped[mode as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Adds SuperSlabs and takes slots of the first one.
    pub(super) fn grow(&self, len: usize, align: usize) -> Option<(SlotRun, Stage)> {
        let mut growth = self.growth.lock();
        // Somebody may have grown while this thread waited for the lock.
        if let Some(found) = self.find_slots(len, align) {
            return Some(found);
        }
        let i = self.add(&mut growth, len)?;
        drop(growth);
        self.start_warmer();
        Some((self.taken(i, len, Taken { first: 0, warm: 0 }), Stage::Grow))
    }

    /// Adds at least one SuperSlab; the first `taken` slots of the first one are ACTIVE at once. Its index.
    pub(super) fn add(&self, growth: &mut Growth, taken: usize) -> Option<usize> {
        if let Some(i) = self.claims.claim_hole()
            && self.map_claimed(i, 1, taken).is_ok()
        {
            return Some(i);
        }
        if let Some(i) = self.add_gigantic(taken) {
            return Some(i);
        }
        // What comes after this SuperSlab is the warmer's to prepare.
        let limit = if self.warmer_runs() {
            1
        } else {
            self.step_limit()
        };
        let mut count = growth.step.min(limit);
        if count > 1 && self.arena.config.pages.takes_hugetlb() && !self.arena.is_sealed() {
            // A step that the hugetlb pool can serve only in part would go to other pages as a whole.
            let free = self.arena.os.hugetlb_free(PageMode::Hugetlb);
            count = if free > 0 { count.min(free) } else { count };
        }
        while let Some((first, len)) = self.claims.claim_ahead(count) {
            match self.map_claimed(first, len, taken) {
                Ok(()) => {
                    growth.step = (first + len).next_power_of_two().max(1);
                    return Some(first);
                }
                // Lost addresses are claimed for ever; go on after them.
                Err(Error::Lost) => {}
                Err(error) if len == 1 => {
                    self.say_out_of_memory(SUPER, error);
                    return None;
                }
                Err(_) if self.arena.is_sealed() => return None,
                Err(_) => count = 1,
            }
        }
        self.say_out_of_memory(SUPER, Error::NoMemory);
        None
    }

    /// Adds the SuperSlabs of 1 GiB pages, where the options ask for such and the frontier is at the start of one. The
    /// index of the first.
    pub(super) fn add_gigantic(&self, taken: usize) -> Option<usize> {
        let count = taken
            .div_ceil(SLOTS)
            .max(1)
            .next_multiple_of(HUGE_1G / SUPER);
        let arena = self.arena;
        let first = self.claims.frontier();
        let address = arena.address_of((self.first + first) * SLOTS);
        if arena.config.pages != Pages::Hugetlb1g
            || !address.is_multiple_of(HUGE_1G)
            || first + count > self.supers
            || (arena.interleaves() && count > HUGE_1G / SUPER)
            || !self.claims.claim(first, count)
        {
            return None;
        }
        match self.map_claimed_as(first, count, taken, &[PageMode::Hugetlb1g]) {
            Ok(()) => return Some(first),
            Err(_) if arena.first_to_say(Saying::NoGiganticPage) => {
                fatal::no_gigantic_page(arena.os);
            }
            Err(_) => {}
        }
        None
    }

    /// SuperSlabs of the largest step. Where each is bound to another node, each is mapped by itself.
    pub(super) fn step_limit(&self) -> usize {
        if self.arena.interleaves() {
            return 1;
        }
        (self.arena.config.growth / SUPER).max(1)
    }

    pub(super) fn say_out_of_memory(&self, bytes: usize, why: Error) {
        if self.arena.first_to_say(Saying::OutOfMemory) {
            fatal::out_of_memory(self.arena.os, bytes, why);
        }
    }

    /// Maps SuperSlabs that the caller has claimed; the first `taken` slots become ACTIVE, the others FRESH and
    /// offered. After an error they are free again, or lost.
    pub(super) fn map_claimed(
        &self,
        first: usize,
        count: usize,
        taken: usize,
    ) -> Result<(), Error> {
        let modes: &[PageMode] = match self.arena.config.pages {
            Pages::Small => &[PageMode::Small],
            Pages::Thp => &[PageMode::Thp, PageMode::Small],
            // Short programs stay on the first SuperSlab, where a hugepage would only cost time to clear.
            Pages::Auto if self.first + first == 0 && count == 1 => &[PageMode::Small],
            Pages::Auto | Pages::Hugetlb | Pages::Hugetlb1g => {
                &[PageMode::Hugetlb, PageMode::Thp, PageMode::Small]
            }
        };
        self.map_claimed_as(first, count, taken, modes)
    }

    /// As `map_claimed`, in the first of the modes that the system serves.
    fn map_claimed_as(
        &self,
        first: usize,
        count: usize,
        taken: usize,
        modes: &[PageMode],
    ) -> Result<(), Error> {
        let arena = self.arena;
        let mapped = if arena.refuses() {
            Err(Error::NoMemory)
        } else {
            // Not for the first: short programs shall not pay for looking.
            if first <= 1 && first + count > 1 && arena.config.budget == 0 {
                arena
                    .budget
                    .at_most(arena.os.memory_limit() as usize / SHARE);
            }
            arena
                .commit_metas(self.first + first, count, false)
                .and_then(|()| self.map_pages(first, count, modes))
        };
        let (mode, populated) = match mapped {
            Ok(mapped) => mapped,
            Err(error) => {
                if error == Error::Lost {
                    (first..first + count).for_each(|i| self.set_lost(i));
                } else {
                    self.claims.give_up(first, count);
                }
                return Err(error);
            }
        };
        // A huge run uses only the metadata of its first slot.
        let ahead = populated && arena.config.prefault == Prefault::Ahead;
        if (mode != PageMode::Small || ahead) && taken <= SLOTS {
            let (meta, meta_len) = arena.meta_range(self.first + first, count);
            // Failure costs faults later, nothing else.
            if mode != PageMode::Small {
                let _ = arena.commit_metas(self.first + first, count, true);
            }
            // SAFETY: committed above.
            let _ = unsafe { arena.populate(meta, meta_len) };
            if ahead {
                let _ = self.touch_tables(first, count);
            }
        }
        for i in first..first + count {
            let active = taken.saturating_sub((i - first) * SLOTS).min(SLOTS);
            self.set_mode(i, mode);
            if populated {
                self.claims.mark(i, POPULATED);
            }
            arena.super_meta(self.first + i).spans[0]
                .tag
                .store(0, Ordering::Relaxed);
            self.word(i).publish_fresh(active);
            // Without the shared pool, what is left of a taken SuperSlab is the taker's.
            if active == 0 || cfg!(feature = "shared-pool") {
                self.avail.offer(i, Slots(0), self.word(i).get());
            }
        }
        Ok(())
    }

    /// The first mode that the system serves, and whether all pages are there.
    fn map_pages(
        &self,
        first: usize,
        count: usize,
        modes: &[PageMode],
    ) -> Result<(PageMode, bool), Error> {
        let arena = self.arena;
        let (address, len) = (
            arena.address_of((self.first + first) * SLOTS),
            count * SUPER,
        );
        let mut last = Error::NoMemory;
        for &mode in modes {
            if mode.is_hugetlb() && !arena.may_take_hugetlb(mode, count) {
                continue;
            }
            let begin = arena.begin_event();
            // SAFETY: the SuperSlabs are reserved and not mapped, and the growth lock keeps others away.
            let mapped = unsafe { arena.map(self.first + first, count, mode) };
            let kind = match mapped {
                Ok(()) => EventKind::Map,
                Err(_) => EventKind::Fallback,
            };
            arena.note_event(begin, kind, mode as u8, len);
            match mapped {
                Ok(()) => {
                    if !mode.is_hugetlb() {
                        arena.lock_memory(address, len);
                    }
                    let populated = mode.is_hugetlb()
                        || self.prefaults(first)
                            // What cannot be populated faults at first touch, as without the option.
                            // SAFETY: mapped just now.
                            && unsafe { arena.populate(address, len) }.is_ok();
                    return Ok((mode, populated));
                }
                Err(Error::Lost) => return Err(Error::Lost),
                Err(error) => last = error,
            }
            if mode == PageMode::Hugetlb
                && matches!(arena.config.pages, Pages::Hugetlb | Pages::Hugetlb1g)
                && arena.first_to_say(Saying::NoHugepages)
            {
                fatal::no_hugepages(arena.os, count);
            }
        }
        Err(last)
    }

    /// Whether what is mapped is populated at once. The first SuperSlab of a short program is not, with a warmer.
    fn prefaults(&self, first: usize) -> bool {
        match self.arena.config.prefault {
            Prefault::Off => false,
            Prefault::Grow => true,
            Prefault::Ahead => self.first + first > 0,
        }
    }

    /// Grows until `bytes` can be taken in SuperSlabs, and touches free slots, spans and the metadata: what is taken
    /// afterwards costs no fault.
    ///
    /// # Errors
    /// What the system answered; what was mapped before stays.
    pub fn warm(&self, bytes: usize) -> Result<(), Error> {
        // Touching more than there is would end in the kernel killing something.
        let os = self.arena.os;
        let room = match self.arena.config.pages {
            Pages::Small | Pages::Thp => os.memory_limit(),
            // Hugetlb pages count elsewhere, and the rest of `auto` is on others.
            Pages::Auto => {
                let pool = os.hugetlb_free(PageMode::Hugetlb) as u64 * SUPER as u64;
                os.memory_limit()
                    .saturating_add(pool)
                    .min(os.total_memory())
            }
            Pages::Hugetlb | Pages::Hugetlb1g => os.total_memory(),
        };
        if bytes > self.supers * SUPER || bytes as u64 > room {
            return Err(Error::NoMemory);
        }
        loop {
            let free = self.free_bytes();
            if free >= bytes {
                break;
            }
            let _growth = self.growth.lock();
            let hole = self.claims.claim_hole().map(|i| (i, 1));
            if hole.is_none() && self.add_gigantic(0).is_some() {
                continue;
            }
            let claimed = hole.or_else(|| {
                self.claims
                    .claim_ahead((bytes - free).div_ceil(SUPER).min(self.step_limit()))
            });
            let (first, count) = claimed.ok_or(Error::NoMemory)?;
            match self.map_claimed(first, count, 0) {
                Ok(()) | Err(Error::Lost) => {}
                Err(_) if count > 1 => {
                    let (first, one) = self.claims.claim_ahead(1).ok_or(Error::NoMemory)?;
                    self.map_claimed(first, one, 0)?;
                }
                Err(error) => return Err(error),
            }
        }
        self.start_warmer();
        self.touch_all()
    }

    fn touch_all(&self) -> Result<(), Error> {
        let arena = self.arena;
        for i in self.mapped_supers() {
            let (meta, meta_len) = arena.meta_range(self.first + i, 1);
            // SAFETY: a mapped SuperSlab's metadata is committed; populating keeps contents, so slots that are taken
            // meanwhile do not mind.
            unsafe { arena.populate(meta, meta_len)? };
            // Spans have blocks that nobody touched yet; large runs are their users' affair.
            let is_run = |slot: &usize| {
                let kind = arena
                    .kind((self.first + i) * SLOTS + slot)
                    .load(Ordering::Relaxed);
                matches!(kind, kind::LARGE | kind::HUGE)
            };
            let mut slot = 0;
            while slot < SLOTS {
                let end = (slot..SLOTS).find(is_run).unwrap_or(SLOTS);
                if slot < end {
                    let address = arena.address_of((self.first + i) * SLOTS + slot);
                    // SAFETY: as above.
                    unsafe { arena.populate(address, (end - slot) * SLOT)? };
                }
                slot = end + 1;
            }
            if (0..SLOTS).all(|slot| !is_run(&slot)) {
                self.claims.mark(i, POPULATED);
            }
        }
        self.touch_tables(0, self.claims.frontier())
    }

    /// The pages of the dense tables that describe `count` SuperSlabs from `first` on.
    fn touch_tables(&self, first: usize, count: usize) -> Result<(), Error> {
        let slot = (self.first + first) * SLOTS;
        let touch = |address: usize, bytes: usize| {
            let start = address & !(theap_platform::PAGE - 1);
            let end = (address + bytes).next_multiple_of(theap_platform::PAGE);
            // SAFETY: the dense tables are committed from the start, page by page.
            unsafe { self.arena.os.populate(start, end - start) }
        };
        if count == 0 {
            return Ok(());
        }
        for table in [self.arena.kind(slot), self.arena.head(slot)] {
            touch(core::ptr::from_ref(table) as usize, count * SLOTS)?;
        }
        touch(core::ptr::from_ref(self.claims.byte(first)) as usize, count)?;
        touch(core::ptr::from_ref(self.word(first)) as usize, count * 8)?;
        for Bitmap { words, summary } in &self.avail.levels {
            let (from, to) = (first / 64, (first + count).div_ceil(64));
            touch(core::ptr::from_ref(&words[from]) as usize, (to - from) * 8)?;
            touch(core::ptr::from_ref(&summary[from / 64]) as usize, 8)?;
        }
        Ok(())
    }
}
