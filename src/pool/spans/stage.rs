//! The stages of the search for a span.

/// The stage of the pool at which a span was found; stage 0 is the heap's own partial spans. Each
/// is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// A stash of this CPU.
    Stash = 1,
    /// The node's partial list, or another CPU's stash.
    Partial = 2,
    /// An EMPTY slot.
    Empty = 3,
    /// FRESH slots (or FRESH and EMPTY ones, for a span of several).
    Fresh = 4,
    /// FRESH slots of a SuperSlab whose pages were there already.
    Prepared = 5,
    /// A new SuperSlab.
    Grow = 6,
    /// Another node.
    Remote = 7,
}
