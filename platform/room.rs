//! The memory that a process may still take, as a number with its reason, and what tells that
//! memory is short.

/// Memory that may still be taken, and what bounds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Bytes on pages that belong to no hugetlb pool.
    pub bytes: u64,
    /// The reason why there are no more.
    pub bound: Bound,
}

/// The reason why there is no more memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// The machine has no more that is available.
    Machine,
    /// The control groups of this process leave no more.
    Group,
    /// The limits of this process leave no more (RLIMIT_AS, RLIMIT_DATA).
    Process,
}

/// The descriptor by which the kernel tells that memory is short, or none.
#[derive(Debug)]
pub struct Pressure(pub(crate) i32);

impl Pressure {
    /// The kernel tells nothing.
    pub const NONE: Self = Self(-1);

    /// Whether the kernel tells anything.
    pub fn is_some(&self) -> bool {
        self.0 >= 0
    }
}
