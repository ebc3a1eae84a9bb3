//! A report when the process dies of a signal: a hook that runs once, in the signal's handler,
//! before the handler that the program had.

pub use crate::system::crash::install;

/// The signal that ended the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// SIGSEGV, with the address that the thread accessed, if the kernel knows it.
    Segv(Option<usize>),
    /// SIGBUS, with the address that the thread accessed, if the kernel knows it.
    Bus(Option<usize>),
    /// SIGABRT.
    Abort,
}
