//! What the tables say about an address, for the report of a crash: read as it is found, at any moment, in a signal
//! handler. Nothing here locks, allocates, waits, or relies on the tables being sound.

use super::claims::{LOST, PREPARING};
use super::superslab::SLOTS;
use super::{Arena, SLOT, SpanId, kind};
use crate::classes::{CLASS_COUNT, CLASSES};
use core::sync::atomic::Ordering;

/// An address of the heap's range.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Index of the node.
    pub node: usize,
    /// How its SuperSlab is mapped.
    pub pages: &'static str,
    /// The state of its slot.
    pub state: &'static str,
    /// What it is a part of.
    pub part: Part,
}

/// What an address is a part of.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// A free slot.
    Nothing,
    /// A large or huge run, which begins here; `None` for the far end of a huge one.
    Run(Option<usize>),
    /// What a span has behind its last block.
    Rest,
    /// A block.
    Block(Block),
}

/// A block, and what its span knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Its address.
    pub start: usize,
    /// Its class.
    pub class: usize,
    /// Owner word of its span.
    pub owner: u64,
    /// Its free bit is set.
    pub free: bool,
    /// Its remote bit is set.
    pub remote: bool,
}

impl Arena {
    /// What the tables say; `None` for an address outside of the range.
    pub fn describe(&self, address: usize) -> Option<Place> {
        if !self.contains(address) {
            return None;
        }
        let slot = self.slot_of(address);
        let index = self.node_of_slot(slot);
        let node = self.nodes().get(index)?;
        let i = slot / SLOTS - node.first;
        let pages = match (node.mode(i), node.claims.byte(i).load(Ordering::Relaxed)) {
            (_, PREPARING) => "being mapped",
            (_, LOST) => "addresses lost",
            (Some(mode), _) => mode.name(),
            (None, _) => "reserved, not mapped",
        };
        Some(Place {
            node: index,
            pages,
            state: node.word(i).get().name_of(slot % SLOTS),
            part: self.part_of(address, slot),
        })
    }

    fn part_of(&self, address: usize, slot: usize) -> Part {
        let head = usize::from(self.head(slot).load(Ordering::Relaxed));
        let what = self.kind(slot).load(Ordering::Relaxed);
        let class = usize::from(what.wrapping_sub(kind::FIRST));
        let first = slot.saturating_sub(head);
        match what {
            kind::FREE => Part::Nothing,
            _ if class < CLASS_COUNT => self.block_of(address, first, class),
            _ => Part::Run((head < 255).then(|| self.address_of(first))),
        }
    }

    fn block_of(&self, address: usize, first: usize, class: usize) -> Part {
        let (info, base) = (&CLASSES[class], self.address_of(first));
        let at = info.quotient(address - base);
        if at >= usize::from(info.blocks) || address - base >= usize::from(info.slots) * SLOT {
            return Part::Rest;
        }
        let (super_index, slot) = SpanId(first as u32).split();
        let metas = self.super_meta(super_index);
        let bit = 1 << (at % 64);
        // SAFETY: a slot with a class has metadata that is committed. Its owner may write the word at this moment;
        // what a handler gets is one of the two states.
        let free = unsafe { metas.free(slot, at / 64).as_ptr().read_volatile() };
        let remote = metas.remote(slot, at / 64).load(Ordering::Relaxed);
        Part::Block(Block {
            start: base + at * info.size as usize,
            class,
            owner: metas.spans[slot].shake.owner(),
            free: free & bit != 0,
            remote: remote & bit != 0,
        })
    }
}
