//! Drain: blocks come home to their spans. Here, where it costs little, every block is checked: a
//! block that is free already, or an address at which no block starts, ends the process with a
//! message. The heap is intact until then.
#![allow(unsafe_code)] // Frees blocks on the word of the caller.

use super::Heap;
use crate::classes::{CLASSES, Class};
use crate::geometry::ClassId;
use crate::messages::{Misuse, misuse};
use crate::pool::metadata::ownership::{Freed, POOL};
use crate::pool::{Arena, Location, SpanPart};
use crate::stats::events::EventKind;
use core::sync::atomic::Ordering;

/// Bytes of blocks that came home to spans of others before some of these are swept.
const SWEPT: usize = 256 << 10;

/// The span of a block, with the numbers by which other blocks of it are found: most neighbours in
/// a magazine belong to one span.
#[derive(Clone, Copy)]
struct Home {
    part: SpanPart,
    class: &'static Class,
}

/// Blocks of one span that share a word of bits.
#[derive(Clone, Copy)]
struct Parcel {
    index: usize,
    bits: u64,
    /// The number of the bits: to count them takes some 20 instructions on old CPUs.
    count: u32,
}

impl Home {
    /// The span that a block belongs to, found by the block's address; `None` for a run that stayed
    /// where it was when its owner made it smaller, and so is freed with a block's size: in the
    /// range, or outside of it. Ends the process if the address is neither's.
    #[inline]
    fn of(arena: &Arena, block: *mut u8) -> Option<Self> {
        let address = block as usize;
        match arena.addresses().locate(address) {
            Location::Block(part) => Some(Self {
                part,
                class: part.info(),
            }),
            Location::Run(run) if run.at_start && arena.policy().has_outsized() => None,
            Location::Foreign
                if arena.policy().has_outsized()
                    && arena.runs().outside().bytes_at(address).is_some() =>
            {
                None
            }
            Location::Foreign => misuse(arena.os(), Misuse::Foreign, address),
            Location::Free | Location::Run(_) => misuse(arena.os(), Misuse::NotABlock, address),
        }
    }

    /// Takes from the front of `blocks` those that share a word of bits with the first one, which
    /// belongs to this span. The one pass has no branch for each block but the loop's: a wrong
    /// block shows in the sums at the end, before a bit is set.
    #[inline]
    fn next_parcel(&self, arena: &Arena, blocks: &mut &[*mut u8]) -> Parcel {
        let size = self.class.size as usize;
        let offset = blocks[0] as usize - self.part.base;
        let index = self.class.quotient(offset) / 64;
        let first = self.part.base + index * 64 * size;
        let bytes =
            (64 * size).min((self.class.blocks as usize * size).saturating_sub(index * 64 * size));
        let (mut bits, mut askew, mut count) = (0u64, 0, 0);
        for &block in *blocks {
            let offset = (block as usize).wrapping_sub(first);
            if offset >= bytes {
                break;
            }
            let at = self.class.quotient(offset);
            askew |= (at * size) ^ offset;
            bits |= 1 << (at % 64);
            count += 1;
        }
        if askew != 0 || count == 0 || bits.count_ones() as usize != count {
            self.blame(arena, &blocks[..count.max(1)]);
        }
        *blocks = &blocks[count..];
        Parcel {
            index,
            bits,
            count: count as u32,
        }
    }

    /// Ends the process for the block in the parcel that is wrong.
    #[cold]
    fn blame(&self, arena: &Arena, blocks: &[*mut u8]) -> ! {
        let is_block = |block: &&*mut u8| {
            self.class
                .index_of(**block as usize - self.part.base)
                .is_some()
        };
        match blocks.iter().find(|block| !is_block(block)) {
            Some(&odd) => misuse(arena.os(), Misuse::NotABlock, odd as usize),
            None => {
                let twice = (1..blocks.len()).find(|&i| blocks[..i].contains(&blocks[i]));
                misuse(
                    arena.os(),
                    Misuse::DoubleFree,
                    blocks[twice.unwrap_or(0)] as usize,
                )
            }
        }
    }

    #[cold]
    fn double_free(&self, arena: &Arena, parcel: Parcel) -> ! {
        let at = parcel.index * 64 + parcel.bits.trailing_zeros() as usize;
        misuse(
            arena.os(),
            Misuse::DoubleFree,
            self.part.base + at * self.class.size as usize,
        )
    }
}

impl Heap {
    /// Returns blocks to their spans, the heap's own and others'. All are of one class but for
    /// those that their owners had made smaller where they were
    /// ([`crate::pool::policy::Policy::has_outsized`]).
    ///
    /// # Safety
    /// The blocks are the caller's to free: nobody uses them any more.
    pub unsafe fn give(&mut self, blocks: &[*mut u8]) {
        let begin = self.tracer.begin();
        let mut rest = blocks;
        // The blocks of one class that are not counted yet.
        let (mut class, mut count) = (ClassId::FIRST, 0);
        while let Some(&block) = rest.first() {
            let Some(home) = Home::of(self.arena, block) else {
                // SAFETY: a run that the caller frees, as this function's Safety section has it.
                unsafe { self.free_outsized(block) };
                rest = &rest[1..];
                continue;
            };
            if home.part.class != class {
                self.count_drained(class, count);
                (class, count) = (home.part.class, 0);
            }
            let before = rest.len();
            if home.class.is_whole() {
                self.take_back(home.part.span, block as usize);
                rest = &rest[1..];
            } else if self.meta(home.part.span).shake.owner() == self.id {
                self.take_home(home, &mut rest);
            } else {
                let parcel = home.next_parcel(self.arena, &mut rest);
                self.send_home(home, parcel);
            }
            count += before - rest.len();
        }
        self.count_drained(class, count);
        self.counters.drains.add(1);
        self.note_batch();
        let (class, count) = (class.index() as u8, blocks.len() as u64);
        self.tracer.note(begin, EventKind::Drain, class, 0, count);
    }

    /// Counts blocks of a class that came home.
    #[inline]
    fn count_drained(&self, class: ClassId, count: usize) {
        if count > 0 {
            self.counters.drained_blocks.add(count as u64);
            let counters = &self.class_counters[class.index()];
            counters.drained_blocks.add(count as u64);
        }
    }

    /// Frees a run that came among blocks.
    ///
    /// # Safety
    /// Nobody uses the run any more.
    #[cold]
    unsafe fn free_outsized(&mut self, run: *mut u8) {
        let (addresses, runs) = (self.arena.addresses(), self.arena.runs());
        // SAFETY: the tables say that a run starts there, and it is nobody's, as this function's
        // Safety section has it.
        let freed = unsafe {
            match addresses.run_at(run as usize) {
                Some(slot) => runs.release(slot),
                None => runs.outside().release(run as usize),
            }
        };
        if !freed {
            misuse(self.arena.os(), Misuse::DoubleFree, run as usize);
        }
        self.counters.runs_freed.add(1);
    }

    /// Takes from the front of `blocks` those of a span that the heap owns, and sets their free
    /// bits.
    #[inline]
    fn take_home(&mut self, home: Home, blocks: &mut &[*mut u8]) {
        let before = blocks.len();
        while let Some(&block) = blocks.first()
            && (block as usize).wrapping_sub(home.part.base) < home.class.span_bytes()
        {
            let parcel = home.next_parcel(self.arena, blocks);
            self.set_free(home, parcel);
        }
        let meta = self.meta(home.part.span);
        self.set_free_count(meta, meta.free.get() + (before - blocks.len()) as u32);
        self.settle(home.part.span);
    }

    #[inline]
    fn set_free(&self, home: Home, parcel: Parcel) {
        let (metas, slot) = self.super_meta(home.part.span);
        let meta = self.meta(home.part.span);
        let word = metas.free(slot, parcel.index);
        let twice = word.get() & parcel.bits;
        if twice != 0 {
            home.double_free(
                self.arena,
                Parcel {
                    bits: twice,
                    ..parcel
                },
            );
        }
        word.set(word.get() | parcel.bits);
        meta.summary.set(meta.summary.get() | 1 << parcel.index);
    }

    /// Sets remote bits of a span that this heap does not own. A full span whose last owner was
    /// this heap is taken back, unless the heap has moved to another node meanwhile.
    fn send_home(&mut self, home: Home, parcel: Parcel) {
        let meta = self.meta(home.part.span);
        let begin = self.tracer.begin();
        let was_mine = meta.last_owner() == self.id
            && self.arena.addresses().node_of(home.part.span.slot()) == self.node();
        if was_mine && meta.shake.retake(self.id) {
            self.counters.spans_retaken.add(1);
            self.note(begin, EventKind::Reclaim, home.part.span, 0);
            self.board.span_bytes.add(home.class.span_bytes() as u64);
            self.set_free(home, parcel);
            self.set_free_count(meta, meta.free.get() + parcel.count);
            return self.settle(home.part.span);
        }
        self.counters.remote_words.add(1);
        self.sent += parcel.count as usize * home.class.size as usize;
        if self.sent >= SWEPT {
            // Twice as many, as not all of them will be free.
            let (span, bytes) = (home.part.span, 2 * core::mem::take(&mut self.sent));
            self.arena.spans().sweep_like(span, home.part.class, bytes);
        }
        let heir = if was_mine { self.id } else { POOL };
        if send(self.arena, home, parcel, heir) == Freed::Mine {
            self.counters.spans_retaken.add(1);
            self.board.span_bytes.add(home.class.span_bytes() as u64);
            self.note(begin, EventKind::Reclaim, home.part.span, 0);
            self.collect_span(home.part.span);
            self.settle(home.part.span);
        }
    }
}

fn send(arena: &Arena, home: Home, parcel: Parcel, heir: u64) -> Freed {
    let (super_id, slot) = home.part.span.split();
    // SAFETY: the tables say that the span is there: its SuperSlab is mapped.
    let (metas, meta) = unsafe {
        (
            arena.metadata().of(super_id),
            arena.metadata().span(home.part.span),
        )
    };
    let word = metas.remote(slot, parcel.index);
    // Before the block comes home: who finds it free finds this or a later part.
    meta.sent_in
        .store(arena.reclaim().part(), Ordering::Relaxed);
    let freed = meta
        .shake
        .free_remote(word, parcel.index, parcel.bits, heir);
    match freed {
        // SAFETY: the handshake made it the pool's just now.
        Freed::ToPool => unsafe { arena.spans().put_partial(home.part.span) },
        Freed::Twice(bits) => home.double_free(arena, Parcel { bits, ..parcel }),
        Freed::Noted | Freed::Mine => {}
    }
    freed
}

/// Ends the process unless a block of the class starts at each address.
#[inline]
pub fn check_blocks(arena: &Arena, class: ClassId, blocks: &[*mut u8]) {
    let info = &CLASSES[class.index()];
    let (size, bytes) = (
        info.size as usize,
        info.blocks as usize * info.size as usize,
    );
    let (mut base, mut askew) = (0, 0);
    for &block in blocks {
        // Most neighbours belong to one span.
        if (block as usize).wrapping_sub(base) >= bytes {
            match Home::of(arena, block) {
                Some(home)
                    if core::ptr::eq(home.class, info)
                        && block as usize - home.part.base < bytes =>
                {
                    base = home.part.base;
                }
                _ => misuse(arena.os(), Misuse::NotABlock, block as usize),
            }
        }
        let offset = block as usize - base;
        askew |= (info.quotient(offset) * size) ^ offset;
    }
    if askew != 0 {
        let odd = |block: &&*mut u8| {
            Home::of(arena, **block).is_none_or(|home| {
                let offset = **block as usize - home.part.base;
                info.index_of(offset).is_none()
            })
        };
        let odd = blocks.iter().find(odd).map_or(0, |block| *block as usize);
        misuse(arena.os(), Misuse::NotABlock, odd);
    }
}
