//! Prefaulting: memory is mapped and touched before it is used, by a thread that asks for it
//! (`warm_up`, `reserve`) or by the warmer.
#![allow(unsafe_code)] // Populates mapped and committed memory.

use super::Pages;
use super::claims::POPULATED;
use crate::config;
use crate::geometry::{Kind, NodeSuper, SLOT, SLOTS, SUPER};
use theap_platform::{Error, HUGE_1G, PAGE, PageMode};

/// SuperSlabs that a step of the warmer prepares at most in a small heap.
const STEP: usize = 4;

impl Pages {
    /// Grows until `bytes` can be taken in SuperSlabs, and touches free slots, spans and the
    /// metadata: what is taken afterwards costs no fault.
    ///
    /// # Errors
    /// The system's error; what was mapped before stays.
    pub fn warm(&self, bytes: usize) -> Result<(), Error> {
        // Else it would count as in use.
        self.clear_shelf();
        let more = bytes.saturating_sub(self.free_bytes());
        if bytes > self.supers.count() * SUPER
            || bytes as u64 > self.room()
            || more > self.ground.policy.limit().room()
        {
            return Err(Error::NoMemory);
        }
        loop {
            let free = self.free_bytes();
            if free >= bytes {
                return Ok(());
            }
            let added = self.add_free((bytes - free).div_ceil(SUPER))?;
            // The program wants it warm, also after it has used and freed it.
            self.supers.decay().warm(added * SLOTS);
        }
    }

    /// The bytes that may be touched at most: touching more than there is would end in the kernel
    /// killing something.
    fn room(&self) -> u64 {
        let os = self.ground.policy.os();
        match self.ground.policy.config().pages {
            config::Pages::Small | config::Pages::Thp => os.memory_limit(),
            // Hugetlb pages count elsewhere, and the rest of `auto` is on others.
            config::Pages::Auto => {
                let pool = os.hugetlb_free(PageMode::Hugetlb) as u64 * SUPER as u64;
                os.memory_limit()
                    .saturating_add(pool)
                    .min(os.total_memory())
            }
            config::Pages::Hugetlb | config::Pages::Hugetlb1g => os.total_memory(),
        }
    }

    /// Adds free SuperSlabs: at most `wanted`, unless a page of 1 GiB brings more, and at least
    /// one. Their number; 0 if addresses were lost.
    fn add_free(&self, wanted: usize) -> Result<usize, Error> {
        let _growth = self.growth.lock();
        let hole = self.claims.claim_hole().map(|i| (i, 1));
        if hole.is_none() && self.add_gigantic(0).is_some() {
            return Ok(HUGE_1G / SUPER);
        }
        let wanted = self.within_limit(wanted.min(self.step_limit()));
        let claimed = hole.or_else(|| self.claim_ahead(wanted));
        let (first, count) = claimed.ok_or(Error::NoMemory)?;
        // SAFETY: claimed just now.
        match unsafe { self.map_claimed(first, count, 0) } {
            Ok(_) => Ok(count),
            Err(Error::Lost) => Ok(0),
            Err(_) if count > 1 => {
                let (first, one) = self.claim_ahead(1).ok_or(Error::NoMemory)?;
                // SAFETY: claimed just now.
                unsafe { self.map_claimed(first, one, 0).map(|_| one) }
            }
            Err(error) => Err(error),
        }
    }

    /// Touches all mapped memory that is free or belongs to spans, the metadata, and the tables.
    ///
    /// # Errors
    /// The system's error.
    pub fn touch_all(&self) -> Result<(), Error> {
        for i in self.mapped_supers() {
            // Slots that are taken meanwhile do not mind: populating keeps contents.
            self.populate_metadata(i, 1)?;
            self.touch_super(i)?;
        }
        self.touch_tables(NodeSuper(0), self.claims.frontier().index())
    }

    /// Touches the slots of a mapped SuperSlab that belong to no run: spans have blocks that nobody
    /// touched yet, large runs are their users' affair.
    fn touch_super(&self, i: NodeSuper) -> Result<(), Error> {
        let id = self.supers.id(i);
        let addresses = &self.ground.addresses;
        let is_run =
            |slot: &usize| matches!(addresses.kind(id.slot(*slot)), Kind::Large | Kind::Huge);
        let mut slot = 0;
        while slot < SLOTS {
            let end = (slot..SLOTS).find(is_run).unwrap_or(SLOTS);
            if slot < end {
                let address = addresses.address_of(id.slot(slot));
                // SAFETY: a mapped SuperSlab; populating keeps contents.
                unsafe { self.populate(address, (end - slot) * SLOT)? };
            }
            slot = end + 1;
        }
        if (0..SLOTS).all(|slot| !is_run(&slot)) {
            self.claims.mark(i, POPULATED);
        }
        Ok(())
    }

    /// Touches the pages of the dense tables that describe `count` SuperSlabs from `first` on.
    pub(super) fn touch_tables(&self, first: NodeSuper, count: usize) -> Result<(), Error> {
        if count == 0 {
            return Ok(());
        }
        let slot = self.supers.id(first).slot(0);
        let bytes = core::ptr::from_ref(self.claims.byte(first)) as usize;
        let rows = (self.ground.addresses)
            .table_rows(slot, count * SLOTS)
            .into_iter()
            .chain(core::iter::once((bytes, count)))
            .chain(self.supers.table_rows(first, count));
        for (address, len) in rows {
            let start = address & !(PAGE - 1);
            let end = (address + len).next_multiple_of(PAGE);
            // SAFETY: the dense tables are committed from the start, page by page.
            unsafe { self.ground.policy.os().populate(start, end - start)? };
        }
        Ok(())
    }

    /// Prepares at least one SuperSlab: one that lost its pages (`cold`), else a hole, else up to
    /// `missing` new ones, as far as neither limit of the heap is met. For the warmer, which holds
    /// the lock of `unmapping`. The number of SuperSlabs prepared.
    ///
    /// # Errors
    /// The system's error, or out of memory at a limit; what was not populated counts as not
    /// prepared.
    pub fn prepare(&self, missing: usize, cold: Option<NodeSuper>) -> Result<usize, Error> {
        let missing = missing.min(self.ground.policy.limit().spare() / SUPER);
        if missing == 0 && cold.is_none() {
            return Err(Error::NoMemory);
        }
        let before = self.claims.frontier().index();
        let (first, count) = if let Some(i) = cold {
            self.populate_super(i)?;
            (i, 1)
        } else if let Some(i) = self.claims.claim_hole() {
            // SAFETY: claimed just now.
            unsafe {
                let _ = self.map_claimed(i, 1, 0)?;
            }
            (i, 1)
        } else if let Some(run) = self.add_gigantic(0) {
            let i = self.supers.local(run.slot().split().0);
            (i, self.claims.frontier().0.saturating_sub(i.0) as usize)
        } else {
            self.prepare_new(missing.min(STEP.max(before / 64)).min(self.step_limit()))?
        };
        // A SuperSlab that cannot be populated is not in the stock: without this the next step
        // would follow at once.
        if self.is_populated(first) {
            Ok(count)
        } else {
            Err(Error::NoMemory)
        }
    }

    fn prepare_new(&self, count: usize) -> Result<(NodeSuper, usize), Error> {
        let count = self.within_pool(count);
        let (first, count) = self.claim_ahead(count).ok_or(Error::NoMemory)?;
        // SAFETY: claimed just now.
        match unsafe { self.map_claimed(first, count, 0) } {
            Err(_) if count > 1 => {
                let (first, one) = self.claim_ahead(1).ok_or(Error::NoMemory)?;
                // SAFETY: claimed just now.
                unsafe { self.map_claimed(first, one, 0).map(|_| (first, one)) }
            }
            done => done.map(|_| (first, count)),
        }
    }

    /// Touches the pages of a mapped SuperSlab and of its metadata. A thread that takes slots of it
    /// meanwhile does not mind.
    fn populate_super(&self, i: NodeSuper) -> Result<(), Error> {
        self.ground.metadata.populate(self.supers.id(i), 1)?;
        // SAFETY: the SuperSlab was mapped when it was found, on pages that are unmapped only by a
        // thread that has the lock of `unmapping`, which the caller holds.
        unsafe { self.ground.policy.os().populate(self.address(i), SUPER)? };
        self.claims.mark(i, POPULATED);
        Ok(())
    }
}
