//! The memory that the process may still take.

use super::Os;
use crate::system;

/// Memory that may still be taken, and what bounds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Bytes on pages that belong to no hugetlb pool.
    pub bytes: u64,
    /// The reason why there are no more.
    pub bound: Bound,
}

/// What bounds memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// The machine has no more that is available.
    Machine,
    /// The control groups of this process leave no more.
    Group,
    /// The limits of this process leave no more (RLIMIT_AS, RLIMIT_DATA).
    Process,
}

impl Os {
    /// The memory that this process may still take, as the kernel estimates it now: files are read.
    /// What caches hold of files, and the kernel can drop, is available.
    pub fn room(self) -> Room {
        #[cfg(feature = "fake")]
        if let Some(room) = self.fake.and_then(crate::Fake::room) {
            return room;
        }
        let bounds = [
            (system::process::available(), Bound::Machine),
            (system::cgroup::memory_left(), Bound::Group),
            (system::process::limits_left(), Bound::Process),
        ];
        let least = bounds.into_iter().min_by_key(|&(bytes, _)| bytes);
        let (bytes, bound) = least.unwrap_or((0, Bound::Machine));
        Room { bytes, bound }
    }

    /// The number of this process.
    pub fn process_id(self) -> u32 {
        #[cfg(feature = "fake")]
        if self.fake.is_some() {
            return crate::Fake::PROCESS_ID;
        }
        system::process::id()
    }
}
