//! Growth: a thread that holds the node's growth lock adds SuperSlabs to the node.
//!
//! Steps double (1, 1, 2, 4, … SuperSlabs), since hugetlb mappings do not merge and each is one of
//! the kernel's limited number of mappings, and since each call that changes mappings makes other
//! threads wait. A step is mapped at once, and the thread that grows populates and uses its first
//! SuperSlab; the others are spare ([`super::spare`]), and the next ones that grow take them one by
//! one. So nobody waits until more than one hugepage is populated. The page mode is what the
//! options ask for, or the next one that the system serves. The metadata of a SuperSlab is
//! committed before its slots are published, and populated along with them where the pages are
//! huge, so that a first touch of blocks costs no faults but the blocks' own.
#![allow(unsafe_code)] // Maps and populates what was claimed.

use super::Pages;
use super::claims::POPULATED;
use super::spare::{MOST, Mapped};
use crate::config::{self, Prefault};
use crate::geometry::{NodeSuper, SLOTS, SUPER};
use crate::messages::{self, OnceMessage};
use crate::pool::addresses::SlotRun;
use crate::pool::ground::Ground;
use crate::pool::supers::Taker;
use crate::stats::events::EventKind;
use core::sync::atomic::Ordering;
use theap_platform::{Error, HUGE_1G, PageMode};

/// SuperSlabs at the front of a node's part that are on small pages in mode `auto`: 8 MiB.
pub const SMALL: usize = 4;

/// Slots that were found or added under the growth lock.
pub struct Grown {
    /// The slots.
    pub run: SlotRun,
    /// The node has grown for them.
    pub grew: bool,
}

impl Pages {
    /// Adds a SuperSlab and takes slots of it.
    pub fn grow(&self, len: usize, align: usize, taker: Taker) -> Option<Grown> {
        let _growth = self.growth.lock();
        // Another thread may have grown the node while this thread waited for the lock.
        if let Some(run) = self.find(len, align, taker) {
            return Some(Grown { run, grew: false });
        }
        let run = match taker {
            Taker::Nursery => self.add_nursed(len)?,
            Taker::Thread | Taker::Anyone => self.add(len)?,
        };
        self.supers.count_published(&run);
        Some(Grown { run, grew: true })
    }

    /// Adds a SuperSlab, and takes its first `taken` slots.
    fn add(&self, taken: usize) -> Option<SlotRun> {
        let policy = self.ground.policy;
        if policy.refuses() {
            return None;
        }
        let added = self
            .add_bridge(taken)
            .map_or_else(|| self.add_one(taken), Ok);
        added
            .inspect_err(|&why| self.say_out_of_memory(SUPER, why))
            .ok()
    }

    /// Adds a SuperSlab, and takes its first `taken` slots: a spare one, else a hole, else the
    /// first one of a new step. A page of 1 GiB brings more.
    ///
    /// # Errors
    /// The system's error, or out of memory at the limit of the heap.
    pub(super) fn add_one(&self, taken: usize) -> Result<SlotRun, Error> {
        if let Some(run) = self.add_spare(taken) {
            return Ok(run);
        }
        if let Some(i) = self.claims.claim_hole()
            // SAFETY: claimed just now.
            && let Ok(run) = unsafe { self.map_claimed(i, 1, taken) }
        {
            return Ok(run);
        }
        if let Some(run) = self.add_gigantic(taken) {
            return Ok(run);
        }
        // What is prepared is free, and serves huge runs too. What is spare does not: nothing but a
        // request may take the room for that where there is a limit.
        let prepares = taken == 0 && self.ground.policy.limit().is_set();
        let mut count = if prepares { 1 } else { self.next_step() };
        while let Some((first, len)) = self.claim_ahead(count) {
            // SAFETY: claimed just now.
            match unsafe { self.map_step(first, len, taken) } {
                Ok(run) => return Ok(run),
                // Lost addresses are claimed for ever; go on after them.
                Err(Error::Lost) => {}
                Err(error) if len == 1 || self.ground.policy.is_sealed() => return Err(error),
                Err(_) => count = 1,
            }
        }
        Err(Error::NoMemory)
    }

    /// The SuperSlabs that a run has added that [`Pages::add_one`] took.
    pub(super) fn count_added(&self, run: &SlotRun) -> usize {
        match self.mode(self.supers.local(run.slot().split().0)) {
            Some(PageMode::Hugetlb1g) => HUGE_1G / SUPER,
            _ => 1,
        }
    }

    /// Claims up to `count` adjacent SuperSlabs at the frontier, where the part is opened further
    /// if need be. The first one, and their number.
    pub(super) fn claim_ahead(&self, count: usize) -> Option<(NodeSuper, usize)> {
        loop {
            let open = self.ground.addresses.open_supers(self.node());
            let claimed = self.claims.claim_ahead(count, open);
            if claimed.is_some() || !self.open(open + count) && !self.open(open + 1) {
                return claimed;
            }
        }
    }

    /// Opens the part up to this many SuperSlabs; false if that cannot be had.
    pub(super) fn open(&self, supers: usize) -> bool {
        let Ground {
            policy,
            addresses,
            tables,
            ..
        } = self.ground;
        supers <= addresses.open_supers(self.node())
            || !policy.is_sealed() && tables.open(self.node(), supers).is_ok()
    }

    /// A step that both limits of the heap leave room for, but at least one SuperSlab.
    fn within_limit(&self, count: usize) -> usize {
        count.clamp(1, (self.ground.policy.limit().spare() / SUPER).max(1))
    }

    /// A step that the hugetlb pool can serve: one that it can serve only in part would go to other
    /// pages as a whole.
    fn within_pool(&self, count: usize) -> usize {
        let policy = self.ground.policy;
        // A child takes none, and its question would hold pages for a moment that copies may need.
        let takes = policy.config().pages.takes_hugetlb() && !policy.is_plain();
        if count <= 1 || !takes || policy.is_child() || policy.is_sealed() {
            return count;
        }
        let serves = |count: usize| policy.os().hugetlb_serves(count * SUPER);
        if serves(count) || !serves(1) {
            return count;
        }
        let halves = core::iter::successors(Some(count / 2), |&count| Some(count / 2));
        let mut fewer = halves.take_while(|&count| count > 1);
        fewer.find(|&count| serves(count)).unwrap_or(1)
    }

    /// Adds the SuperSlabs of 1 GiB pages, where the options ask for such and the frontier is at
    /// the start of one, and takes the first `taken` slots of them.
    pub(super) fn add_gigantic(&self, taken: usize) -> Option<SlotRun> {
        let count = taken
            .div_ceil(SLOTS)
            .max(1)
            .next_multiple_of(HUGE_1G / SUPER);
        let policy = self.ground.policy;
        let first = self.claims.frontier();
        let end = first.index() + count;
        if policy.config().pages != config::Pages::Hugetlb1g
            || !self.address(first).is_multiple_of(HUGE_1G)
            || policy.limit().room() < count * SUPER
            || end > self.supers.count()
            || (self.ground.affinity.interleaves() && count > HUGE_1G / SUPER)
            || !self.open(end)
            || !self.claims.claim(first, count)
        {
            return None;
        }
        // SAFETY: claimed just now.
        match unsafe { self.map_claimed_as(first, count, taken, &[PageMode::Hugetlb1g]) } {
            Ok(run) => return Some(run),
            Err(_) if policy.first_to_say(OnceMessage::NoGiganticPage) => {
                messages::no_gigantic_page(policy.os());
            }
            Err(_) => {}
        }
        None
    }

    /// The SuperSlabs of the next step, on pages that the options ask for.
    pub(super) fn next_step(&self) -> usize {
        self.within_pool(self.step())
    }

    /// The SuperSlabs of a step: as many as there are, up to the option `growth`, as far as the
    /// limits leave room. Where each is bound to another node, each is mapped by itself.
    pub(super) fn step(&self) -> usize {
        self.step_up_to(self.ground.policy.config().growth / SUPER)
    }

    /// The SuperSlabs of a step of at most so many.
    pub(super) fn step_up_to(&self, most: usize) -> usize {
        if self.ground.affinity.interleaves() {
            return 1;
        }
        let most = most.clamp(1, MOST);
        let count = self.claims.frontier().index().next_power_of_two().min(most);
        self.within_limit(count)
    }

    /// Reports once that the node could not grow by so many bytes.
    pub fn say_out_of_memory(&self, bytes: usize, why: Error) {
        let policy = self.ground.policy;
        if policy.limit().is_short_of(bytes) {
            if policy.first_to_say(OnceMessage::LimitReached) {
                messages::limit_reached(policy.os(), policy.config().limit, bytes);
            }
        } else if policy.first_to_say(OnceMessage::OutOfMemory) {
            messages::out_of_memory(policy.os(), bytes, why);
        }
    }

    /// Maps claimed SuperSlabs and takes the first `taken` slots; the others become FRESH and
    /// offered. After an error the SuperSlabs are free again, or lost.
    ///
    /// # Errors
    /// The error of the last page mode that was tried.
    ///
    /// # Safety
    /// The caller has claimed the SuperSlabs, and their claim ends here.
    pub(super) unsafe fn map_claimed(
        &self,
        first: NodeSuper,
        count: usize,
        taken: usize,
    ) -> Result<SlotRun, Error> {
        // SAFETY: this function's own Safety section.
        unsafe { self.map_claimed_as(first, count, taken, self.modes(first, count)) }
    }

    /// The page modes to be tried for SuperSlabs.
    pub(super) fn modes(&self, first: NodeSuper, count: usize) -> &'static [PageMode] {
        let starts = first.index() + count <= SMALL && !self.ground.policy.is_prepared();
        match self.ground.policy.config().pages {
            config::Pages::Small => &[PageMode::Small],
            config::Pages::Thp => &[PageMode::Thp, PageMode::Small],
            // Small programs stay there: hugepages would cost them time to clear, and memory.
            config::Pages::Auto if starts => &[PageMode::Small],
            config::Pages::Auto if self.ground.policy.is_plain() => {
                &[PageMode::Thp, PageMode::Small]
            }
            config::Pages::Auto | config::Pages::Hugetlb | config::Pages::Hugetlb1g => {
                &[PageMode::Hugetlb, PageMode::Thp, PageMode::Small]
            }
        }
    }

    /// Maps claimed SuperSlabs as `map_claimed` does, in the first of the modes that the system
    /// serves.
    ///
    /// # Errors
    /// The error of the last page mode that was tried.
    ///
    /// # Safety
    /// The conditions of `map_claimed`.
    pub(super) unsafe fn map_claimed_as(
        &self,
        first: NodeSuper,
        count: usize,
        taken: usize,
        modes: &[PageMode],
    ) -> Result<SlotRun, Error> {
        // SAFETY: this function's own Safety section.
        unsafe {
            let (mode, populated) = self.map_or_give_up(first, (count, count), modes)?;
            Ok(self.publish(first, (count, taken), mode, populated))
        }
    }

    /// Maps claimed SuperSlabs, takes the first `taken` slots of the first one, and makes the
    /// others spare. After an error the SuperSlabs are free again, or lost.
    ///
    /// # Errors
    /// The error of the last page mode that was tried.
    ///
    /// # Safety
    /// The conditions of `map_claimed`.
    unsafe fn map_step(
        &self,
        first: NodeSuper,
        count: usize,
        taken: usize,
    ) -> Result<SlotRun, Error> {
        // SAFETY: this function's own Safety section.
        unsafe {
            let modes = self.modes(first, count);
            let (mode, populated) = self.map_or_give_up(first, (count, 1), modes)?;
            let rest = Mapped {
                first: first.add(1),
                count: count - 1,
                mode: mode as u8,
            };
            self.keep_spare(&self.spare, rest);
            Ok(self.publish(first, (1, taken), mode, populated))
        }
    }

    /// Maps claimed SuperSlabs, the first `used` of which are populated. After an error
    /// the SuperSlabs are free again, or lost.
    ///
    /// # Errors
    /// The error of the last page mode that was tried.
    ///
    /// # Safety
    /// The conditions of `map_claimed`.
    pub(super) unsafe fn map_or_give_up(
        &self,
        first: NodeSuper,
        (count, used): (usize, usize),
        modes: &[PageMode],
    ) -> Result<(PageMode, bool), Error> {
        let nursed = modes == [PageMode::Small] && self.has_nursed();
        (0..count).for_each(|k| self.supers.nursed().mark(first.add(k), nursed));
        // SAFETY: this function's own Safety section.
        let mapped = unsafe { self.try_map(first, (count, used), modes) };
        if mapped == Err(Error::Lost) {
            // SAFETY: claimed, as this function's Safety section has it.
            (0..count).for_each(|k| unsafe { self.set_lost(first.add(k)) });
        } else if mapped.is_err() {
            self.give_up(first, count);
        } else if used > 0 && self.works_ahead() && self.prefaults(first) {
            // A failure costs only page faults later.
            let _ = self.touch_tables(first, count);
        }
        mapped
    }

    /// Publishes SuperSlabs, and takes the first `taken` slots; the others become FRESH and
    /// offered.
    ///
    /// # Safety
    /// The caller has claimed the SuperSlabs, and their claim ends here. They are mapped in this
    /// mode, and read zero.
    pub(super) unsafe fn publish(
        &self,
        first: NodeSuper,
        (count, taken): (usize, usize),
        mode: PageMode,
        populated: bool,
    ) -> SlotRun {
        // A huge run uses only the metadata of its first slot.
        if taken <= SLOTS {
            self.prefault_metadata(first, count, mode, populated);
        }
        let publish = |k: usize| {
            let (i, active) = (first.add(k), taken.saturating_sub(k * SLOTS).min(SLOTS));
            // SAFETY: claimed and mapped, as this function's Safety section has it.
            unsafe { self.set_mode(i, mode) };
            if populated {
                self.claims.mark(i, POPULATED);
            }
            // SAFETY: as before; what is mapped anew reads zero.
            unsafe { self.supers.publish_fresh(i, active) }
        };
        (1..count).map(publish).fold(publish(0), |run, next| {
            if next.len() > 0 { run.join(next) } else { run }
        })
    }

    /// Maps claimed SuperSlabs and commits their metadata, if the limit of the heap allows that.
    ///
    /// # Safety
    /// The caller has claimed the SuperSlabs.
    unsafe fn try_map(
        &self,
        first: NodeSuper,
        (count, used): (usize, usize),
        modes: &[PageMode],
    ) -> Result<(PageMode, bool), Error> {
        let policy = self.ground.policy;
        if policy.refuses() {
            return Err(Error::NoMemory);
        }
        let (id, huge) = (
            self.supers.id(first),
            modes.first() != Some(&PageMode::Small) || self.may_bridge(first),
        );
        let (address, len) = (self.address(first), count * SUPER);
        // SAFETY: claimed SuperSlabs, as this function's Safety section has it, are not in use.
        // What could not be mapped is only reserved, unless it is lost. The metadata, which stays,
        // comes second: without room for the SuperSlabs it would only take some of what there is.
        policy.charged(len, || unsafe {
            policy.reserve(address, len)?;
            let committed = self.ground.metadata.commit(id, count, huge);
            let mapped = committed.and_then(|()| self.map_pages(first, (count, used), modes));
            if committed.is_err() || mapped.is_err_and(|error| error != Error::Lost) {
                policy.unreserve(address, len);
            }
            mapped
        })
    }

    /// Touches the metadata of SuperSlabs that are about to be published.
    fn prefault_metadata(&self, first: NodeSuper, count: usize, mode: PageMode, populated: bool) {
        let Self { ground, supers, .. } = self;
        if mode == PageMode::Small && !(populated && self.works_ahead()) {
            return;
        }
        let (id, metadata) = (supers.id(first), ground.metadata);
        let (_, len) = metadata.range(id, count);
        let touch = || {
            metadata.touch(id, count);
            Ok::<(), Error>(())
        };
        let _ = ground.figures.recorded(EventKind::Populate, 0, len, touch);
    }

    /// Tells whether the options ask for memory ahead of its use.
    fn works_ahead(&self) -> bool {
        self.ground.policy.config().prefault == Prefault::Ahead
    }

    /// Maps in the first mode that the system serves. Returns the mode, and whether all pages of
    /// the first `used` SuperSlabs are there.
    ///
    /// # Safety
    /// The caller has claimed the SuperSlabs.
    unsafe fn map_pages(
        &self,
        first: NodeSuper,
        (count, used): (usize, usize),
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
            // SAFETY: claimed, as this function's Safety section has it: reserved and not mapped.
            let mapped = unsafe { self.map(first, (count, used), mode) };
            let kind = match mapped {
                Ok(()) => EventKind::Map,
                Err(_) => EventKind::Fallback,
            };
            figures.note_event(begin, kind, mode as u8, len);
            match mapped {
                // SAFETY: mapped just now. What cannot be populated faults at first touch, as
                // without the option.
                Ok(()) => unsafe {
                    // Where there was no choice, this tells nothing of the pool.
                    if modes.len() > 1 {
                        self.from_pool.store(mode.is_hugetlb(), Ordering::Relaxed);
                    }
                    if !mode.is_hugetlb() {
                        policy.lock_memory(address, len);
                    }
                    let populated = mode.is_hugetlb()
                        || self.prefaults(first) && self.populate(address, used * SUPER).is_ok();
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
    pub(super) fn prefaults(&self, first: NodeSuper) -> bool {
        match self.ground.policy.config().prefault {
            Prefault::Off => false,
            Prefault::Grow => true,
            Prefault::Ahead => self.supers.id(first).index() > 0,
        }
    }
}
