//! What must hold of SuperSlabs, slots, spans and the pool's lists at any moment at which no thread is inside the
//! allocator. Tests and fuzzing ask after every step, programs in debug builds by `is_valid`.
//!
//! Nothing here allocates. What a span's list says cannot be looked up without memory, so spans are counted twice: by
//! their owner words, and on the lists.

use super::meta::WORDS;
use super::node::Node;
use super::queue::SpanQueue;
use super::{Arena, SLOTS, SpanId, kind};
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::heap::ownership::{FIRST_HEAP, FREE, NOBODY, POOL, RUN};
use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

/// A broken invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What does not hold.
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

/// Spans by whose they are.
#[derive(Default)]
struct Hands {
    pool: usize,
    heaps: usize,
}

impl Arena {
    /// Whether tables, words, spans and lists agree. `held` is how many spans the heaps say they have.
    ///
    /// # Safety
    /// No thread is inside the allocator.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub unsafe fn is_valid(&self, held: usize) -> Result<(), Invalid> {
        let (mut hands, mut listed) = (Hands::default(), 0);
        for node in self.nodes() {
            let first = node.first;
            let holes = node.claims.holes() == node.claims.count_holes();
            ensure(holes, "holes of the node from SuperSlab", first)?;
            let (mut empty, mut in_use) = (0, 0);
            for i in node.mapped_supers() {
                self.check_super(node, i, &mut hands)?;
                let slots = node.word(i).get();
                empty += slots.empty_count() as usize;
                in_use += u64::from(slots.active_count());
            }
            let said = node.empty.load(Relaxed);
            ensure(
                empty == said,
                "EMPTY slots of the node from SuperSlab",
                first,
            )?;
            let spans = node.board.spans.iter().zip(&CLASSES);
            let counted = spans
                .map(|(spans, class)| spans.load(Relaxed) * u64::from(class.slots))
                .sum::<u64>();
            let runs = node.board.run_slots.load(Relaxed);
            ensure(
                in_use == counted + runs,
                "slots of spans and runs of the node from SuperSlab",
                first,
            )?;
            for class in 0..CLASS_COUNT {
                listed += self.check_list(&node.partial[class].lock(), class, POOL)?;
            }
        }
        for (cpu, class) in (0..self.cpus()).flat_map(|cpu| (0..CLASS_COUNT).map(move |c| (cpu, c)))
        {
            for span in self.stash(cpu, class).spans() {
                let meta = self.span(span);
                let fits = meta.shake.owner() == POOL && usize::from(meta.class.get()) == class;
                ensure(
                    fits,
                    "a stashed span is the pool's, of slot",
                    span.0 as usize,
                )?;
                listed += 1;
            }
        }
        ensure(listed == hands.pool, "spans on the pool's lists", listed)?;
        ensure(held == hands.heaps, "spans that the heaps hold", held)
    }

    fn check_super(&self, node: &Node, i: usize, hands: &mut Hands) -> Result<(), Invalid> {
        let first = (node.first + i) * SLOTS;
        let slots = node.word(i).get();
        let used = |slot: &usize| self.kind(*slot).load(Relaxed) != kind::FREE;
        let active = (first..first + SLOTS).filter(used).count();
        let said = slots.active_count() as usize;
        ensure(active == said, "ACTIVE slots of SuperSlab", node.first + i)?;
        let kept = node.avail.keeps_promise(i, node.word(i));
        ensure(kept, "no room is promised of SuperSlab", node.first + i)?;
        (first..first + SLOTS).try_for_each(|slot| self.check_slot(slot, hands))
    }

    fn check_slot(&self, slot: usize, hands: &mut Hands) -> Result<(), Invalid> {
        let what = self.kind(slot).load(Relaxed);
        let head = usize::from(self.head(slot).load(Relaxed));
        let span = SpanId(slot as u32);
        let owner = self.span(span).shake.owner();
        let expected = match what {
            kind::FREE => FREE,
            kind::LARGE | kind::HUGE if head == 0 => RUN,
            _ if head != 0 => FREE, // Slots inside have no owner of their own.
            what => return self.check_span(span, usize::from(what - kind::FIRST), hands),
        };
        ensure(owner == expected, "owner of slot", slot)
    }

    /// `blocks = free + set remote bits + handed out`, each in one place.
    fn check_span(&self, span: SpanId, class: usize, hands: &mut Hands) -> Result<(), Invalid> {
        let at = span.0 as usize;
        let (super_index, slot) = span.split();
        let (metas, meta) = (self.super_meta(super_index), self.span(span));
        let known = class < CLASS_COUNT && usize::from(meta.class.get()) == class;
        ensure(known, "class of the span at slot", at)?;
        let class = &CLASSES[class];
        let len = usize::from(class.slots);
        ensure(
            meta.slots.get() as usize == len,
            "length of the span at slot",
            at,
        )?;
        let dressed = (0..len).all(|i| {
            usize::from(self.head(at + i).load(Relaxed)) == i
                && self.kind(at + i).load(Relaxed) == self.kind(at).load(Relaxed)
        });
        ensure(dressed, "tables of the span at slot", at)?;
        let (mut free, mut remote) = (0, 0);
        for index in 0..WORDS.min(usize::from(class.blocks).div_ceil(64)) {
            let word = metas.free(slot, index).get();
            let sent = metas.remote(slot, index).load(Relaxed);
            ensure(
                word & sent == 0,
                "a block is free twice in the span at slot",
                at,
            )?;
            let marked = meta.summary.get() >> index & 1 == 1;
            ensure(marked == (word != 0), "summary of the span at slot", at)?;
            free += word.count_ones();
            remote += sent.count_ones();
        }
        ensure(
            free == meta.free.get(),
            "free blocks of the span at slot",
            at,
        )?;
        let fits = free + remote <= u32::from(class.blocks);
        ensure(
            fits,
            "more free blocks than there are in the span at slot",
            at,
        )?;
        match meta.shake.owner() {
            NOBODY => ensure(
                free + remote == 0,
                "free blocks of nobody's span at slot",
                at,
            ),
            POOL => {
                hands.pool += 1;
                ensure(
                    free + remote > 0,
                    "no free block in the pool's span at slot",
                    at,
                )
            }
            owner => {
                hands.heaps += 1;
                ensure(owner >= FIRST_HEAP, "owner of the span at slot", at)
            }
        }
    }

    /// Whether a list is well linked and its spans are the owner's and of the class; their number.
    pub fn check_list(&self, list: &SpanQueue, class: usize, owner: u64) -> Result<usize, Invalid> {
        let mut fit = true;
        let linked = list.is_linked(self, |span| {
            let meta = self.span(span);
            fit &= meta.shake.owner() == owner && usize::from(meta.class.get()) == class;
        });
        ensure(linked, "links of a list of class", class)?;
        ensure(fit, "owner of the spans on a list of class", class)?;
        Ok(list.len())
    }

    /// Whether a block of the class starts at the address and is not free, as far as its span knows.
    pub fn is_out(&self, address: usize, class: usize) -> bool {
        if !self.contains(address) {
            return false;
        }
        let slot = self.slot_of(address);
        let first = slot - usize::from(self.head(slot).load(Relaxed));
        let (super_index, head) = SpanId(first as u32).split();
        let index = CLASSES[class].index_of(address - self.address_of(first));
        usize::from(self.kind(slot).load(Relaxed)) == class + usize::from(kind::FIRST)
            && index.is_some_and(|index| {
                let metas = self.super_meta(super_index);
                let word = metas.free(head, index / 64).get()
                    | metas.remote(head, index / 64).load(Relaxed);
                word >> (index % 64) & 1 == 0
            })
    }
}
