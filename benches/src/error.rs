//! Why a run counts for nothing.

use std::path::Path;

/// Why a run counts for nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A block is not where the contender's label says: the figures would be another allocator's.
    #[error("the run is not {allocator}'s: {found}")]
    Foreign {
        /// The contender that failed to prove its memory.
        allocator: &'static str,
        /// The finding that speaks against it.
        found: String,
    },
    /// The allocator returned null.
    #[error("{allocator} could not allocate {size} bytes; lower the parameters or free memory")]
    Exhausted {
        /// The contender that returned null.
        allocator: &'static str,
        /// Bytes asked for.
        size: usize,
    },
    /// The run could not be prepared as asked.
    #[error("{0}")]
    Setup(String),
}

/// The error of a file that the harness could not `act` on, for example `read`.
pub(crate) fn cannot(act: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::Setup(format!("cannot {act} {}: {error}", path.display()))
}
