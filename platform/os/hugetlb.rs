//! Pages of the hugetlb pools, and mappings that get their pages one by one.
#![allow(unsafe_code)] // Functions of the contract are unsafe, and forward to functions that are.

use super::Os;
#[cfg(feature = "fake")]
use crate::Call;
use crate::{Error, NodeId, PageMode, system};

impl Os {
    /// Makes a reserved range usable as [`Os::map`] does, but populates only the first `touched`
    /// bytes of hugetlb pages. Nobody may touch another page of theirs before [`Os::fill`] has
    /// populated it: what the pool promises, a control group may refuse.
    ///
    /// # Errors
    /// The errors of [`Os::map`].
    ///
    /// # Safety
    /// The conditions of [`Os::map`]; `touched` is whole pages.
    pub unsafe fn map_ahead(
        self,
        addr: usize,
        (len, touched): (usize, usize),
        mode: PageMode,
        bind: Option<NodeId>,
    ) -> Result<(), Error> {
        inject!(self, Map);
        #[cfg(feature = "fake")]
        if let Some(fake) = self.fake {
            // SAFETY: the range is aligned and only reserved, as the caller promises in `# Safety`.
            return unsafe { fake.map(addr, (len, touched), mode, bind) };
        }
        // SAFETY: the range is aligned and only reserved, as the caller promises in `# Safety`.
        unsafe { system::map::map(addr, (len, touched), mode, bind) }
    }

    /// Populates a hugetlb page of a mapping that [`Os::map_ahead`] has made.
    ///
    /// # Errors
    /// [`Error::NoHugepages`] if the pool or a control group gives no page.
    ///
    /// # Safety
    /// The page is mapped so in this `mode`, untouched, and the caller's alone.
    pub unsafe fn fill(self, addr: usize, mode: PageMode) -> Result<(), Error> {
        inject!(self, Populate);
        let page = mode.page();
        // SAFETY: a page of the caller's, as this function's `# Safety` asks.
        unsafe { system::huge::fill(addr, page, page) }
    }

    /// Tells whether the hugetlb pool of 2 MiB pages would promise `len` bytes of memory now,
    /// without reading a file.
    pub fn hugetlb_serves(self, len: usize) -> bool {
        system::huge::hugetlb_serves(len)
    }

    /// Free pages of the system's hugetlb pool for `mode` that nobody has reserved. Of 2 MiB pages
    /// it is at most what the control groups of this process leave. 0 for modes without a pool.
    pub fn hugetlb_free(self, mode: PageMode) -> usize {
        system::hugetlb::free(mode)
    }
}
