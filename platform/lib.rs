//! The platform layer of theap: everything that the allocator asks of the operating system.
//!
//! [`Os`] is the whole contract, and `os.rs` is its one page: each function states what it needs,
//! whether memory comes zeroed, and what a failure leaves behind. `linux/` does the work: it makes
//! raw system calls through rustix, and uses libc only where rustix has no equivalent. Tests can
//! put a fake in front of it (`fake/`, feature `fake`), which injects failures, a topology and a
//! clock. Under Miri, which knows no system calls, `miri/` stands in for `linux/`.
//!
//! Nothing here allocates, panics on an answer of the kernel, or changes `errno`. Addresses are
//! plain `usize`: the layer above keeps books on addresses and turns them into pointers itself,
//! whose provenance [`Os::reserve`] has exposed.
//!
//! A range of addresses is always in one of these states:
//!
//! ```text
//! reserve -> RESERVED --commit--> COMMITTED                      (metadata: lazily zero, for ever)
//!            RESERVED --map-----> MAPPED(mode) --unmap--> RESERVED   (memory of users)
//! ```
//!
//! No function ever leaves a hole in a reservation: a foreign `mmap` could take the hole, and the
//! allocator would then hand out memory that is not its own. Where the kernel can fail between
//! taking away the old mapping and putting in the new one, this crate closes the hole again; if
//! somebody else was faster, the answer is [`Error::Lost`].
#![no_std]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("theap runs on Linux x86_64 only");

// For thread-local variables (the ranks held in debug builds, the CPU of the fake) and for Miri.
#[cfg(any(debug_assertions, test, feature = "fake", miri))]
extern crate std;

mod cpus;
mod error;
#[cfg(feature = "fake")]
mod fake;
mod frame;
mod line;
#[cfg(not(miri))]
mod linux;
mod lock;
mod machine;
mod mapping;
#[cfg(miri)]
mod miri;
mod node_set;
mod os;
mod pages;
mod room;
mod signal;
mod topology;

/// The backend to which the functions of the contract forward.
#[cfg(not(miri))]
use linux as system;
#[cfg(miri)]
use miri as system;

pub use cpus::Cpus;
pub use error::Error;
#[cfg(feature = "fake")]
pub use fake::{Call, Fake};
pub use frame::Frame;
pub use line::Line;
#[cfg(feature = "lock-stats")]
pub use lock::contention::{Contention, contention};
pub use lock::{Guard, Mutex, Rank, RawMutex, spin_only};
pub use machine::{Cpu, NodeId};
pub use mapping::Mapping;
pub use os::Os;
pub use pages::{HUGE, HUGE_1G, PAGE, PageMode};
pub use room::{Bound, Pressure, Room};
pub use system::share::Shared;
pub use system::worker::Worker;
pub use system::{fork, thread_exit};
pub use topology::{MAX_NODES, Topology};

/// A report when the process dies of a signal: a hook that runs once, in the signal's handler,
/// before the handler that the program had.
pub mod crash {
    pub use crate::signal::Crash;
    pub use crate::system::crash::install;
}
