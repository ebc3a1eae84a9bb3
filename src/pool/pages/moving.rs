//! Moving the contents of whole SuperSlabs: by moving their pages where the system can, else by
//! copying.
#![allow(unsafe_code)] // Moves pages and copies memory.

use super::Pages;
use crate::geometry::{NodeSuper, SUPER};
use core::ptr;
use theap_platform::{Error, PageMode};

#[cfg_attr(
    feature = "valgrind",
    allow(dead_code, reason = "memcheck knows no moved pages")
)]
impl Pages {
    /// Moves the contents of SuperSlab `from` of this node to SuperSlab `new` of node `to`. The old
    /// contents are unspecified afterwards.
    ///
    /// # Errors
    /// [`Error::Lost`] says that the system took the addresses of the new SuperSlab; the old
    /// contents are as they were.
    ///
    /// # Safety
    /// Both SuperSlabs are different, mapped, and wholly the caller's.
    pub unsafe fn move_super(
        &self,
        from: NodeSuper,
        to: &Pages,
        new: NodeSuper,
    ) -> Result<(), Error> {
        let (old_address, new_address) = (self.address(from), to.address(new));
        // SAFETY: two different SuperSlabs of the caller's, as this function's Safety section asks.
        let copy = || unsafe {
            ptr::copy_nonoverlapping(old_address as *const u8, new_address as *mut u8, SUPER);
        };
        let (Some(mode), true) = (self.movable_mode(from), self.may_move(from, to, new)) else {
            copy();
            return Ok(());
        };
        let (policy, os) = (self.ground.policy, self.ground.policy.os());
        // SAFETY: both are mapped, on pages that can be moved, and the caller's alone. The old one
        // reads zero afterwards and stays usable.
        match unsafe { os.move_pages(old_address, new_address, SUPER) } {
            Ok(()) => {
                // SAFETY: mapped.
                unsafe { policy.lock_memory(old_address, SUPER) };
                return Ok(());
            }
            Err(Error::Unsupported) => {}
            Err(Error::Lost) => return Err(Error::Lost),
            // SAFETY: the new one is only reserved now, and the caller's.
            Err(_) => unsafe { to.map(new, (1, 1), mode).map_err(|_| Error::Lost)? },
        }
        copy();
        Ok(())
    }

    fn movable_mode(&self, i: NodeSuper) -> Option<PageMode> {
        self.mode(i)
            .filter(|mode| matches!(mode, PageMode::Small | PageMode::Thp))
    }

    fn may_move(&self, from: NodeSuper, to: &Pages, new: NodeSuper) -> bool {
        let binding = |pages: &Pages, i| pages.ground.affinity.binding(pages.supers.id(i));
        let policy = self.ground.policy;
        !policy.is_sealed()
            && !policy.is_plain()
            && self.mode(from) == to.mode(new)
            && binding(self, from) == binding(to, new)
    }
}
