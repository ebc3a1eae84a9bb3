//! The contenders that one process can compare: a table of names, with the workloads compiled for
//! each.

use std::alloc::System;

#[cfg(feature = "peers")]
use mimalloc::MiMalloc;
use theap::Theap;
#[cfg(feature = "peers")]
use tikv_jemallocator::Jemalloc;

use super::{Outcome, Params, Workload};
use crate::contender::Contender;
use crate::error::Error;

/// A row of the table of contenders.
pub struct Entry {
    /// [`Contender::NAME`].
    pub name: &'static str,
    /// Runs a workload on this contender.
    pub run: fn(Workload, &Params) -> Result<Outcome, Error>,
}

/// Every contender of this build, theap first.
pub const CONTENDERS: &[Entry] = &[
    Entry {
        name: Theap::NAME,
        run: |workload, params| workload.run(&Theap::new(), params),
    },
    Entry {
        name: System::NAME,
        run: |workload, params| workload.run(&System, params),
    },
    #[cfg(feature = "peers")]
    Entry {
        name: MiMalloc::NAME,
        run: |workload, params| workload.run(&MiMalloc, params),
    },
    #[cfg(feature = "peers")]
    Entry {
        name: Jemalloc::NAME,
        run: |workload, params| workload.run(&Jemalloc, params),
    },
];

/// The contender of that name.
pub fn contender(name: &str) -> Option<&'static Entry> {
    CONTENDERS.iter().find(|entry| entry.name == name)
}
