//! The memory that the process may still take.

use super::Os;
use crate::{Bound, Pressure, Room, system};

impl Os {
    /// The memory that this process may still take, as the kernel estimates it now: files are read.
    /// Caches of files count as available where the kernel can drop them.
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

    /// Asks the kernel to tell when memory is short: in the control group of this process where
    /// that is one of version 2 and lets the process ask, else on the machine. One descriptor stays
    /// open. [`Pressure::NONE`] where the kernel tells nothing.
    pub fn watch_pressure(self) -> Pressure {
        #[cfg(feature = "fake")]
        if self.fake.is_some() {
            return Pressure(0);
        }
        system::pressure::watch()
    }

    /// Whether memory was short since the last look. It takes one system call.
    pub fn is_pressed(self, pressure: &Pressure) -> bool {
        #[cfg(feature = "fake")]
        if let Some(fake) = self.fake {
            return pressure.is_some() && fake.take_pressure();
        }
        pressure.is_some() && system::pressure::is_pressed(pressure)
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
