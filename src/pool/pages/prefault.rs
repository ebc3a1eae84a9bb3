//! Prefaulting: memory is mapped and touched before it is used, by a thread that asks for it
//! (`warm_up`, `reserve`) or by the warmer.
#![allow(unsafe_code)] // Populates mapped and committed memory.

use super::Pages;
use super::claims::POPULATED;
use crate::config;
use crate::geometry::{Kind, NodeSuper, SLOT, SLOTS, SUPER};
use theap_platform::{Error, PAGE, PageMode};

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
            let mut missing = bytes.saturating_sub(self.free_bytes()).div_ceil(SUPER);
            if missing == 0 {
                return Ok(());
            }
            while missing > 0 {
                let added = self.add_free()?;
                // The program wants it warm, also after it has used and freed it.
                self.supers.decay().warm(added * SLOTS);
                missing = missing.saturating_sub(added);
            }
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

    /// Adds a free SuperSlab, or those of a page of 1 GiB. Their number.
    fn add_free(&self) -> Result<usize, Error> {
        let _growth = self.growth.lock();
        let run = self.add_one(0)?;
        Ok(self.count_added(&run))
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

    /// Prepares at least one SuperSlab: one that lost its pages (`cold`), else up to `missing`
    /// others, as far as neither limit of the heap is met. For the warmer, which holds the lock of
    /// `unmapping`. The number of SuperSlabs prepared.
    ///
    /// # Errors
    /// The system's error, or out of memory at a limit; what was not populated counts as not
    /// prepared.
    pub fn prepare(&self, missing: usize, cold: Option<NodeSuper>) -> Result<usize, Error> {
        if let Some(i) = cold {
            if !self.is_bridge(i) {
                self.populate_super(i)?;
                return Ok(1);
            }
            self.unmap_bridge(i);
        }
        let most = missing.min(STEP.max(self.claims.frontier().index() / 64));
        let mut count = 0;
        while count < most {
            // A thread that must grow meanwhile finds it mapped.
            self.map_bridge();
            match self.prepare_one() {
                Ok(added) => count += added,
                Err(error) if count == 0 => return Err(error),
                Err(_) => break,
            }
        }
        self.map_ahead();
        Ok(count)
    }

    /// Prepares a SuperSlab, or those of a page of 1 GiB. Each is there for the threads at once.
    fn prepare_one(&self) -> Result<usize, Error> {
        if self.ground.policy.limit().spare() < SUPER && self.spare.count() == 0 {
            return Err(Error::NoMemory);
        }
        let run = self.add_one(0)?;
        // A SuperSlab that cannot be populated is not in the stock: without this the next step
        // would follow at once.
        if self.is_populated(self.supers.local(run.slot().split().0)) {
            Ok(self.count_added(&run))
        } else {
            Err(Error::NoMemory)
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
