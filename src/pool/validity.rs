//! The invariants of SuperSlabs, slots, spans and the pool's lists at any moment at which no thread
//! is inside the allocator. Tests and fuzzing ask after every step, programs in debug builds by
//! `is_valid`.
//!
//! Nothing here allocates. Which list a span is on cannot be looked up without memory, so spans are
//! counted twice: by their owner words, and on the lists.
#![allow(unsafe_code)] // `is_valid` leans on its caller.

use super::Arena;
use super::metadata::WORDS;
use super::metadata::ownership::{FIRST_HEAP, FREE, NOBODY, POOL, RUN};
use super::node::Node;
use super::spans::queue::SpanQueue;
use crate::classes::{CLASSES, Class};
use crate::geometry::{ClassId, Kind, NodeSuper, SLOTS, SUPER, SlotId, SpanId};
use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

/// A broken invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The invariant that does not hold.
    pub what: &'static str,
    /// The slot, SuperSlab, class or heap for which it does not, as `what` says.
    pub at: usize,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.at)
    }
}

impl core::error::Error for Invalid {}

/// An error unless `holds`.
pub fn ensure(holds: bool, what: &'static str, at: usize) -> Result<(), Invalid> {
    if holds {
        Ok(())
    } else {
        Err(Invalid { what, at })
    }
}

/// The number of spans of each kind of owner.
#[derive(Default)]
struct Owned {
    pool: usize,
    heaps: usize,
}

impl Arena {
    /// Whether tables, words, spans and lists agree. `held` is how many spans the heaps say they
    /// have.
    ///
    /// # Safety
    /// No thread is inside the allocator.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub unsafe fn is_valid(&self, held: usize) -> Result<(), Invalid> {
        let (mut owned, mut listed) = (Owned::default(), 0);
        for node in self.nodes() {
            self.check_node(node, &mut owned)?;
            let mut found = Ok(());
            node.lists().each_list(|class, list| {
                let len = self.check_list(list, class, POOL);
                listed += len.unwrap_or(0);
                found = found.and(len.map(drop));
            });
            found?;
        }
        let mut found = Ok(());
        self.spans().each_stashed(|class, span| {
            // SAFETY: stashed spans lie in mapped SuperSlabs.
            let meta = unsafe { self.metadata().span(span) };
            let fits = meta.shake.owner() == POOL && usize::from(meta.class.get()) == class.index();
            let what = "a stashed span is the pool's, of slot";
            found = found.and(ensure(fits, what, span.0 as usize));
            listed += 1;
        });
        found?;
        // A warmer counts what it is about to map.
        if self.nodes().iter().all(|node| !node.warmer().exists()) {
            self.check_limit()?;
        }
        ensure(listed == owned.pool, "spans on the pool's lists", listed)?;
        ensure(held == owned.heaps, "spans that the heaps hold", held)
    }

    /// Whether what counts against the limits is what is mapped, and the metadata that was opened
    /// with it: that of SuperSlabs and heaps, and less than a SuperSlab of tables. In a forked
    /// child a mapping may count that another thread of the parent was making.
    fn check_limit(&self) -> Result<(), Invalid> {
        let supers: usize = (self.nodes().iter())
            .map(|node| node.pages().mapped_supers().count() * SUPER + node.pages().spare_bytes())
            .sum();
        let mapped = supers + self.runs().outside().mapped();
        let metadata = self.metadata().opened() + self.heaps().opened();
        let charged = self.policy().limit().mapped();
        let counted = charged >= mapped + metadata;
        ensure(counted, "bytes that do not count, of", mapped + metadata)?;
        let counted = self.policy().is_child() || charged < mapped + metadata + SUPER;
        ensure(counted, "bytes that count and are not mapped", charged)
    }

    fn check_node(&self, node: &Node, owned: &mut Owned) -> Result<(), Invalid> {
        let first = node.supers().first().index();
        let holes = node.pages().counts_holes();
        ensure(holes, "holes of the node from SuperSlab", first)?;
        let shelved = node.pages().shelved();
        let (mut empty, mut in_use) = (shelved, 0);
        for i in node.pages().mapped_supers() {
            self.check_super(node, i, owned)?;
            let slots = node.supers().slots(i);
            empty += slots.empty_count() as usize;
            in_use += u64::from(slots.active_count());
        }
        let counted = empty == node.supers().warm();
        ensure(counted, "EMPTY slots of the node from SuperSlab", first)?;
        let counted = in_use == node.lists().counted_slots() + shelved as u64;
        let what = "slots of spans and runs of the node from SuperSlab";
        ensure(counted, what, first)
    }

    fn check_super(&self, node: &Node, i: NodeSuper, owned: &mut Owned) -> Result<(), Invalid> {
        let id = node.supers().id(i);
        let slots = || (0..SLOTS).map(|at| id.slot(at));
        let used = |slot: &SlotId| self.addresses().kind(*slot) != Kind::Free;
        let active = slots().filter(used).count();
        let counted = node.supers().slots(i).active_count() as usize;
        ensure(active == counted, "ACTIVE slots of SuperSlab", id.index())?;
        let kept = node.supers().keeps_promise(i);
        ensure(kept, "no room is promised of SuperSlab", id.index())?;
        slots().try_for_each(|slot| self.check_slot(slot, owned))
    }

    fn check_slot(&self, slot: SlotId, owned: &mut Owned) -> Result<(), Invalid> {
        let is_head = self.addresses().distance(slot) == 0;
        // SAFETY: the caller looks at mapped SuperSlabs.
        let owner = unsafe { self.metadata().span(slot.span()) }.shake.owner();
        let expected = match self.addresses().kind(slot) {
            Kind::Free => FREE,
            // A shelved run has no owner.
            Kind::Huge if is_head && owner == FREE => FREE,
            Kind::Large | Kind::Huge if is_head => RUN,
            _ if !is_head => FREE, // Slots inside have no owner of their own.
            Kind::Class(class) => return self.check_span(slot.span(), class, owned),
            Kind::Large | Kind::Huge => FREE,
        };
        ensure(owner == expected, "owner of slot", slot.index())
    }

    /// `blocks = free + set remote bits + handed out`, each in one place.
    fn check_span(&self, span: SpanId, class: ClassId, owned: &mut Owned) -> Result<(), Invalid> {
        // SAFETY: as in `check_slot`.
        let (at, meta) = (span.0 as usize, unsafe { self.metadata().span(span) });
        let known = usize::from(meta.class.get()) == class.index();
        ensure(known, "class of the span at slot", at)?;
        let info = &CLASSES[class.index()];
        let len = usize::from(info.slots);
        let right = meta.slots.get() as usize == len;
        ensure(right, "length of the span at slot", at)?;
        let addresses = self.addresses();
        let dressed = (0..len).all(|k| {
            let slot = span.slot().add(k);
            addresses.distance(slot) == k && addresses.kind(slot) == Kind::Class(class)
        });
        ensure(dressed, "tables of the span at slot", at)?;
        let free = self.check_bits(span, info)?;
        match meta.shake.owner() {
            NOBODY => ensure(free == 0, "free blocks of nobody's span at slot", at),
            POOL => {
                owned.pool += 1;
                ensure(free > 0, "no free block in the pool's span at slot", at)
            }
            owner => {
                owned.heaps += 1;
                ensure(owner >= FIRST_HEAP, "owner of the span at slot", at)
            }
        }
    }

    /// The free blocks of a span, those with a remote bit included.
    fn check_bits(&self, span: SpanId, info: &Class) -> Result<u32, Invalid> {
        let (super_id, slot) = span.split();
        // SAFETY: as in `check_slot`.
        let (metas, meta) = unsafe { (self.metadata().of(super_id), self.metadata().span(span)) };
        let at = span.0 as usize;
        let (mut free, mut remote) = (0, 0);
        for index in 0..WORDS.min(usize::from(info.blocks).div_ceil(64)) {
            let word = metas.free(slot, index).get();
            let sent = metas.remote(slot, index).load(Relaxed);
            let once = word & sent == 0;
            ensure(once, "a block is free twice in the span at slot", at)?;
            let marked = meta.summary.get() >> index & 1 == 1;
            ensure(marked == (word != 0), "summary of the span at slot", at)?;
            free += word.count_ones();
            remote += sent.count_ones();
        }
        let counted = free == meta.free.get();
        ensure(counted, "free blocks of the span at slot", at)?;
        let fits = free + remote <= u32::from(info.blocks);
        let what = "more free blocks than there are in the span at slot";
        ensure(fits, what, at).map(|()| free + remote)
    }

    /// Whether a list is well linked and its spans are the owner's and of the class; their number.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check_list(
        &self,
        list: &SpanQueue,
        class: ClassId,
        owner: u64,
    ) -> Result<usize, Invalid> {
        let mut fit = true;
        let linked = list.is_linked(self.metadata(), |span| {
            // SAFETY: spans in queues lie in mapped SuperSlabs.
            let meta = unsafe { self.metadata().span(span) };
            fit &= meta.shake.owner() == owner && usize::from(meta.class.get()) == class.index();
        });
        ensure(linked, "links of a list of class", class.index())?;
        ensure(fit, "owner of the spans on a list of class", class.index())?;
        Ok(list.len())
    }

    /// Whether a block of the class starts at the address and is not free, as far as its span
    /// knows.
    pub fn is_out(&self, address: usize, class: ClassId) -> bool {
        let Some(part) = self.addresses().span_of(address) else {
            return false;
        };
        let (super_id, slot) = part.span.split();
        part.class == class
            && part.index_of(address).is_some_and(|index| {
                // SAFETY: the tables say that a span is there.
                let metas = unsafe { self.metadata().of(super_id) };
                let word = metas.free(slot, index / 64).get()
                    | metas.remote(slot, index / 64).load(Relaxed);
                word >> (index % 64) & 1 == 0
            })
    }
}
