//! Growth: a thread that holds the node's growth lock adds SuperSlabs to the node.
//!
//! Steps double (1, 1, 2, 4, … SuperSlabs), since hugetlb mappings do not merge and each is one of
//! the kernel's limited number of mappings. The page mode is what the options ask for, or the next
//! one that the system serves. The metadata of a SuperSlab is committed before its slots are
//! published, and populated along with them where the pages are huge, so that a first touch of
//! blocks costs no faults but the blocks' own.
#![allow(unsafe_code)] // Maps and populates what was claimed.

use super::Pages;
use super::claims::POPULATED;
use crate::config::{self, Prefault};
use crate::geometry::{NodeSuper, SLOTS, SUPER};
use crate::messages::{self, OnceMessage};
use crate::pool::policy::SHARE;
use crate::pool::supers::SlotRun;
use crate::stats::events::EventKind;
use theap_platform::{Error, HUGE_1G, PageMode};

/// The state that the growth lock guards: the length of the next step. Of several threads that
/// found no slots, one grows.
#[derive(Debug)]
pub struct Growth {
    /// The number of SuperSlabs that the next step adds.
    step: usize,
}

impl Default for Growth {
    fn default() -> Self {
        Self { step: 1 }
    }
}

/// Slots that were found or added under the growth lock.
pub struct Grown {
    /// The slots.
    pub run: SlotRun,
    /// The node has grown for them.
    pub grew: bool,
}

impl Pages {
    /// Adds SuperSlabs and takes slots of the first one.
    pub fn grow(&self, len: usize, align: usize) -> Option<Grown> {
        let mut growth = self.growth.lock();
        // Another thread may have grown the node while this thread waited for the lock.
        if let Some(run) = self.supers.find(len, align) {
            return Some(Grown { run, grew: false });
        }
        let i = self.add(&mut growth, len)?;
        Some(Grown {
            run: self.published(i, len),
            grew: true,
        })
    }

    /// The slots that were published as ACTIVE when SuperSlab `i` (and those behind it) was mapped.
    pub(super) fn published(&self, i: NodeSuper, len: usize) -> SlotRun {
        self.supers.count_published(len);
        SlotRun {
            slot: self.supers.id(i).slot(0),
            len,
            fresh: true,
        }
    }

    /// Adds at least one SuperSlab; the first `taken` slots of the first one are ACTIVE at once.
    fn add(&self, growth: &mut Growth, taken: usize) -> Option<NodeSuper> {
        if let Some(i) = self.claims.claim_hole()
            && self.map_claimed(i, 1, taken).is_ok()
        {
            return Some(i);
        }
        if let Some(i) = self.add_gigantic(taken) {
            return Some(i);
        }
        // The warmer prepares the SuperSlabs after this one.
        let limit = if self.has_warmer() {
            1
        } else {
            self.step_limit()
        };
        let mut count = self.within_pool(growth.step.min(limit));
        while let Some((first, len)) = self.claims.claim_ahead(count) {
            match self.map_claimed(first, len, taken) {
                Ok(()) => {
                    growth.step = (first.index() + len).next_power_of_two().max(1);
                    return Some(first);
                }
                // Lost addresses are claimed for ever; go on after them.
                Err(Error::Lost) => {}
                Err(error) if len == 1 => {
                    self.say_out_of_memory(SUPER, error);
                    return None;
                }
                Err(_) if self.ground.policy.is_sealed() => return None,
                Err(_) => count = 1,
            }
        }
        self.say_out_of_memory(SUPER, Error::NoMemory);
        None
    }

    /// A step that the hugetlb pool can serve: one that it can serve only in part would go to other
    /// pages as a whole.
    fn within_pool(&self, count: usize) -> usize {
        let policy = self.ground.policy;
        if count <= 1 || !policy.config().pages.takes_hugetlb() || policy.is_sealed() {
            return count;
        }
        match policy.os().hugetlb_free(PageMode::Hugetlb) {
            0 => count,
            free => count.min(free),
        }
    }

    /// Adds the SuperSlabs of 1 GiB pages, where the options ask for such and the frontier is at
    /// the start of one. Returns the first SuperSlab.
    pub(super) fn add_gigantic(&self, taken: usize) -> Option<NodeSuper> {
        let count = taken
            .div_ceil(SLOTS)
            .max(1)
            .next_multiple_of(HUGE_1G / SUPER);
        let policy = self.ground.policy;
        let first = self.claims.frontier();
        let end = first.index() + count;
        if policy.config().pages != config::Pages::Hugetlb1g
            || !self.address(first).is_multiple_of(HUGE_1G)
            || end > self.supers.count()
            || (self.ground.affinity.interleaves() && count > HUGE_1G / SUPER)
            || !self.claims.claim(first, count)
        {
            return None;
        }
        match self.map_claimed_as(first, count, taken, &[PageMode::Hugetlb1g]) {
            Ok(()) => return Some(first),
            Err(_) if policy.first_to_say(OnceMessage::NoGiganticPage) => {
                messages::no_gigantic_page(policy.os());
            }
            Err(_) => {}
        }
        None
    }

    /// The SuperSlabs of the largest step. Where each is bound to another node, each is mapped by
    /// itself.
    pub(super) fn step_limit(&self) -> usize {
        if self.ground.affinity.interleaves() {
            return 1;
        }
        (self.ground.policy.config().growth / SUPER).max(1)
    }

    pub(super) fn say_out_of_memory(&self, bytes: usize, why: Error) {
        let policy = self.ground.policy;
        if policy.first_to_say(OnceMessage::OutOfMemory) {
            messages::out_of_memory(policy.os(), bytes, why);
        }
    }

    /// Maps SuperSlabs that the caller has claimed; the first `taken` slots become ACTIVE, the
    /// others FRESH and offered. After an error the SuperSlabs are free again, or lost.
    pub(super) fn map_claimed(
        &self,
        first: NodeSuper,
        count: usize,
        taken: usize,
    ) -> Result<(), Error> {
        let is_first = self.supers.id(first).index() == 0;
        let modes: &[PageMode] = match self.ground.policy.config().pages {
            config::Pages::Small => &[PageMode::Small],
            config::Pages::Thp => &[PageMode::Thp, PageMode::Small],
            // Short programs stay on the first SuperSlab, where a hugepage would only cost time to
            // clear.
            config::Pages::Auto if is_first && count == 1 => &[PageMode::Small],
            config::Pages::Auto | config::Pages::Hugetlb | config::Pages::Hugetlb1g => {
                &[PageMode::Hugetlb, PageMode::Thp, PageMode::Small]
            }
        };
        self.map_claimed_as(first, count, taken, modes)
    }

    /// Maps claimed SuperSlabs as `map_claimed` does, in the first of the modes that the system
    /// serves.
    fn map_claimed_as(
        &self,
        first: NodeSuper,
        count: usize,
        taken: usize,
        modes: &[PageMode],
    ) -> Result<(), Error> {
        let (mode, populated) = match self.try_map(first, count, modes) {
            Ok(mapped) => mapped,
            Err(error) => {
                if error == Error::Lost {
                    (0..count).for_each(|k| self.set_lost(first.add(k)));
                } else {
                    self.claims.give_up(first, count);
                }
                return Err(error);
            }
        };
        // A huge run uses only the metadata of its first slot.
        if taken <= SLOTS {
            self.prefault_metadata(first, count, mode, populated);
        }
        for k in 0..count {
            let active = taken.saturating_sub(k * SLOTS).min(SLOTS);
            self.set_mode(first.add(k), mode);
            if populated {
                self.claims.mark(first.add(k), POPULATED);
            }
            self.supers.publish_fresh(first.add(k), active);
        }
        Ok(())
    }

    fn try_map(
        &self,
        first: NodeSuper,
        count: usize,
        modes: &[PageMode],
    ) -> Result<(PageMode, bool), Error> {
        let policy = self.ground.policy;
        if policy.refuses() {
            return Err(Error::NoMemory);
        }
        // Not for the first SuperSlab: short programs shall not pay for looking.
        if first.0 <= 1 && first.index() + count > 1 && policy.config().budget == 0 {
            let limit = policy.os().memory_limit() as usize / SHARE;
            policy.budget().at_most(limit);
        }
        let id = self.supers.id(first);
        self.ground.metadata.commit(id, count, false)?;
        self.map_pages(first, count, modes)
    }

    /// Touches the metadata of SuperSlabs that were mapped just now, and the tables where the
    /// warmer works ahead.
    fn prefault_metadata(&self, first: NodeSuper, count: usize, mode: PageMode, populated: bool) {
        let Self { ground, supers, .. } = self;
        let ahead = populated && ground.policy.config().prefault == Prefault::Ahead;
        if mode == PageMode::Small && !ahead {
            return;
        }
        let id = supers.id(first);
        // A failure costs only page faults later.
        if mode != PageMode::Small {
            let _ = ground.metadata.commit(id, count, true);
        }
        let _ = self.populate_metadata(first, count);
        if ahead {
            let _ = self.touch_tables(first, count);
        }
    }

    /// Maps in the first mode that the system serves. Returns the mode, and whether all pages are
    /// there.
    fn map_pages(
        &self,
        first: NodeSuper,
        count: usize,
        modes: &[PageMode],
    ) -> Result<(PageMode, bool), Error> {
        let (policy, figures) = (self.ground.policy, self.ground.figures);
        let (address, len) = (self.address(first), count * SUPER);
        let mut last = Error::NoMemory;
        for &mode in modes {
            if mode.is_hugetlb() && !self.may_take_hugetlb(mode, count) {
                continue;
            }
            let begin = figures.begin_event();
            // SAFETY: the caller has claimed the SuperSlabs, which are reserved and not mapped.
            let mapped = unsafe { self.map(first, count, mode) };
            let kind = match mapped {
                Ok(()) => EventKind::Map,
                Err(_) => EventKind::Fallback,
            };
            figures.note_event(begin, kind, mode as u8, len);
            match mapped {
                // SAFETY: mapped just now. What cannot be populated faults at first touch, as
                // without the option.
                Ok(()) => unsafe {
                    if !mode.is_hugetlb() {
                        policy.lock_memory(address, len);
                    }
                    let populated = mode.is_hugetlb()
                        || self.prefaults(first) && self.populate(address, len).is_ok();
                    return Ok((mode, populated));
                },
                Err(Error::Lost) => return Err(Error::Lost),
                Err(error) => last = error,
            }
            self.say_fallback(mode, count);
        }
        Err(last)
    }

    /// Reports that hugetlb pages, which the options ask for, ran out.
    fn say_fallback(&self, mode: PageMode, count: usize) {
        let policy = self.ground.policy;
        let asked = matches!(
            policy.config().pages,
            config::Pages::Hugetlb | config::Pages::Hugetlb1g
        );
        if mode == PageMode::Hugetlb && asked && policy.first_to_say(OnceMessage::NoHugepages) {
            messages::no_hugepages(policy.os(), count);
        }
    }

    /// Whether what is mapped is populated at once. The first SuperSlab of a short program is not,
    /// with a warmer.
    fn prefaults(&self, first: NodeSuper) -> bool {
        match self.ground.policy.config().prefault {
            Prefault::Off => false,
            Prefault::Grow => true,
            Prefault::Ahead => self.supers.id(first).index() > 0,
        }
    }
}
