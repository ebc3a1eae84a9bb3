//! Drain: blocks come home to their spans. Here, where it costs little, every block is checked: a block that is free
//! already, or an address at which no block starts, ends the process with a message. The heap is intact until then.

use super::Heap;
use super::ownership::{Freed, POOL};
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::fatal::{Misuse, misuse};
use crate::pool::{Arena, SpanId, kind};
use core::sync::atomic::Ordering;

/// Where a block belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Home {
    span: SpanId,
    /// Word of the span's bits.
    index: usize,
    /// The block's bit in it.
    bit: u64,
}

/// Finds the span and the bit of a block.
#[inline]
fn home_of(arena: &Arena, block: *mut u8) -> Home {
    let address = block as usize;
    if !arena.contains(address) {
        misuse(arena.os, Misuse::Foreign, address);
    }
    let slot = arena.slot_of(address);
    let class = usize::from(
        arena
            .kind(slot)
            .load(Ordering::Relaxed)
            .wrapping_sub(kind::FIRST),
    );
    let first = slot - usize::from(arena.head(slot).load(Ordering::Relaxed));
    let index = if class < CLASS_COUNT {
        CLASSES[class].index_of(address - arena.address_of(first))
    } else {
        None
    };
    match index {
        Some(index) => Home {
            span: SpanId(first as u32),
            index: index / 64,
            bit: 1 << (index % 64),
        },
        None => misuse(arena.os, Misuse::NotABlock, address),
    }
}

fn double_free(arena: &Arena, home: Home, bits: u64) -> ! {
    let class = arena.span(home.span).class.get() as usize;
    let index = home.index * 64 + bits.trailing_zeros() as usize;
    let address = arena.address_of(home.span.0 as usize) + index * CLASSES[class].size as usize;
    misuse(arena.os, Misuse::DoubleFree, address)
}

impl Heap {
    /// Returns blocks of classes to their spans, the heap's own and others'.
    pub fn give(&mut self, blocks: &[*mut u8]) {
        // Blocks of one word that are another owner's travel together.
        let mut parcel: Option<Home> = None;
        for &block in blocks {
            let home = home_of(self.arena, block);
            let meta = self.arena.span(home.span);
            if meta.shake.owner() == self.id {
                self.take_home(home);
                continue;
            }
            match &mut parcel {
                Some(open) if open.span == home.span && open.index == home.index => {
                    if open.bit & home.bit != 0 {
                        double_free(self.arena, home, home.bit);
                    }
                    open.bit |= home.bit;
                }
                _ => {
                    if let Some(full) = parcel.replace(home) {
                        self.send_home(full);
                    }
                }
            }
        }
        if let Some(last) = parcel {
            self.send_home(last);
        }
        self.counters.drains.add(1);
        self.counters.drained_blocks.add(blocks.len() as u64);
    }

    /// Sets free bits of a span that the heap owns.
    fn take_home(&mut self, home: Home) {
        let (super_index, slot) = home.span.split();
        let (metas, meta) = (
            self.arena.super_meta(super_index),
            self.arena.span(home.span),
        );
        let word = metas.free(slot, home.index);
        if word.get() & home.bit != 0 {
            double_free(self.arena, home, word.get() & home.bit);
        }
        word.set(word.get() | home.bit);
        meta.summary.set(meta.summary.get() | 1 << home.index);
        meta.free.set(meta.free.get() + home.bit.count_ones());
        self.settle(home.span);
    }

    /// Sets bits of a span that somebody else, or nobody, owns. A span that was this heap's last is taken back.
    fn send_home(&mut self, home: Home) {
        let meta = self.arena.span(home.span);
        let was_mine = meta.last_owner() == self.id;
        if was_mine && meta.shake.retake(self.id) {
            self.counters.spans_retaken.add(1);
            return self.take_home(home);
        }
        self.counters.remote_words.add(1);
        let heir = if was_mine { self.id } else { POOL };
        if send(self.arena, home, heir) == Freed::Mine {
            self.counters.spans_retaken.add(1);
            self.collect_span(home.span);
            self.settle(home.span);
        }
    }
}

fn send(arena: &Arena, home: Home, heir: u64) -> Freed {
    let (super_index, slot) = home.span.split();
    let (metas, meta) = (arena.super_meta(super_index), arena.span(home.span));
    let freed = meta
        .shake
        .free_remote(metas.remote(slot, home.index), home.index, home.bit, heir);
    match freed {
        Freed::ToPool => arena.put_partial(home.span),
        Freed::Twice => double_free(arena, home, home.bit),
        Freed::Noted | Freed::Mine => {}
    }
    freed
}

/// Returns a block from a thread that has no heap and can get none.
pub fn give_without_heap(arena: &Arena, block: *mut u8) {
    let _ = send(arena, home_of(arena, block), POOL);
}
