//! The metadata of one span, and of the SuperSlab that it lies in.

use super::Lives;
use super::ownership::Handshake;
use crate::geometry::SLOTS;
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering, OwnerWord};

/// Words of free bits (and of remote bits) a slot: one bit for each 16 bytes.
pub const WORDS: usize = 64;

/// How long a span has been the pool's, as far as a reclaimer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// No reclaimer has seen it since a heap had it.
    Unseen,
    /// A reclaimer saw it first in this part of `decay`, modulo 256.
    SeenIn(u8),
    /// For `decay`: its free pages are gone.
    Long,
}

const SEEN: u8 = 1;
const LONG: u8 = 2;

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
    /// Owner only: how long the span has been the pool's, as a number: [`SEEN`], [`LONG`], or 0.
    rest: OwnerWord<u8>,
    /// The part of [`Rest::SeenIn`].
    seen_in: OwnerWord<u8>,
    /// In the first slot's metadata, and only without the shared pool: the heap and class that the
    /// SuperSlab serves.
    pub tag: AtomicU32,
    _pad: [u8; 26],
    /// The words that other threads write, on a cache line of their own.
    pub shake: Handshake,
    /// The heap that owned the span last: a hint for frees to a full span. Here, as who frees a
    /// block of another owner's reads it, and needs no other line of this struct.
    last_owner: AtomicU32,
    /// The part of `decay` ([`crate::pool::reclaim::Reclaim::part`]) in which a block came home
    /// last: a hint, from which the age of what is free is told.
    pub sent_in: AtomicU8,
    _pad2: [u8; 43],
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
    /// How long the span has been the pool's. For the owner.
    pub fn rest(&self) -> Rest {
        match self.rest.get() {
            SEEN => Rest::SeenIn(self.seen_in.get()),
            LONG => Rest::Long,
            _ => Rest::Unseen,
        }
    }

    /// Notes how long the span has been the pool's. For the owner.
    pub fn set_rest(&self, rest: Rest) {
        let (state, part) = match rest {
            Rest::Unseen => (0, 0),
            Rest::SeenIn(part) => (SEEN, part),
            Rest::Long => (LONG, 0),
        };
        self.rest.set(state);
        self.seen_in.set(part);
    }

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
