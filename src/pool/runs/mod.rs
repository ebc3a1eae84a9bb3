//! Runs: what is larger than a class, or aligned to more than a slot.
//!
//! A run of up to 32 slots is LARGE and lies in one SuperSlab. A HUGE run has whole SuperSlabs and
//! then the first slots of one more, so that a run just above 2 MiB does not cost 4. Its SuperSlabs
//! are found and mapped under the growth lock. Runs are freed as a whole, by any thread, without a
//! lock; they grow in place into free neighbours.
#![allow(unsafe_code)] // Moves and copies the contents of runs.

use super::ground::Ground;
use super::metadata::SpanMeta;
use super::metadata::ownership::RUN;
use super::node::Node;
use crate::geometry::{Kind, NodeIndex, SLOT, SLOTS, SUPER, SlotId, SuperId};
use theap_platform::Error;

/// The runs of a heap.
pub struct Runs {
    ground: Ground,
    nodes: &'static [Node],
}

impl Runs {
    /// The runs in the memory of these nodes, which are all nodes of the heap.
    pub fn new(ground: Ground, nodes: &'static [Node]) -> Self {
        Self { ground, nodes }
    }

    fn node_of(&self, slot: SlotId) -> &'static Node {
        &self.nodes[self.ground.addresses.node_of(slot).index()]
    }

    fn meta(&self, slot: SlotId) -> &'static SpanMeta {
        self.ground.metadata.span(slot.span())
    }

    /// The number of slots of the run that starts at the slot.
    pub fn len(&self, slot: SlotId) -> usize {
        self.meta(slot).slots.get() as usize
    }

    /// The bytes of the run that starts at the address; `None` if none starts there.
    pub fn bytes_at(&self, address: usize) -> Option<usize> {
        let slot = self.ground.addresses.run_at(address)?;
        Some(self.len(slot) * SLOT)
    }

    /// A run of at least `bytes` at a multiple of `align` (a power of two) of the node, or of
    /// another one. Its first address and whether it reads zero.
    pub fn acquire(&self, node: NodeIndex, bytes: usize, align: usize) -> Option<(*mut u8, bool)> {
        let len = bytes.div_ceil(SLOT).max(1);
        let count = self.nodes.len();
        let run = (0..count).find_map(|away| {
            let node = &self.nodes[(node.index() + away) % count];
            if len <= SLOTS && align <= SUPER {
                node.acquire_slots(len, align.div_ceil(SLOT))
                    .map(|(run, _)| run)
            } else {
                node.acquire_huge(len, align.div_ceil(SUPER))
            }
        })?;
        self.dress(run.slot, run.len);
        self.node_of(run.slot).lists().count_run(0, run.len);
        self.meta(run.slot).shake.claim(RUN);
        let address = self.ground.addresses.address_of(run.slot);
        Some((address as *mut u8, run.fresh))
    }

    /// Writes what the tables say about the slots of a run.
    fn dress(&self, slot: SlotId, len: usize) {
        let kind = if len <= SLOTS {
            Kind::Large
        } else {
            Kind::Huge
        };
        self.ground.addresses.dress(slot, len, kind);
        self.meta(slot).slots.set(len as u32);
    }

    /// Frees the run that starts at the slot; false if it is free already.
    pub fn release(&self, slot: SlotId) -> bool {
        let len = self.len(slot);
        if !self.meta(slot).shake.end_run() {
            return false;
        }
        let node = self.node_of(slot);
        node.lists().count_run(len, 0);
        node.pages().release_slots(slot, len);
        true
    }

    /// Makes a run of the caller's longer or shorter in place; false if the neighbours are in use.
    pub fn resize(&self, slot: SlotId, bytes: usize) -> bool {
        let len = self.len(slot);
        let wanted = bytes.div_ceil(SLOT).max(1);
        let node = self.node_of(slot);
        if wanted < len {
            self.dress(slot, wanted);
            node.pages().release_slots(slot.add(wanted), len - wanted);
        } else if wanted > len {
            if !node.pages().extend(slot.add(len), wanted - len) {
                return false;
            }
            self.dress(slot, wanted);
        }
        node.lists().count_run(len, wanted);
        true
    }
}

/// Moving the contents of runs.
#[cfg_attr(
    feature = "valgrind",
    allow(dead_code, reason = "memcheck knows no moved pages")
)]
impl Runs {
    /// Moves `bytes` (a multiple of the SuperSlab) from one run to another: by moving pages where
    /// the system can, else by copying. The old run's contents are unspecified then.
    ///
    /// # Errors
    /// The system took addresses of the new run: the contents are in the old run again, and the new
    /// one is gone.
    ///
    /// # Safety
    /// Both addresses start SuperSlabs of runs of the caller's that have at least `bytes`, and do
    /// not overlap.
    pub unsafe fn move_supers(&self, from: usize, to: usize, bytes: usize) -> Result<(), Error> {
        let addresses = &self.ground.addresses;
        let super_at = |address: usize| addresses.slot_of(address).split().0;
        for at in (0..bytes).step_by(SUPER) {
            let (old, new) = (super_at(from + at), super_at(to + at));
            let (old_node, new_node) = (self.node_of(old.slot(0)), self.node_of(new.slot(0)));
            // SAFETY: both SuperSlabs are wholly the caller's and do not overlap, as this
            // function's Safety section asks.
            let moved = unsafe {
                let (old, new) = (old_node.local(old), new_node.local(new));
                old_node.pages().move_super(old, new_node.pages(), new)
            };
            if let Err(error) = moved {
                // SAFETY: what was moved so far has left the old run's memory mapped.
                unsafe { core::ptr::copy_nonoverlapping(to as *const u8, from as *mut u8, at) };
                self.abandon(addresses.slot_of(to), new);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives a run back but for a SuperSlab that is lost and never used again.
    fn abandon(&self, slot: SlotId, lost: SuperId) {
        let (len, node) = (self.len(slot), self.node_of(slot));
        let before = lost.slot(0).index() - slot.index();
        let after = (before + SLOTS).min(len);
        self.meta(slot).shake.end_run();
        node.lists().count_run(len, 0);
        node.pages().set_lost(node.local(lost));
        node.pages().release_slots(slot, before);
        node.pages().release_slots(slot.add(after), len - after);
    }
}
