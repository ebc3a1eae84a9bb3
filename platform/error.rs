//! The errors of the operating system.

use core::fmt;

/// Why the operating system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No memory, no address space, or no room for another mapping.
    NoMemory,
    /// The hugetlb pool (or the cgroup's share of it) cannot serve the range.
    NoHugepages,
    /// This kernel does not have the function.
    Unsupported,
    /// Somebody else has the addresses now: never touch them, and never pass them to this crate
    /// again.
    Lost,
    /// Any other `errno`.
    Other(i32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoMemory => f.write_str("out of memory"),
            Error::NoHugepages => f.write_str("no hugetlb pages left"),
            Error::Unsupported => f.write_str("not supported by this kernel"),
            Error::Lost => f.write_str("address range lost to a foreign mapping"),
            Error::Other(errno) => write!(f, "errno {errno}"),
        }
    }
}

impl core::error::Error for Error {}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Error {
        use rustix::io::Errno;
        match errno {
            // mmap answers EAGAIN over RLIMIT_MEMLOCK, when the process locks its memory.
            Errno::NOMEM | Errno::AGAIN => Error::NoMemory,
            Errno::NOSYS => Error::Unsupported,
            other => Error::Other(other.raw_os_error()),
        }
    }
}
