//! The metadata of one span, and of the SuperSlab that it lies in.

use super::Lives;
use super::ownership::Handshake;
use crate::geometry::SLOTS;
use crate::sync::{AtomicU32, AtomicU64, Ordering, OwnerWord};

/// Words of free bits (and of remote bits) a slot: one bit for each 16 bytes.
pub const WORDS: usize = 64;

/// Looks of a reclaimer, one in each of its rounds, after which a span's free pages are gone.
pub const LOOKED: u8 = 8;

/// The metadata of a span, which stands at its first slot.
///
/// Equation, for its owner: `blocks = free + set remote bits + handed out`.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct SpanMeta {
    /// Owner only: which words of free bits are not zero.
    pub summary: OwnerWord<u64>,
    /// Owner only: the number of set free bits.
    pub free: OwnerWord<u32>,
    /// Owner only: no block from this index on was handed out since the span's slots were FRESH.
    pub fresh_from: OwnerWord<u32>,
    /// The span after this one in its queue. The links belong to the owner, or to the list's lock.
    pub next: OwnerWord<u32>,
    /// The span before this one in its queue.
    pub prev: OwnerWord<u32>,
    /// The number of slots of the span; of a huge run all its slots. Written before the first block
    /// is handed out.
    pub slots: OwnerWord<u32>,
    /// The size class. Written before the first block is handed out.
    pub class: OwnerWord<u8>,
    /// Owner only: the span is in its heap's queue of partial spans.
    pub listed: OwnerWord<bool>,
    /// Owner only: how often a reclaimer has seen the span on a list of the pool since a heap had
    /// it, up to [`LOOKED`].
    pub looks: OwnerWord<u8>,
    /// The heap that owned the span last: a hint for frees to a full span.
    last_owner: AtomicU32,
    /// In the first slot's metadata, and only without the shared pool: the heap and class that the
    /// SuperSlab serves.
    pub tag: AtomicU32,
    _pad: [u8; 23],
    /// The words that other threads write, on a cache line of their own.
    pub shake: Handshake,
    _pad2: [u8; 48],
}

/// The metadata of a SuperSlab.
#[repr(C, align(4096))]
pub struct SuperMeta {
    /// The metadata of the span that begins at each slot.
    pub spans: [SpanMeta; SLOTS],
    /// Owner only. The words of a span's slots are adjacent: bit `i` of the span is bit `i % 64` of
    /// word `i / 64`.
    free: [[OwnerWord<u64>; WORDS]; SLOTS],
    /// Set by any thread, taken by the owner.
    remote: [[AtomicU64; WORDS]; SLOTS],
    /// The bits of live and of used blocks; of no size without the feature `hardened`.
    pub(super) lives: Lives,
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
    /// Word `index` of the free bits of the span that starts at `slot`. Every class but the
    /// smallest ones uses few of its first slot's words; none uses more than 64.
    #[inline]
    pub fn free(&self, slot: usize, index: usize) -> &OwnerWord<u64> {
        &self.free[slot][index]
    }

    /// Word `index` of the remote bits of the span that starts at `slot`.
    #[inline]
    pub fn remote(&self, slot: usize, index: usize) -> &AtomicU64 {
        &self.remote[slot][index]
    }
}
