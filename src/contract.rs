//! The contracts of hot threads: what a thread promises not to do, what happens when it does, and
//! what it is that it does.

/// A promise of the thread in a hot scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Contract {
    /// The thread allocates and frees on the hit path alone: no magazine is refilled or drained,
    /// and nothing is asked of the pool or the system.
    NoSlowPath = 1,
    /// The thread allocates, frees and moves no block.
    NoAllocation = 2,
}

/// The consequence when a thread breaks its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Breach {
    /// It is counted.
    Count = 0,
    /// It is counted, and told on standard error with the stack it came from: once for each stack.
    /// While the heap is sealed it is counted alone.
    Report = 1,
    /// It is told, and the process ends (SIGABRT).
    Abort = 2,
}

/// An act of a thread that it may have promised not to do.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// It allocates so many bytes at least.
    Allocate(usize),
    /// It frees the block at this address.
    Free(usize),
    /// It changes the size of a large block to so many bytes.
    #[cfg_attr(
        feature = "valgrind",
        allow(dead_code, reason = "every resize moves there")
    )]
    Resize(usize),
}
