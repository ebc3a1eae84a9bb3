//! The tables with a byte or a word for each slot or SuperSlab, which are opened along with the
//! parts of the range: a host with much memory would otherwise have to lend its smallest program
//! tables for all of it.
#![allow(unsafe_code)] // Makes tables accessible.

use crate::geometry::{NodeIndex, SLOTS, SUPER};
use crate::pool::addresses::AddressMap;
use crate::pool::policy::Policy;
use theap_platform::{Error, PAGE};

/// SuperSlabs by which a part is opened: 1 GiB.
const STEP: usize = (1 << 30) / SUPER;

/// A table: its address, and its bytes for each SuperSlab of the range.
#[derive(Clone, Copy)]
pub struct Stretch {
    /// The first byte, on a page.
    pub address: usize,
    /// Bytes for each SuperSlab.
    pub bytes: usize,
}

/// Tables of so many bytes for each SuperSlab: SP-SLOT words, page modes, class bytes, heads.
pub const STRETCHES: [usize; 4] = [8, 1, SLOTS, SLOTS];

/// The tables of a heap. Immutable, and copied into the parts of the pool that open them.
#[derive(Clone, Copy)]
pub struct Tables {
    policy: &'static Policy,
    addresses: AddressMap,
    stretches: [Stretch; STRETCHES.len()],
}

impl Tables {
    /// Whether parts of so many SuperSlabs are opened in steps: their tables are whole pages.
    /// Smaller ones are open from the start.
    pub const fn open_in_steps(supers: usize) -> bool {
        supers.is_multiple_of(PAGE)
    }

    /// The tables of a heap with this range.
    ///
    /// # Safety
    /// The ranges are the tables' alone, zero and accessible for the SuperSlabs that are open; the
    /// others can be opened as the policy's `open` asks.
    pub unsafe fn new(
        policy: &'static Policy,
        addresses: AddressMap,
        stretches: [Stretch; STRETCHES.len()],
    ) -> Self {
        Self {
            policy,
            addresses,
            stretches,
        }
    }

    /// Opens a node's part up to the `end`-th SuperSlab at least.
    ///
    /// # Errors
    /// The system's error, also where the part ends before; nothing is lost.
    #[cold]
    pub fn open(&self, node: NodeIndex, end: usize) -> Result<(), Error> {
        let (first, supers) = self.addresses.supers_of(node);
        let _opening = self.policy.opening();
        let from = self.addresses.open_supers(node);
        if end <= from {
            return Ok(());
        }
        if end > supers {
            return Err(Error::NoMemory);
        }
        let to = end.next_multiple_of(STEP).min(supers);
        // A table may have its page already, of the step before.
        let range = |stretch: &Stretch| {
            let at = |i: usize| {
                (stretch.address + (first.index() + i) * stretch.bytes).next_multiple_of(PAGE)
            };
            (at(from), at(to) - at(from))
        };
        for (k, stretch) in self.stretches.iter().enumerate() {
            let (address, len) = range(stretch);
            // SAFETY: pages of a table that nobody has opened before, or that are given back here.
            unsafe {
                if len > 0
                    && let Err(error) = self.policy.open(address, len)
                {
                    for (address, len) in self.stretches[..k].iter().map(range) {
                        self.policy.close(address, len);
                    }
                    return Err(error);
                }
            }
        }
        // SAFETY: opened just now; what the system maps anew is zero.
        unsafe { self.addresses.open_up_to(node, to) };
        Ok(())
    }
}
