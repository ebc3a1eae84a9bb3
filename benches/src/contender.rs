//! The allocators under comparison, and how each proves that a block is its own.
//!
//! A proof reads the allocator's own records; an address range guessed from outside is none.
//! - theap: in its reserved range (`theap::owns`), and large enough by its tables
//!   (`theap::usable_size`).
//! - System: not theap's nor a peer's, large enough by `malloc_usable_size`, and glibc's count of
//!   bytes in use (`mallinfo2`) rises by what a probe allocates.
//! - peers: see `peers.rs`, and `contenders/` for the programs of the suite.
//!
//! To add an allocator: implement [`Contender`] for it and add a row to [`CONTENDERS`].
#![allow(unsafe_code)] // glibc's introspection

use std::alloc::{GlobalAlloc, System};
use std::ptr::NonNull;

use theap::Theap;

use crate::{Error, Outcome, Params, Workload};

/// An allocator that the workloads can run on. All values of the type are the same heap, and any
/// thread may free what another allocated.
pub trait Contender: GlobalAlloc + Sync + 'static {
    /// The name on the command line and in reports.
    const NAME: &'static str;

    /// Whether the allocator's own records show that `block`, a live block, is its own and has
    /// room for `size` bytes.
    fn owns(&self, block: NonNull<u8>, size: usize) -> bool;

    /// A count of the allocator that rises by at least the bytes that this thread allocates while it
    /// frees nothing, where it has one that does so at once.
    fn bytes_counted(&self) -> Option<u64> {
        None
    }

    /// Told before a row that it will hold at most `blocks` blocks of `mean` bytes on average.
    fn expect(&self, _blocks: usize, _mean: usize) {}

    /// Has `bytes` ready and faulted in. Returns false where the allocator has no such call.
    fn warm_up(&self, _bytes: usize) -> Result<bool, Error> {
        Ok(false)
    }
}

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
    crate::peers::MIMALLOC,
    #[cfg(feature = "peers")]
    crate::peers::JEMALLOC,
];

/// The contender of that name.
pub fn contender(name: &str) -> Option<&'static Entry> {
    CONTENDERS.iter().find(|entry| entry.name == name)
}

impl Contender for Theap {
    const NAME: &'static str = "theap";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        theap::owns(block.as_ptr()) && theap::usable_size(block.as_ptr()) >= size
    }

    fn warm_up(&self, bytes: usize) -> Result<bool, Error> {
        match theap::warm_up(bytes) {
            Ok(()) => Ok(true),
            Err(error) => Err(Error::Setup(format!(
                "theap cannot warm up {bytes} bytes: {error}"
            ))),
        }
    }
}

impl Contender for System {
    const NAME: &'static str = "system";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        if theap::owns(block.as_ptr()) || is_a_peers(block) {
            return false;
        }
        // SAFETY: the block is live and no other allocator of this process claims it, so it came
        // from malloc, which is what the function asks for.
        let usable = unsafe { libc::malloc_usable_size(block.as_ptr().cast()) };
        usable >= size
    }

    fn bytes_counted(&self) -> Option<u64> {
        // SAFETY: no precondition; it only reads the arenas' counters, under their locks.
        let info = unsafe { libc::mallinfo2() };
        Some((info.uordblks + info.hblkhd) as u64)
    }
}

#[cfg(feature = "peers")]
use crate::peers::is_a_peers;

/// Without peers in the build no block can be theirs.
#[cfg(not(feature = "peers"))]
fn is_a_peers(_block: NonNull<u8>) -> bool {
    false
}
