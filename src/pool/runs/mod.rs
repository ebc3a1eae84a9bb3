//! Runs: what is larger than a class, or aligned to more than a slot.
//!
//! A run of up to 32 slots is LARGE and lies in one SuperSlab. A HUGE run has whole SuperSlabs and
//! then the first slots of one more, so that a run just above 2 MiB does not cost 4. What is mapped
//! serves without a lock, and the rest under the growth lock. Runs are freed as a whole, by any
//! thread, without a lock; huge ones are shelved for the next request of about their size. Runs
//! grow in place into free neighbours.
#![allow(unsafe_code)] // Leans on who holds a run; moves and copies the contents of runs.

mod outside;
#[cfg(test)]
mod tests;

pub use outside::{Entry, MOST as MOST_OUTSIDE, Outside};

use super::addresses::SlotRun;
use super::ground::Ground;
use super::metadata::SpanMeta;
use super::metadata::ownership::RUN;
use super::node::Node;
use super::supers::Taker;
use crate::geometry::{Kind, NodeIndex, SLOT, SLOTS, SUPER, SlotId, SuperId};
use theap_platform::Error;

/// The runs of a heap.
pub struct Runs {
    ground: Ground,
    nodes: &'static [Node],
    outside: Outside,
}

impl Runs {
    /// The runs in the memory of these nodes, which are all nodes of the heap, and those outside of
    /// the range, which the zeroed table is for.
    ///
    /// # Safety
    /// `outside` is what [`Outside::new`] asks for.
    pub unsafe fn new(ground: Ground, nodes: &'static [Node], outside: usize) -> Self {
        Self {
            ground,
            nodes,
            // SAFETY: this function's own Safety section.
            outside: unsafe { Outside::new(ground, outside) },
        }
    }

    /// The runs outside of the range.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    fn node_of(&self, slot: SlotId) -> &'static Node {
        &self.nodes[self.ground.addresses.node_of(slot).index()]
    }

    /// The metadata of a run.
    ///
    /// # Safety
    /// A run starts or started at the slot, or the caller holds it.
    unsafe fn meta(&self, slot: SlotId) -> &'static SpanMeta {
        // SAFETY: runs lie in mapped SuperSlabs.
        unsafe { self.ground.metadata.span(slot.span()) }
    }

    /// The number of slots of the run that starts at the slot.
    ///
    /// # Safety
    /// A run starts or started there.
    pub unsafe fn len(&self, slot: SlotId) -> usize {
        // SAFETY: this function's own Safety section.
        unsafe { self.meta(slot) }.slots.get() as usize
    }

    /// The bytes of the run that starts at the address; `None` if none starts there.
    pub fn bytes_at(&self, address: usize) -> Option<usize> {
        if !self.ground.addresses.contains(address) {
            return self.outside.bytes_at(address);
        }
        let slot = self.ground.addresses.run_at(address)?;
        // SAFETY: the tables say that a run starts there, which may be shelved.
        unsafe { (self.meta(slot).shake.owner() == RUN).then(|| self.len(slot) * SLOT) }
    }

    /// A run of at least `bytes` at a multiple of `align` (a power of two) of the node, or of
    /// another one. Its first address and whether it reads zero.
    pub fn acquire(&self, node: NodeIndex, bytes: usize, align: usize) -> Option<(*mut u8, bool)> {
        let len = bytes.div_ceil(SLOT).max(1);
        let is_huge = len > SLOTS || align > SUPER;
        if is_huge && let Some(run) = self.unshelve(node, len, align) {
            return Some((run, false));
        }
        let count = self.nodes.len();
        let run = (0..count).find_map(|away| {
            let node = &self.nodes[(node.index() + away) % count];
            if is_huge {
                node.acquire_huge(len, align.div_ceil(SUPER))
            } else {
                node.acquire_slots(len, align.div_ceil(SLOT), Taker::Thread)
                    .map(|(run, _)| run)
            }
        });
        let Some(run) = run else {
            let outside = is_huge
                .then(|| self.acquire_outside(node, bytes, align))
                .flatten();
            if is_huge && outside.is_none() {
                let pages = self.nodes[node.index()].pages();
                pages.say_out_of_memory(bytes, Error::NoMemory);
            }
            return outside.map(|address| (address, true));
        };
        self.dress(&run);
        let slot = run.slot();
        self.node_of(slot).lists().count_run(0, run.len());
        // SAFETY: the run is this thread's.
        unsafe { self.meta(slot) }.shake.claim(RUN);
        let address = self.ground.addresses.address_of(slot);
        Some((address as *mut u8, run.is_fresh()))
    }

    /// A run of `len` slots of the node that was freed and is as it was; what it has beyond that is
    /// cut off, as a free with a size tells what was asked for.
    fn unshelve(&self, node: NodeIndex, len: usize, align: usize) -> Option<*mut u8> {
        let node = &self.nodes[node.index()];
        let (run, rest) = node.pages().unshelve(len, align)?.split(len);
        if rest.len() > 0 {
            self.dress(&run);
            node.pages().release_slots(rest);
        }
        let slot = run.slot();
        node.lists().count_run(0, len);
        // SAFETY: the run was this thread's from the shelf on.
        unsafe { self.meta(slot) }.shake.claim(RUN);
        Some(self.ground.addresses.address_of(slot) as *mut u8)
    }

    /// A run outside of the range, of at least `bytes` at a multiple of `align`. Where the limit
    /// refuses it, the nodes give back what is wholly free first.
    pub fn acquire_outside(&self, node: NodeIndex, bytes: usize, align: usize) -> Option<*mut u8> {
        self.outside.acquire(bytes, align).or_else(|| {
            let more = self.nodes[node.index()].make_room(bytes);
            more.then(|| self.outside.acquire(bytes, align))?
        })
    }

    /// Writes what the tables say about the slots of a run.
    fn dress(&self, run: &SlotRun) {
        let kind = if run.len() <= SLOTS {
            Kind::Large
        } else {
            Kind::Huge
        };
        self.ground.addresses.dress(run, kind);
        // SAFETY: the bearer of `run` holds the slots.
        unsafe { self.meta(run.slot()) }.slots.set(run.len() as u32);
    }

    /// Frees the run that starts at the slot; false if it is free already.
    ///
    /// # Safety
    /// A run starts or started there, and nobody uses its memory any more.
    pub unsafe fn release(&self, slot: SlotId) -> bool {
        // SAFETY: this function's own Safety section. Of several threads one ends the run.
        let run = unsafe {
            let len = self.len(slot);
            if !self.meta(slot).shake.end_run() {
                return false;
            }
            SlotRun::held(slot, len, false)
        };
        let node = self.node_of(slot);
        node.lists().count_run(run.len(), 0);
        node.pages().release_run(run);
        true
    }

    /// Makes a run longer or shorter in place; false if the neighbours are in use.
    ///
    /// # Safety
    /// The run that starts at the slot is the caller's, and nobody uses what is cut off.
    pub unsafe fn resize(&self, slot: SlotId, bytes: usize) -> bool {
        // SAFETY: the caller's, as this function's Safety section has it.
        let run = unsafe { SlotRun::held(slot, self.len(slot), false) };
        let (len, wanted) = (run.len(), bytes.div_ceil(SLOT).max(1));
        let node = self.node_of(slot);
        if wanted < len {
            let (run, rest) = run.split(wanted);
            self.dress(&run);
            node.pages().release_slots(rest);
        } else if wanted > len {
            let extend = || node.pages().extend(slot.add(len), wanted - len);
            let more = extend().or_else(|| node.pages().clear_shelf().then(extend)?);
            let Some(more) = more else {
                return false;
            };
            self.dress(&run.join(more));
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
                // SAFETY: the new run is the caller's, as this function's Safety section has it,
                // and lost the SuperSlab just now.
                unsafe { self.abandon(addresses.slot_of(to), new) };
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives a run back but for a SuperSlab that is lost and never used again.
    ///
    /// # Safety
    /// The run is the caller's, and the system took the addresses of the SuperSlab, one of its.
    unsafe fn abandon(&self, slot: SlotId, lost: SuperId) {
        let node = self.node_of(slot);
        // SAFETY: this function's own Safety section.
        let run = unsafe {
            let run = SlotRun::held(slot, self.len(slot), false);
            self.meta(slot).shake.end_run();
            node.pages().set_lost(node.local(lost));
            run
        };
        let len = run.len();
        node.lists().count_run(len, 0);
        let before = lost.slot(0).index() - slot.index();
        let (before, rest) = run.split(before);
        let of_lost = SLOTS.min(rest.len());
        let (_, after) = rest.split(of_lost);
        node.pages().release_slots(before);
        node.pages().release_slots(after);
    }
}
