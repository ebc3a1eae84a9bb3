//! The SuperSlabs that a step of growth has mapped ahead: how they become spare, are used, and go.
#![allow(unsafe_code)] // Populates and unmaps what is spare.

use super::Pages;
use super::spare::{Mapped, Spare};
use crate::geometry::{NodeSuper, SUPER};
use crate::pool::addresses::SlotRun;
use crate::stats::events::EventKind;
use theap_platform::{Error, PageMode};

impl Pages {
    /// Populates and adds a spare SuperSlab, if there is one, and takes its first `taken` slots.
    pub(super) fn add_spare(&self, taken: usize) -> Option<SlotRun> {
        let spare = self.spare.take()?;
        let mode = PageMode::from_number(spare.mode)?;
        // SAFETY: a spare SuperSlab, which is this thread's now.
        let populated = unsafe { self.populate_spare(spare.first, mode) };
        let Ok(populated) = populated else {
            // The pool or the control group has no page for the others either.
            self.unmap_spare();
            self.unmap_mapped(&self.spare, spare);
            return None;
        };
        // SAFETY: a spare SuperSlab was claimed and mapped, and is this thread's now.
        Some(unsafe { self.publish(spare.first, (1, taken), mode, populated) })
    }

    /// Populates a spare SuperSlab. Whether all of its pages are there.
    ///
    /// # Errors
    /// There is no hugetlb page for it.
    ///
    /// # Safety
    /// The SuperSlab is mapped in this mode, untouched, and the caller's.
    unsafe fn populate_spare(&self, i: NodeSuper, mode: PageMode) -> Result<bool, Error> {
        let (os, address) = (self.ground.policy.os(), self.address(i));
        if !mode.is_hugetlb() {
            // SAFETY: mapped, as this function's Safety section has it.
            return Ok(self.prefaults(i) && unsafe { self.populate(address, SUPER) }.is_ok());
        }
        // SAFETY: this function's own Safety section.
        let fill = || unsafe { os.fill(address, mode) };
        (self.ground.figures).recorded(EventKind::Populate, mode as u8, SUPER, fill)?;
        Ok(true)
    }

    /// Makes claimed SuperSlabs spare, which are mapped.
    pub(super) fn keep_spare(&self, spare: &Spare, mapped: Mapped) {
        if mapped.count > 0 && !spare.put(mapped) {
            self.unmap_mapped(spare, mapped);
        }
    }

    /// Maps a step of growth where nothing is spare, for the threads that grow later; none where
    /// the heap has a limit, as a thread may need the room.
    pub fn map_ahead(&self) {
        if self.spare.count() > 0 || self.ground.policy.limit().is_set() {
            return;
        }
        let Some((first, count)) = self.claim_ahead(self.next_step()) else {
            return;
        };
        // SAFETY: claimed just now.
        let mapped = unsafe { self.map_or_give_up(first, (count, 0), self.modes(first, count)) };
        if let Ok((mode, _)) = mapped {
            // A failure costs only page faults later.
            let _ = self.touch_tables(first, count);
            let mapped = Mapped {
                first,
                count,
                mode: mode as u8,
            };
            self.keep_spare(&self.spare, mapped);
        }
    }

    /// Tells whether SuperSlabs are spare.
    pub fn has_spare(&self) -> bool {
        self.spare_bytes() > 0
    }

    /// Unmaps the spare SuperSlabs, under the growth lock, so that no fork comes between.
    pub fn drop_spare(&self) {
        if self.has_spare() && !self.ground.policy.is_sealed() {
            let _growth = self.growth.lock();
            self.unmap_spare();
        }
    }

    /// The bytes of the spare SuperSlabs.
    pub fn spare_bytes(&self) -> usize {
        let bridge = self.bridge.iter().map(Spare::count);
        (self.spare.count() + bridge.sum::<usize>()) * SUPER
    }

    /// The number of spare SuperSlabs to which the hugetlb pool has promised pages.
    pub fn promised_count(&self) -> usize {
        let promised = |spare: &Mapped| spare.mode == PageMode::Hugetlb as u8;
        self.spare
            .get()
            .filter(promised)
            .map_or(0, |spare| spare.count)
    }

    /// Unmaps these. On other pages spare SuperSlabs take nothing from anybody.
    pub(super) fn drop_promised(&self) {
        if self.promised_count() > 0 {
            self.unmap_all(&self.spare);
        }
    }

    /// Unmaps the spare SuperSlabs.
    pub(super) fn unmap_spare(&self) {
        self.unmap_all(&self.spare);
        (self.bridge.iter()).for_each(|bridge| self.unmap_all(bridge));
    }

    fn unmap_all(&self, spare: &Spare) {
        if let Some(mapped) = spare.take_all() {
            self.unmap_mapped(spare, mapped);
        }
    }

    /// Unmaps claimed SuperSlabs that are mapped and untouched. Where the system refuses, they are
    /// spare again.
    fn unmap_mapped(&self, spare: &Spare, mapped: Mapped) {
        let Mapped { first, count, mode } = mapped;
        let Some(mode) = PageMode::from_number(mode) else {
            return;
        };
        let (os, address, len) = (self.ground.policy.os(), self.address(first), count * SUPER);
        // SAFETY: claimed and untouched: nobody refers to them.
        let unmap = || unsafe { os.unmap(address, len, mode) };
        match (self.ground.figures).recorded(EventKind::Unmap, mode as u8, len, unmap) {
            Ok(()) => {
                // SAFETY: unmapped just now.
                unsafe { self.ground.policy.unreserve(address, len) };
                self.ground.policy.limit().give(len);
                self.give_up(first, count);
            }
            Err(error) => {
                if error == Error::Lost || !spare.put(mapped) {
                    self.ground.policy.limit().give(len);
                    // SAFETY: claimed.
                    (0..count).for_each(|k| unsafe { self.set_lost(first.add(k)) });
                }
            }
        }
    }
}
