//! Collapsing: SuperSlabs that are filled up and may be on small pages are put on hugepages, one at
//! a time, by the warmer.
#![allow(unsafe_code)] // Asks the system to collapse mapped memory.

use super::Pages;
use super::claims::{EXAMINED, POPULATED};
use crate::config;
use crate::geometry::{Kind, NodeSuper, SUPER};
use theap_platform::{Error, PageMode};

/// SuperSlabs that a step looks at in search of small pages.
const LOOKS: usize = 64;
/// Free slots up to which a SuperSlab counts as filled up.
const FULL: u32 = 8;

impl Pages {
    /// Asks for hugepages for the next SuperSlab from `cursor` on that is filled up and may be on
    /// small pages, once for each. `ask` makes the call in the way that suits the caller. Where the
    /// search goes on next time, and whether a SuperSlab was collapsed.
    pub fn collapse_one(
        &self,
        cursor: usize,
        ask: impl FnOnce(&mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error>,
    ) -> (usize, bool) {
        let frontier = self.claims.frontier().index();
        let next = (0..LOOKS.min(frontier))
            .map(|k| NodeSuper(((cursor + k) % frontier) as u32))
            .find(|&i| self.may_collapse(i));
        let Some(i) = next else {
            let after = (cursor + LOOKS).checked_rem(frontier);
            return (after.unwrap_or(0), false);
        };
        let (os, address) = (self.ground.policy.os(), self.address(i));
        // SAFETY: mapped on small or transparent pages, which stay mapped.
        let done = ask(&mut || unsafe { os.collapse(address, SUPER) }).is_ok();
        if done {
            // SAFETY: it has hugepages now.
            unsafe { self.set_mode(i, PageMode::Thp) };
            self.supers.nursed().mark(i, false);
            self.claims.mark(i, POPULATED);
        }
        self.claims.mark(i, EXAMINED);
        (i.index() + 1, done)
    }

    fn may_collapse(&self, i: NodeSuper) -> bool {
        let may = match self.mode(i) {
            Some(PageMode::Small) => self.ground.policy.config().pages == config::Pages::Auto,
            Some(PageMode::Thp) => true,
            _ => false,
        };
        // The pages of a huge run may be moved by its owner at any moment.
        let huge = self.ground.addresses.kind(self.supers.id(i).slot(0)) == Kind::Huge;
        // Nurseries are on small pages as their blocks may never be touched.
        let may = may && !self.supers.nursed().is_reserved(i);
        may && !huge && !self.is_examined(i) && self.supers.slots(i).free_count() <= FULL
    }
}
