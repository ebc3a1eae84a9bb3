//! The description of an address for the report of a crash: tables are read as they are, at any
//! moment, in a signal handler. Nothing here locks, allocates, waits, or relies on the tables being
//! sound.
#![allow(unsafe_code)] // Reads words that their owner may write at this moment.

use super::Arena;
use super::addresses::{Location, SpanPart};
use super::metadata::ownership::RUN;
use crate::geometry::{ClassId, NodeIndex, SLOTS, SlotId};
use core::sync::atomic::Ordering;

/// The description of an address of the heap's range.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// The node whose part the address lies in.
    pub node: NodeIndex,
    /// The page mode of the SuperSlab, or why it has none.
    pub pages: &'static str,
    /// The state of the slot.
    pub state: &'static str,
    /// The part of the heap that the address lies in.
    pub part: Part,
}

/// A part of the heap in which an address can lie.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// A free slot.
    Nothing,
    /// A large or huge run, which begins here; `None` for the far end of a huge one.
    Run(Option<usize>),
    /// The unused bytes of a span behind its last block.
    Rest,
    /// A block.
    Block(Block),
}

/// A block, and what its span knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// The address of the block.
    pub start: usize,
    /// The class of the block.
    pub class: ClassId,
    /// The owner word of the span.
    pub owner: u64,
    /// The free bit of the block is set.
    pub free: bool,
    /// The remote bit of the block is set.
    pub remote: bool,
}

impl Arena {
    /// Describes an address by the tables; `None` for an address outside of the range.
    pub fn describe(&self, address: usize) -> Option<Described> {
        let addresses = self.addresses();
        if !addresses.contains(address) {
            return None;
        }
        let slot = addresses.slot_of(address);
        let index = addresses.node_of(slot);
        let node = self.nodes().get(index.index())?;
        let (super_id, at) = slot.split();
        let i = node.local(super_id);
        Some(Described {
            node: index,
            pages: node.pages().mode_name(i),
            state: node.supers().slots(i).name_of(at % SLOTS),
            part: match addresses.locate(address) {
                Location::Foreign | Location::Free => Part::Nothing,
                Location::Run(run) if run.first.is_some_and(|slot| self.is_shelved(slot)) => {
                    Part::Nothing
                }
                Location::Run(run) => Part::Run(run.first.map(|slot| addresses.address_of(slot))),
                Location::Block(span) => self.block_of(address, &span),
            },
        })
    }

    /// Tells whether the run that starts at the slot was freed.
    fn is_shelved(&self, slot: SlotId) -> bool {
        // SAFETY: the tables say that a run starts or started there.
        unsafe { self.metadata().span(slot.span()) }.shake.owner() != RUN
    }

    fn block_of(&self, address: usize, part: &SpanPart) -> Part {
        let (info, offset) = (part.info(), address - part.base);
        let at = info.quotient(offset);
        if at >= usize::from(info.blocks) || offset >= info.span_bytes() {
            return Part::Rest;
        }
        let (super_id, slot) = part.span.split();
        // SAFETY: a slot with a class lies in a SuperSlab that is or was mapped.
        let metas = unsafe { self.metadata().of(super_id) };
        let bit = 1 << (at % 64);
        // The span's owner may write the word at this moment; a handler gets one of the two states.
        let free = metas.free(slot, at / 64).get();
        let remote = metas.remote(slot, at / 64).load(Ordering::Relaxed);
        Part::Block(Block {
            start: part.base + at * info.size as usize,
            class: part.class,
            owner: metas.spans[slot].shake.owner(),
            free: free & bit != 0,
            remote: remote & bit != 0,
        })
    }
}
