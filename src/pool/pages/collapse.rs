//! Collapsing: SuperSlabs that have been filled up for long and may be on small pages are put on
//! hugepages, one at a time, by the warmer.
//!
//! A hugepage that is split again soon, or never filled, would have cost its clearing for nothing.
//! So the warmer looks at all SuperSlabs in rounds of `decay`, eight times in each. One that was
//! filled up at every look of a round is ripe, and stays so as long as it is filled up.
#![allow(unsafe_code)] // Asks the system to collapse mapped memory.

use super::Pages;
use super::claims::{EXAMINED, FILLED, POPULATED, RIPE, below};
use crate::config;
use crate::geometry::{Kind, NodeSuper, SUPER};
use crate::stats::events::EventKind;
use theap_platform::{Error, PageMode};

/// Free slots up to which a SuperSlab counts as filled up: an eighth.
const FULL: u32 = 4;
/// Free bytes from which on a SuperSlab is not collapsed: the pages of free blocks may be gone, and
/// would come back.
const HOLLOW: usize = SUPER / 4;

impl Pages {
    /// Looks at which SuperSlabs are filled up; `over` tells that a round ends with this look. The
    /// number of those that are ripe.
    pub fn look_for_ripe(&self, over: bool) -> usize {
        if self.ground.policy.config().pages == config::Pages::Small {
            return 0;
        }
        let ripe = below(self.claims.frontier()).filter(|&i| {
            let is_marked = self.claims.has(i, FILLED | RIPE);
            if !self.is_filled(i) || !self.may_collapse(i) {
                if is_marked {
                    self.claims.unmark_some(i, FILLED | RIPE);
                }
                return false;
            }
            if over {
                let stays = self.claims.has(i, FILLED);
                self.claims.mark(i, if stays { RIPE } else { FILLED });
            }
            self.claims.has(i, RIPE)
        });
        ripe.count()
    }

    /// Asks for hugepages for the next ripe SuperSlab from `cursor` on. `ask` makes the call in the
    /// way that suits the caller. Where the search goes on next time, and what came of it; `None`
    /// if none is ripe any more.
    pub fn collapse_one(
        &self,
        cursor: usize,
        ask: impl FnOnce(&mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error>,
    ) -> Option<(usize, Result<(), Error>)> {
        let frontier = self.claims.frontier().index();
        let from = if cursor < frontier { cursor } else { 0 };
        let i = (from..frontier)
            .chain(0..from)
            .map(|i| NodeSuper(i as u32))
            .find(|&i| self.is_ripe(i))?;
        let (os, address) = (self.ground.policy.os(), self.address(i));
        // SAFETY: mapped on small or transparent pages, which stay mapped.
        let collapse = || unsafe { os.collapse(address, SUPER) };
        let mode = PageMode::Thp;
        let done = ask(&mut || {
            (self.ground.figures).recorded(EventKind::Collapse, mode as u8, SUPER, collapse)
        });
        // After a refusal its time begins anew.
        self.claims.unmark_some(i, FILLED | RIPE);
        if done.is_ok() {
            if self.mode(i) != Some(mode) {
                // SAFETY: it has hugepages now.
                unsafe { self.set_mode(i, mode) };
            }
            self.supers.leave_to_all(i);
            self.claims.mark(i, POPULATED | EXAMINED);
        }
        Some((i.index() + 1, done))
    }

    /// Whether a SuperSlab is ripe, unless it turns out that much of it is free. Then it is no
    /// longer.
    fn is_ripe(&self, i: NodeSuper) -> bool {
        if !self.claims.has(i, RIPE) {
            return false;
        }
        let is = self.is_filled(i) && self.may_collapse(i) && self.free_bytes_of(i) < HOLLOW;
        if !is {
            self.claims.unmark_some(i, FILLED | RIPE);
        }
        is
    }

    fn is_filled(&self, i: NodeSuper) -> bool {
        // Slots that are ABSENT are neither free nor in use.
        self.mode(i).is_some() && self.supers.slots(i).free_count() <= FULL
    }

    fn may_collapse(&self, i: NodeSuper) -> bool {
        let may = match self.mode(i) {
            Some(PageMode::Small) => {
                self.ground.policy.config().pages == config::Pages::Auto || self.is_bridge(i)
            }
            Some(PageMode::Thp) => true,
            _ => false,
        };
        // The pages of a huge run may be moved by its owner at any moment.
        let huge = self.ground.addresses.kind(self.supers.id(i).slot(0)) == Kind::Huge;
        // Nurseries are on small pages as their blocks may never be touched.
        let may = may && !self.supers.nursed().is_reserved(i);
        may && !huge && !self.is_examined(i)
    }
}
