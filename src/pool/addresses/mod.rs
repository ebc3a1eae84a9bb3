//! The address space of a heap: one range, cut into a part for each NUMA node, and two tables with
//! a byte for each slot of it.
//!
//! ```text
//!  address - base:   | node part | SuperSlab (2 MiB)        | slot (64 KiB) | offset |
//!                      >> part     >> 21                      >> 16
//! ```
//!
//! The table of *class bytes* says what a slot is used for (see [`Kind`]), the table of *heads* how
//! far a slot is from the first slot of its span or run. Whoever holds a slot (it is ACTIVE, and no
//! other span or run has it) writes its two bytes before the first address of it is handed out, and
//! after the last one came back; anyone may read them. The bytes alone decide nothing: a reader
//! that has a live block has the happens-before of the block.
//!
//! Each part is *open* from its front up to a bound that only grows: there the tables are
//! accessible, and there alone SuperSlabs come to be. An address beyond it is foreign.
#![allow(unsafe_code)] // Reads and writes tables by pointer.

mod locate;
mod slot_run;

pub use locate::{FAR, Location, RunPart, SpanPart};
pub use slot_run::SlotRun;

use crate::geometry::{Kind, NodeIndex, SLOT, SUPER, SlotId, SuperId};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// The range, its parts and its tables. Immutable, and copied into every part of the pool that asks
/// it often.
#[derive(Clone, Copy)]
pub struct AddressMap {
    base: usize,
    len: usize,
    part_shift: u32,
    nodes: u32,
    kinds: *const AtomicU8,
    heads: *const AtomicU8,
    /// The bytes of each part that are open.
    open: &'static [AtomicUsize],
}

// SAFETY: the pointers lead to tables of atomics that live as long as the heap.
unsafe impl Send for AddressMap {}
// SAFETY: as for Send.
unsafe impl Sync for AddressMap {}

impl AddressMap {
    /// The map of a reserved range of `len` bytes, a power of two, that `nodes` nodes share.
    ///
    /// # Safety
    /// The two tables, `kinds` and `heads`, have `len / SLOT` bytes, live as long as any copy of
    /// the map, and nobody else writes them. They are zero and accessible for the slots of the
    /// first `open` bytes of each node's part.
    pub unsafe fn new(
        base: usize,
        len: usize,
        (kinds, heads): (usize, usize),
        open: &'static [AtomicUsize],
    ) -> Self {
        let nodes = open.len();
        Self {
            base,
            len,
            part_shift: (len / nodes.next_power_of_two()).trailing_zeros(),
            nodes: nodes as u32,
            kinds: kinds as *const AtomicU8,
            heads: heads as *const AtomicU8,
            open,
        }
    }

    /// Whether the address lies in an open part of the range.
    #[inline]
    pub fn contains(&self, address: usize) -> bool {
        let at = address.wrapping_sub(self.base);
        let within = at & ((1 << self.part_shift) - 1);
        at < self.len
            && (self.open.get(at >> self.part_shift))
                .is_some_and(|open| within < open.load(Ordering::Relaxed))
    }

    /// The first address of a node's part, and the bytes of it that are open.
    #[inline]
    pub fn open_part(&self, node: NodeIndex) -> (usize, usize) {
        let (first, _) = self.part(node);
        (first, self.open[node.index()].load(Ordering::Acquire))
    }

    /// The SuperSlabs of a node's part that are open.
    pub fn open_supers(&self, node: NodeIndex) -> usize {
        self.open_part(node).1 / SUPER
    }

    /// Opens a node's part up to this many SuperSlabs.
    ///
    /// # Safety
    /// The tables are accessible for them, and zero where they were not before.
    pub unsafe fn open_up_to(&self, node: NodeIndex, supers: usize) {
        self.open[node.index()].store(supers * SUPER, Ordering::Release);
    }

    /// The number of nodes that have a part of the range.
    pub fn node_count(&self) -> usize {
        self.nodes as usize
    }

    /// Whether there is more than one part, so that a slot's node must be looked at.
    pub fn has_parts(&self) -> bool {
        self.nodes > 1
    }

    /// The node whose part of the range a slot lies in.
    #[inline]
    pub fn node_of(&self, slot: SlotId) -> NodeIndex {
        NodeIndex(((slot.index() * SLOT) >> self.part_shift) as u8)
    }

    /// The first address and the bytes of a node's part.
    pub fn part(&self, node: NodeIndex) -> (usize, usize) {
        (
            self.base + (node.index() << self.part_shift),
            1 << self.part_shift,
        )
    }

    /// The first SuperSlab of a node's part, and the number of them.
    pub fn supers_of(&self, node: NodeIndex) -> (SuperId, usize) {
        let supers = (1 << self.part_shift) / SUPER;
        (SuperId((node.index() * supers) as u32), supers)
    }

    /// The slot that an address of the range lies in.
    #[inline]
    pub fn slot_of(&self, address: usize) -> SlotId {
        SlotId(((address - self.base) / SLOT) as u32)
    }

    /// The first address of a slot.
    #[inline]
    pub fn address_of(&self, slot: SlotId) -> usize {
        self.base + slot.index() * SLOT
    }

    /// The first address of a SuperSlab.
    #[inline]
    pub fn address_of_super(&self, super_id: SuperId) -> usize {
        self.base + super_id.index() * SUPER
    }

    #[inline]
    fn kind_byte(&self, slot: SlotId) -> &AtomicU8 {
        debug_assert!(self.contains(self.address_of(slot)));
        // SAFETY: the table has a byte for each slot that is open (`new`).
        unsafe { &*self.kinds.add(slot.index()) }
    }

    #[inline]
    fn head_byte(&self, slot: SlotId) -> &AtomicU8 {
        debug_assert!(self.contains(self.address_of(slot)));
        // SAFETY: the table has a byte for each slot that is open (`new`).
        unsafe { &*self.heads.add(slot.index()) }
    }

    /// The use of a slot.
    #[inline]
    pub fn kind(&self, slot: SlotId) -> Kind {
        Kind::of(self.kind_byte(slot).load(Ordering::Relaxed))
    }

    /// The distance of a slot to the first one of its span or run, at most [`FAR`]. For slots that
    /// are or were in use, as their kind says.
    #[inline]
    pub fn distance(&self, slot: SlotId) -> usize {
        usize::from(self.head_byte(slot).load(Ordering::Relaxed))
    }

    /// Writes what slots are used for from now on, the first of them being the head.
    #[inline(never)]
    pub fn dress(&self, run: &SlotRun, kind: Kind) {
        const { assert!(FAR == u8::MAX as usize) };
        // SAFETY: the tables have a byte for each slot that is open (`new`), and the bearer of
        // `run` holds its slots, so nobody else writes theirs.
        unsafe { theap_arch::number(self.heads.add(run.slot().index()), run.len()) };
        self.fill_kinds(run, kind);
    }

    /// Writes that slots are not in use, before they are given back.
    #[inline(never)]
    pub fn undress(&self, run: &SlotRun) {
        self.fill_kinds(run, Kind::Free);
    }

    fn fill_kinds(&self, run: &SlotRun, kind: Kind) {
        // SAFETY: as in `dress`.
        unsafe { theap_arch::fill(self.kinds.add(run.slot().index()), run.len(), kind.byte()) };
    }

    /// The class bytes of all slots from a node's first one on, for the hit path of free, which
    /// reads those of the open ones.
    pub fn kinds_of_node(&self, node: NodeIndex) -> *const AtomicU8 {
        let (first, _) = self.supers_of(node);
        self.kinds.wrapping_add(first.slot(0).index())
    }

    /// Where the bytes of adjacent slots lie in the two tables: address and length.
    pub fn table_rows(&self, slot: SlotId, len: usize) -> [(usize, usize); 2] {
        [self.kind_byte(slot), self.head_byte(slot)]
            .map(|byte| (core::ptr::from_ref(byte) as usize, len))
    }

    /// Replaces the class byte of a slot, to break a heap in a test. The kind that stood there.
    #[cfg(test)]
    pub fn replace_kind(&self, slot: SlotId, kind: Kind) -> Kind {
        Kind::of(self.kind_byte(slot).swap(kind.byte(), Ordering::Relaxed))
    }
}
