//! The record of live blocks, for the feature `hardened`: two bits a block beside the free and
//! remote bits.
//!
//! `live` is set when the API hands a block out and cleared by the one call that frees it, so of
//! two frees the second fails whichever thread makes it. `used` is set with it and stays until the
//! span's slots are made a span again, or the block's pages go back to the system: a block that was
//! used and is free has been filled with poison. Every access is a read-modify-write of one bit;
//! which thread may touch a block follows from them alone, so acquire-release is all the ordering
//! there is.
#![allow(unsafe_code)] // Asks for the metadata of mapped SuperSlabs.

use super::{Metadata, WORDS};
use crate::classes::CLASSES;
use crate::geometry::{ClassId, SLOTS, SpanId};
use crate::pool::addresses::AddressMap;
use crate::sync::{AtomicU64, Ordering};
use core::ops::Range;

/// The bits of one SuperSlab.
pub struct Lives {
    live: [[AtomicU64; WORDS]; SLOTS],
    used: [[AtomicU64; WORDS]; SLOTS],
}

/// A block of a class: its span and its number there.
#[derive(Clone, Copy, Debug)]
pub struct BlockId {
    span: SpanId,
    index: usize,
    /// Bytes of the block.
    pub size: usize,
}

impl BlockId {
    /// The block that starts at an address; `None` for everything else, foreign addresses included.
    pub fn at(addresses: &AddressMap, address: usize) -> Option<Self> {
        let part = addresses.span_of(address)?;
        Some(Self {
            span: part.span,
            index: part.index_of(address)?,
            size: part.info().size as usize,
        })
    }
}

impl Metadata {
    fn lives(&self, block: BlockId) -> (&'static AtomicU64, &'static AtomicU64, u64) {
        let (super_id, slot) = block.span.split();
        // SAFETY: a block lies in a mapped SuperSlab (`BlockId::at`).
        let Lives { live, used } = &unsafe { self.of(super_id) }.lives;
        let word = block.index / 64;
        (&live[slot][word], &used[slot][word], 1 << (block.index % 64))
    }

    /// Makes a block live: whether it was live, and whether it was ever used before.
    pub fn begin_life(&self, block: BlockId) -> (bool, bool) {
        let (live, used, bit) = self.lives(block);
        let was_live = live.fetch_or(bit, Ordering::AcqRel) & bit != 0;
        let was_used = used.fetch_or(bit, Ordering::AcqRel) & bit != 0;
        (was_live, was_used)
    }

    /// Ends the life of a block; false if it was not live.
    pub fn end_life(&self, block: BlockId) -> bool {
        let (live, _, bit) = self.lives(block);
        live.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// Whether a block is live.
    pub fn is_live(&self, block: BlockId) -> bool {
        let (live, _, bit) = self.lives(block);
        live.load(Ordering::Acquire) & bit != 0
    }

    /// Forgets that these free blocks of a span were used: they are no longer what they were filled
    /// with.
    ///
    /// # Safety
    /// The caller alone owns the span.
    pub unsafe fn forget_uses(&self, span: SpanId, blocks: Range<usize>) {
        let (super_id, slot) = span.split();
        // SAFETY: slots that somebody holds lie in a mapped SuperSlab.
        let used = &unsafe { self.of(super_id) }.lives.used[slot];
        for index in blocks {
            used[index / 64].fetch_and(!(1 << (index % 64)), Ordering::AcqRel);
        }
    }

    /// Forgets which blocks were used: the slots become a span of the class, and nothing is known
    /// of its blocks.
    ///
    /// # Safety
    /// The caller holds the span's slots.
    pub unsafe fn forget_lives(&self, span: SpanId, class: ClassId) {
        let (super_id, slot) = span.split();
        // SAFETY: slots that somebody holds lie in a mapped SuperSlab.
        let used = &unsafe { self.of(super_id) }.lives.used[slot];
        let words = usize::from(CLASSES[class.index()].blocks).div_ceil(64);
        for word in &used[..words] {
            word.store(0, Ordering::Relaxed);
        }
    }
}
