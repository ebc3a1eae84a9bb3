//! Sets of blocks: slots, each of which may hold a block.

use super::Aligned;
use crate::contender::Contender;
use crate::error::Error;

/// A place for a block.
pub(crate) type Slot<A, const ALIGN: usize = 1> = Option<Aligned<A, ALIGN>>;

/// `count` slots without blocks. They are written, not only reserved, so that the measured part
/// takes no page fault of the harness.
pub(crate) fn empty_slots<A: Contender, const ALIGN: usize>(count: usize) -> Vec<Slot<A, ALIGN>> {
    let mut slots = Vec::new();
    slots.resize_with(count, || None);
    slots
}

/// Fails unless `a` proves that every block of the slots is its own.
pub(crate) fn prove_all<A: Contender, const ALIGN: usize>(
    a: &A,
    slots: &[Slot<A, ALIGN>],
) -> Result<(), Error> {
    let mut blocks = slots.iter().flatten();
    blocks.try_for_each(|block| block.prove(a))
}

/// Frees every block of the slots after `a` has proved all of them.
pub(crate) fn free_proved<A: Contender, const ALIGN: usize>(
    a: &A,
    slots: Vec<Slot<A, ALIGN>>,
) -> Result<(), Error> {
    prove_all(a, &slots)?;
    slots.into_iter().flatten().for_each(|block| block.give(a));
    Ok(())
}
