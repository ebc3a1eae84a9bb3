//! Moving the live blocks of sparse hugetlb pages to small pages, when the program asks for a purge
//! and the option `demote` allows it, so that the hugetlb pages go back to their pool.
//!
//! The move is that of a fork ([`super::fork`]): threads that write wait while the contents are
//! copied, and the copy takes the addresses in one step. It begins as a transparent hugepage, of
//! which the purge then gives the free part back.
#![allow(unsafe_code)] // Replaces the pages of mapped memory.

use super::Pages;
use crate::geometry::{Kind, NodeSuper, SLOTS, SUPER};
use crate::stats::events::EventKind;
use theap_platform::PageMode;

impl Pages {
    /// Moves the SuperSlabs off their hugetlb pages that are in use and half free, as far as there
    /// is memory for that. `workers` is the number of warmer threads there are.
    pub fn demote_sparse(&self, workers: usize) {
        let policy = self.ground.policy;
        if !policy.config().demote || policy.refuses() {
            return;
        }
        // No SuperSlab is unmapped meanwhile, no warmer takes a step, and nobody forks.
        let _lock = self.unmapping().lock();
        let mut room = policy.os().memory_left() as usize / SUPER;
        for i in self.mapped_supers() {
            if room > 0 && self.is_worth_demoting(i) && self.demote(i, workers) {
                room -= 1;
            }
        }
    }

    fn is_worth_demoting(&self, i: NodeSuper) -> bool {
        // The pages of a huge run may be moved by its owner at any moment.
        let huge = self.ground.addresses.kind(self.supers.id(i).slot(0)) == Kind::Huge;
        self.mode(i) == Some(PageMode::Hugetlb)
            && !huge
            && (self.supers.slots(i).free_count() as usize) < SLOTS
            && self.is_sparse(i)
    }

    /// Moves a SuperSlab; false if the system refuses.
    fn demote(&self, i: NodeSuper, workers: usize) -> bool {
        let (policy, address) = (self.ground.policy, self.address(i));
        let bind = self.ground.affinity.binding(self.supers.id(i));
        // SAFETY: the page is mapped so, and the lock of `unmapping`, which the caller has, keeps
        // it mapped and warmers from the heap.
        let demote = || unsafe { policy.os().demote(address, SUPER, bind, workers) };
        let mode = PageMode::Thp;
        let done = (self.ground.figures).recorded(EventKind::Demote, mode as u8, SUPER, demote);
        if done.is_err() {
            return false;
        }
        // SAFETY: mapped, on other pages.
        unsafe {
            policy.lock_memory(address, SUPER);
            self.set_mode(i, mode);
        }
        true
    }
}
