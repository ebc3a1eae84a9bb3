//! The allocators under comparison, and how each proves that a block is its own.
//!
//! A proof reads the allocator's own records; an address range guessed from outside is none.
//! - `theap.rs`: the block is in theap's reserved range (`theap::owns`), and theap's tables say
//!   that it is large enough (`theap::usable_size`).
//! - `system.rs`: the block is neither theap's nor a peer's, `malloc_usable_size` says that it is
//!   large enough, and glibc's count of bytes in use (`mallinfo2`) rises by what a probe allocates.
//! - `peers.rs`: mimalloc and jemalloc in one process with theap and System (feature `peers`).
//! - `preloaded.rs`: the library that was preloaded into this process.
//! - `operators.rs`: C++'s new and delete before such a library, for the rows about them.
//! - `null.rs`: the limit of the harness, an allocator that does nothing.
//!
//! The programs of the suite, each with one more peer, stand in `contenders/` beside `src/`.
//!
//! To add an allocator: implement [`Contender`] for it, and add a row to `workload/contenders.rs`
//! or a program to `contenders/`.

#[macro_use]
mod forward;
mod glibc;
#[cfg(feature = "peers")]
mod jemalloc;
mod null;
mod operators;
#[cfg(feature = "peers")]
mod peers;
mod preloaded;
mod system;
mod theap;
mod unrecorded;

use std::alloc::GlobalAlloc;
use std::ptr::NonNull;

use crate::error::Error;

pub use null::Null;
pub(crate) use operators::Operators;
pub use preloaded::Preloaded;
pub use unrecorded::is_of_neither;

/// An allocator that the benchmarks can run on. All values of the type are the same heap, and any
/// thread may free what another allocated.
pub trait Contender: GlobalAlloc + Sync {
    /// The name on the command line and in reports.
    const NAME: &'static str;

    /// Whether no two threads may use the allocator at once. It then runs rows of the category
    /// `HitPath` and nothing else.
    const ONE_THREAD: bool = false;

    /// Whether the allocator's own records show that `block`, a live block, is its own and has
    /// room for `size` bytes.
    fn owns(&self, block: NonNull<u8>, size: usize) -> bool;

    /// The allocator's count of allocated bytes, which rises at once by at least the bytes that
    /// this thread allocates while it frees nothing. `None` if the allocator has no such count.
    fn bytes_counted(&self) -> Option<u64> {
        None
    }

    /// Tells the allocator before a row that the row will hold at most `blocks` blocks, which have
    /// `mean` bytes on average. Only [`Null`] needs to know.
    fn expect(&self, _blocks: usize, _mean: usize) {}

    /// Has the allocator make `bytes` of memory ready, page faults included. Returns false if the
    /// allocator has no such call.
    ///
    /// # Errors
    /// Fails if the allocator cannot make that much ready.
    fn warm_up(&self, _bytes: usize) -> Result<bool, Error> {
        Ok(false)
    }

    /// The bytes of memory that a block of `size` bytes takes, as far as the allocator tells.
    fn taken(&self, size: usize) -> usize {
        size
    }

    /// Has the allocator give free memory back to the system, as far as its own interface can.
    /// Returns false if the allocator has no such call.
    fn trim(&self) -> bool {
        false
    }
}
