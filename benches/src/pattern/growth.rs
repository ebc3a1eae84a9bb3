//! A heap that grows: every block is written in every page, and none is freed before the end.

use crate::block::{Block, Slot};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::{Idler, Stopwatch};

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

/// Does the work of [`grow`] at a steady pace of `rate` bytes a second, or as fast as it goes if
/// the rate is 0. `idler` waits where the growth is ahead of the pace; a thread that is behind goes
/// on without a pause until it has caught up.
pub(crate) fn grow_at_pace<A: Contender>(
    a: &A,
    sizes: &[u32],
    slots: &mut [Slot<A>],
    stopwatch: &mut Stopwatch,
    idler: &mut Idler,
    rate: u64,
) -> Result<(), Error> {
    let tsc = stopwatch.tsc();
    let ticks_a_byte = match rate {
        0 => 0.0,
        rate => tsc.ticks(1e9 / rate as f64),
    };
    let start = tsc.start();
    let mut out = 0.0;
    grow(a, sizes, slots, stopwatch, |size| {
        idler.wait_until(start + (out * ticks_a_byte) as u64);
        out += f64::from(size);
    })
}
