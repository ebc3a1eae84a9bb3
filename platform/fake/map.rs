//! The fake's part in mapping memory.
#![allow(unsafe_code)] // Forwards an unsafe function of the contract.

use super::{Call, Fake, lock};
use crate::system::map;
use crate::{Error, NodeId, PageMode};

impl Fake {
    /// Maps a range, unless a test has ordered a refusal, and records its binding.
    ///
    /// # Safety
    /// The conditions of [`crate::Os::map_ahead`].
    pub(crate) unsafe fn map(
        &self,
        addr: usize,
        lens: (usize, usize),
        mode: PageMode,
        bind: Option<NodeId>,
    ) -> Result<(), Error> {
        lock(&self.script).check_mode(mode)?;
        if bind.is_some() {
            self.check(Call::Bind)?;
        }
        let pretended = self.pretends_nodes();
        // SAFETY: the range is aligned and only reserved, as the caller promises in `# Safety`.
        unsafe { map::map(addr, lens, mode, bind.filter(|_| !pretended)) }?;
        self.note_binding(addr, lens.0, bind);
        Ok(())
    }
}
