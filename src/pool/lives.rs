//! Which blocks are live, for the feature `hardened`: two bits a block beside the free and remote bits.
//!
//! `live` is set when the API hands a block out and cleared by the one call that frees it, so of two frees the second
//! fails whichever thread makes it. `used` is set with it and stays until the span's slots are made a span again: a
//! block that was used and is free has been filled with poison. Every access is a read-modify-write of one bit; who may
//! touch a block follows from them alone, so acquire-release is all the ordering there is.

use super::{Arena, SpanId, kind};
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::sync::{AtomicU64, Ordering};

/// A block of a class.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    span: SpanId,
    index: usize,
    /// Bytes of the block.
    pub size: usize,
}

impl Place {
    fn bit(self) -> u64 {
        1 << (self.index % 64)
    }
}

impl Arena {
    /// The block of a class that starts at the address. `None` for everything else, foreign addresses included.
    pub fn place(&self, address: usize) -> Option<Place> {
        if !self.contains(address) {
            return None;
        }
        let slot = self.slot_of(address);
        let what = self.kind(slot).load(Ordering::Relaxed);
        let class = usize::from(what.wrapping_sub(kind::FIRST));
        if class >= CLASS_COUNT {
            return None;
        }
        let first = slot - usize::from(self.head(slot).load(Ordering::Relaxed));
        Some(Place {
            span: SpanId(first as u32),
            index: CLASSES[class].index_of(address - self.address_of(first))?,
            size: CLASSES[class].size as usize,
        })
    }

    fn words(&self, place: Place) -> (&AtomicU64, &AtomicU64) {
        let (super_index, slot) = place.span.split();
        self.super_meta(super_index).lives(slot, place.index / 64)
    }

    /// Makes a block live: whether it was, and whether it was ever before.
    pub fn begin_life(&self, place: Place) -> (bool, bool) {
        let (live, used) = self.words(place);
        let was_live = live.fetch_or(place.bit(), Ordering::AcqRel) & place.bit() != 0;
        let was_used = used.fetch_or(place.bit(), Ordering::AcqRel) & place.bit() != 0;
        (was_live, was_used)
    }

    /// Ends a block's life; false if it was not live.
    pub fn end_life(&self, place: Place) -> bool {
        self.words(place)
            .0
            .fetch_and(!place.bit(), Ordering::AcqRel)
            & place.bit()
            != 0
    }

    /// Whether a block is live.
    pub fn is_live(&self, place: Place) -> bool {
        self.words(place).0.load(Ordering::Acquire) & place.bit() != 0
    }

    /// The slots become a span of the class: nothing is known of what is in its blocks.
    pub(super) fn forget_lives(&self, span: SpanId, class: usize) {
        let (super_index, slot) = span.split();
        for index in 0..usize::from(CLASSES[class].blocks).div_ceil(64) {
            let (_, used) = self.super_meta(super_index).lives(slot, index);
            used.store(0, Ordering::Relaxed);
        }
    }
}
