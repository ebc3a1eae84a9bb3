//! Decodes bytes, which a fuzzer changes, to operations. Any bytes are a sequence of operations.

use super::{Freeing, Op};
use std::alloc::Layout;
use theap::Front;

const KIB: usize = 1 << 10;

/// The sequence that the bytes stand for. An operation begins with a byte: the low two bits choose
/// the thread, the others the kind. Up to four bytes with the numbers of the operation follow. An
/// operation that the end of the bytes cuts off is left out.
pub fn decode(bytes: &[u8]) -> impl Iterator<Item = (usize, Op)> {
    let mut rest = bytes.iter().copied();
    core::iter::from_fn(move || {
        let head = rest.next()?;
        Some((usize::from(head % 4), op(head / 4, &mut rest)?))
    })
}

fn op(kind: u8, rest: &mut impl Iterator<Item = u8>) -> Option<Op> {
    let mut number = || Some(usize::from(rest.next()?) << 8 | usize::from(rest.next()?));
    Some(match kind {
        0..24 => Op::Alloc {
            layout: layout(number()?, if kind < 16 { 0 } else { number()? }),
            zeroed: kind % 4 == 3,
        },
        24..32 => Op::Realloc {
            which: number()?,
            size: size(number()?),
            as_c: kind.is_multiple_of(2),
        },
        32..52 => Op::Free {
            which: number()?,
            how: [Freeing::Layout, Freeing::Pointer, Freeing::Sized][usize::from(kind) % 3],
        },
        52..54 => Op::Collect,
        54 => Op::Front(Front::Classic),
        55 => Op::Front(Front::Theap),
        56 => Op::Purge,
        57..60 => Op::Exit,
        60 => Op::Seal(true),
        61 => Op::Seal(false),
        62 => Op::Starve(true),
        _ => Op::Starve(false),
    })
}

/// The size that a number stands for. Half of all numbers are tiny sizes; the others go up to 32
/// MiB and include the edges of classes, slots and SuperSlabs.
fn size(code: usize) -> usize {
    let low = code & 0x1FFF;
    match code >> 13 {
        0..4 => low % 1100,
        4 => low * 5,
        5 => low * 40,
        6 => (1 << (low % 26)) + low / 26 % 3 - 1,
        _ => (low % 100 + 1) * 64 * KIB - low / 100 % 2,
    }
}

fn layout(code: usize, align: usize) -> Layout {
    let size = size(code);
    // Only the C functions give out empty blocks, and they take no alignment.
    let align = if size == 0 { 1 } else { 1 << (align % 23) };
    Layout::from_size_align(size, align).unwrap()
}
