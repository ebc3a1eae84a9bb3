//! A heap that grows: every block is written in every page, and none is freed before the end.

use crate::block::{Block, Slot};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::Stopwatch;

/// Puts a block of each size into a slot and writes every page of it. `stopwatch` times each
/// allocate-and-touch alone; `before` is called with the block's size ahead of each, untimed.
#[inline(always)]
pub(crate) fn grow<A: Contender>(
    a: &A,
    sizes: &[u32],
    slots: &mut [Slot<A>],
    stopwatch: &mut Stopwatch,
    mut before: impl FnMut(u32),
) -> Result<(), Error> {
    for (slot, &size) in slots.iter_mut().zip(sizes) {
        before(size);
        let block = stopwatch.time(|| {
            let mut block = Block::take(a, size as usize, 1)?;
            block.touch_pages(1);
            Ok(block)
        })?;
        *slot = Some(block);
    }
    Ok(())
}
