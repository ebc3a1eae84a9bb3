//! The signals that end a process.

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
