//! Metadata of spans, out of line: nothing is ever written into a free block, and a SuperSlab has all its slots for
//! users. One [`SuperMeta`] (36 KiB, 1.8 % of what it describes) belongs to each SuperSlab of the address range; it
//! is zero until used, and zero is valid.

use super::queue::Links;
use super::{Arena, SLOTS, SUPER, SpanId};
use crate::heap::ownership::Handshake;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use core::cell::Cell;
use theap_platform::{Error, HUGE};

/// States of 2 MiB of metadata; 0 is not accessible.
const COMMITTED: u8 = 1;
const PREFERS_HUGE: u8 = 2;

/// Words of free bits (and of remote bits) a slot: one bit for each 16 bytes.
pub const WORDS: usize = 64;

/// What is known about a span, in the metadata of its first slot.
///
/// Equation, for its owner: `blocks = free + set remote bits + handed out`.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct SpanMeta {
    /// Owner only: which words of free bits are not zero.
    pub summary: Cell<u64>,
    /// Owner only: number of set free bits.
    pub free: Cell<u32>,
    /// Owner only: no block from this index on was handed out since the span's slots were FRESH.
    pub fresh_from: Cell<u32>,
    /// Links of the queue that the span is in; they belong to the owner, or to the list's lock.
    next: Cell<u32>,
    prev: Cell<u32>,
    /// Slots of the span; of a huge run all its slots. Written before the first block is handed out.
    pub slots: Cell<u32>,
    /// Size class. As `slots`.
    pub class: Cell<u8>,
    /// Owner only: the span is in its heap's queue of partial spans.
    pub listed: Cell<bool>,
    /// The heap that owned the span last: a hint for frees to a full span.
    last_owner: AtomicU32,
    /// In the first slot's metadata, and only without the shared pool: the heap and class that the SuperSlab serves.
    pub tag: AtomicU32,
    _pad: [u8; 24],
    /// What other threads write: on a cache line of its own.
    pub shake: Handshake,
    _pad2: [u8; 48],
}

/// The metadata of a SuperSlab.
#[repr(C, align(4096))]
pub struct SuperMeta {
    /// One a slot.
    pub spans: [SpanMeta; SLOTS],
    /// Owner only. The words of a span's slots are adjacent: bit `i` of the span is bit `i % 64` of word `i / 64`.
    free: [[Cell<u64>; WORDS]; SLOTS],
    /// Set by anyone, taken by the owner.
    remote: [[AtomicU64; WORDS]; SLOTS],
    /// See `lives`.
    #[cfg(feature = "hardened")]
    lives: [[[AtomicU64; WORDS]; SLOTS]; 2],
}

const _: () = assert!(size_of::<SpanMeta>() == 128);
const _: () = assert!(core::mem::offset_of!(SpanMeta, shake) == 64);
const _: () = assert!(cfg!(feature = "hardened") || size_of::<SuperMeta>() == 36 << 10);

impl SpanMeta {
    /// The id of the heap that owned the span last.
    #[inline]
    pub fn last_owner(&self) -> u64 {
        u64::from(self.last_owner.load(Ordering::Relaxed))
    }

    /// Notes the owner, for the hint.
    pub fn set_last_owner(&self, heap: u64) {
        self.last_owner.store(heap as u32, Ordering::Relaxed);
    }
}

impl SuperMeta {
    /// Word `index` of the free bits of the span that starts at `slot`. Every class but the smallest ones uses few of
    /// its first slot's words; none uses more than 64.
    #[inline]
    pub fn free(&self, slot: usize, index: usize) -> &Cell<u64> {
        &self.free[slot][index]
    }

    /// Word `index` of the bits of live and of used blocks.
    #[cfg(feature = "hardened")]
    pub fn lives(&self, slot: usize, index: usize) -> (&AtomicU64, &AtomicU64) {
        (&self.lives[0][slot][index], &self.lives[1][slot][index])
    }

    /// Word `index` of the remote bits.
    #[inline]
    pub fn remote(&self, slot: usize, index: usize) -> &AtomicU64 {
        &self.remote[slot][index]
    }
}

impl Links for Arena {
    fn links(&self, span: SpanId) -> (u32, u32) {
        let meta = self.span(span);
        (meta.next.get(), meta.prev.get())
    }

    fn set_next(&self, span: SpanId, next: u32) {
        self.span(span).next.set(next);
    }

    fn set_prev(&self, span: SpanId, prev: u32) {
        self.span(span).prev.set(prev);
    }
}

/// Where metadata is.
impl Arena {
    /// The metadata of a SuperSlab that is or was mapped.
    #[inline]
    pub fn super_meta(&self, super_index: usize) -> &SuperMeta {
        debug_assert!(super_index < self.range().1 / SUPER);
        // SAFETY: growth commits the metadata of a SuperSlab before it publishes a slot of it, and never takes it
        // back; zero is valid.
        unsafe { &*self.metas.add(super_index) }
    }

    /// The metadata of a span.
    #[inline]
    pub fn span(&self, span: SpanId) -> &SpanMeta {
        let (super_index, slot) = span.split();
        &self.super_meta(super_index).spans[slot]
    }

    /// Address and bytes of the metadata of `count` SuperSlabs.
    pub fn meta_range(&self, super_index: usize, count: usize) -> (usize, usize) {
        (
            self.metas as usize + super_index * size_of::<SuperMeta>(),
            count * size_of::<SuperMeta>(),
        )
    }

    /// Makes the metadata of `count` SuperSlabs accessible, 2 MiB at a time, on the node of the SuperSlabs, whoever
    /// touches it first; and on hugepages where the SuperSlabs are, as nine faults a SuperSlab would be most of what a
    /// first touch costs.
    ///
    /// # Errors
    /// What the system answered; nothing is lost.
    pub fn commit_metas(&self, super_index: usize, count: usize, huge: bool) -> Result<(), Error> {
        let metas = self.metas as usize;
        let (address, len) = self.meta_range(super_index, count);
        for piece in (address - metas) / HUGE..(address + len - metas).div_ceil(HUGE) {
            // SAFETY: the table has a byte for each 2 MiB of the metadata.
            let state = unsafe { &*self.meta_states.add(piece) };
            let at = metas + piece * HUGE;
            // Two nodes may meet in a piece and do the same twice, which is harmless.
            // SAFETY: the piece is part of the metadata reservation.
            unsafe {
                if state.load(Ordering::Relaxed) == 0 {
                    self.os.commit(at, HUGE)?;
                    if let Some(node) = self.binding(piece * HUGE / size_of::<SuperMeta>()) {
                        // Elsewhere it is slower, nothing else.
                        let _ = self.os.bind(at, HUGE, node);
                    }
                    self.lock_memory(at, HUGE);
                    state.fetch_max(COMMITTED, Ordering::Relaxed);
                }
                if huge && state.load(Ordering::Relaxed) < PREFERS_HUGE {
                    self.os.prefer_huge(at, HUGE);
                    state.fetch_max(PREFERS_HUGE, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }
}
