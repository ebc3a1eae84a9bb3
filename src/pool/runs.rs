//! Runs: what is larger than a class, or aligned to more than a slot.
//!
//! A run of up to 32 slots is LARGE and lies in one SuperSlab. A HUGE run has whole SuperSlabs and then the first
//! slots of one more, so that a run just above 2 MiB does not cost 4. Its SuperSlabs are found and mapped under the
//! growth lock. Runs are freed as a whole, by any thread, without a lock; they grow in place into free neighbours.

use super::node::{Node, SlotRun, for_each_super};
use super::superslab::SLOTS;
use super::{Arena, SLOT, SUPER, SpanId, avail, kind};
use crate::heap::ownership::RUN;
use core::sync::atomic::Ordering;
use theap_platform::{Error, PageMode};

/// The largest distance that the head table holds; beyond it a slot is just "inside".
const FAR: usize = 255;

/// A run that is being assembled: its SuperSlabs from `first` on, the last one maybe in part.
#[derive(Clone, Copy)]
struct Shape {
    /// Slots.
    len: usize,
    /// SuperSlabs.
    supers: usize,
}

impl Shape {
    fn new(len: usize) -> Self {
        Self {
            len,
            supers: len.div_ceil(SLOTS),
        }
    }

    /// Slots of the `k`-th SuperSlab.
    fn part(self, k: usize) -> usize {
        (self.len - k * SLOTS).min(SLOTS)
    }
}

impl Arena {
    /// A run of at least `bytes` at a multiple of `align` (a power of two) of the node, or of another one. Its first
    /// address and whether it reads zero.
    pub fn acquire_run(&self, node: usize, bytes: usize, align: usize) -> Option<(*mut u8, bool)> {
        let len = bytes.div_ceil(SLOT).max(1);
        let run = (0..self.node_count()).find_map(|n| {
            let node = &self.nodes()[(node + n) % self.node_count()];
            if len <= SLOTS && align <= SUPER {
                node.acquire_slots(len, align.div_ceil(SLOT))
                    .map(|(run, _)| run)
            } else {
                node.acquire_huge(len, align.div_ceil(SUPER))
            }
        })?;
        self.dress_run(run.slot, run.len);
        self.count_run(run.slot, 0, run.len);
        let meta = self.span(SpanId(run.slot as u32));
        meta.shake.claim(RUN);
        Some((self.address_of(run.slot) as *mut u8, run.fresh))
    }

    /// Notes on the board that the run at `slot` has `is` slots instead of `was`.
    fn count_run(&self, slot: usize, was: usize, is: usize) {
        let change = (is as u64).wrapping_sub(was as u64);
        self.nodes()[self.node_of_slot(slot)]
            .board
            .run_slots
            .fetch_add(change, Ordering::Relaxed);
    }

    /// Writes what the tables say about the slots of a run.
    fn dress_run(&self, slot: usize, len: usize) {
        let what = if len <= SLOTS {
            kind::LARGE
        } else {
            kind::HUGE
        };
        for i in 0..len {
            self.head(slot + i)
                .store(i.min(FAR) as u8, Ordering::Relaxed);
            self.kind(slot + i).store(what, Ordering::Relaxed);
        }
        self.span(SpanId(slot as u32)).slots.set(len as u32);
    }

    /// The run that starts at the address, and its slots.
    pub fn run_at(&self, address: usize) -> Option<(usize, usize)> {
        let slot = self.slot_of(address);
        let starts = address.is_multiple_of(SLOT) && self.head(slot).load(Ordering::Relaxed) == 0;
        let is_run = matches!(
            self.kind(slot).load(Ordering::Relaxed),
            kind::LARGE | kind::HUGE
        );
        (starts && is_run).then(|| (slot, self.span(SpanId(slot as u32)).slots.get() as usize))
    }

    /// Frees the run that starts at the slot; false if it is free already.
    pub fn release_run(&self, slot: usize) -> bool {
        let meta = self.span(SpanId(slot as u32));
        let len = meta.slots.get() as usize;
        if !meta.shake.end_run() {
            return false;
        }
        self.count_run(slot, len, 0);
        self.nodes()[self.node_of_slot(slot)].release_slots(slot, len);
        true
    }

    /// Makes a run of the caller's longer or shorter in place; false if the neighbours are in use.
    pub fn resize_run(&self, slot: usize, bytes: usize) -> bool {
        let len = self.span(SpanId(slot as u32)).slots.get() as usize;
        let wanted = bytes.div_ceil(SLOT).max(1);
        let node = &self.nodes()[self.node_of_slot(slot)];
        if wanted < len {
            self.dress_run(slot, wanted);
            node.release_slots(slot + wanted, len - wanted);
        } else if wanted > len {
            if !node.extend(slot + len, wanted - len) {
                return false;
            }
            self.dress_run(slot, wanted);
        }
        self.count_run(slot, len, wanted);
        true
    }

    /// Moves `bytes` (a multiple of the SuperSlab) from one run to another: by moving pages where the system can,
    /// else by copying. The old run's contents are unspecified then.
    ///
    /// # Errors
    /// The system took addresses of the new run: the contents are in the old run again, and the new one is gone.
    ///
    /// # Safety
    /// Both addresses start SuperSlabs of runs of the caller's that have at least `bytes`, and do not overlap.
    pub unsafe fn move_supers(&self, from: usize, to: usize, bytes: usize) -> Result<(), Error> {
        for at in (0..bytes).step_by(SUPER) {
            let (old, new) = (self.slot_of(from + at), self.slot_of(to + at));
            // SAFETY: the caller's promise: both SuperSlabs are wholly the caller's.
            if let Err(error) = unsafe { self.move_super(old, new, from + at, to + at) } {
                // SAFETY: what was moved so far has left the old run's memory mapped.
                unsafe { core::ptr::copy_nonoverlapping(to as *const u8, from as *mut u8, at) };
                self.abandon(self.slot_of(to), new);
                return Err(error);
            }
        }
        Ok(())
    }

    /// # Safety
    /// As for `move_supers`, for one SuperSlab.
    unsafe fn move_super(
        &self,
        old: usize,
        new: usize,
        from: usize,
        to: usize,
    ) -> Result<(), Error> {
        let mode = |slot: usize| {
            let node = &self.nodes()[self.node_of_slot(slot)];
            node.mode(slot / SLOTS - node.first)
        };
        let (PageMode::Small | PageMode::Thp, true) = (
            mode(old).unwrap_or(PageMode::Hugetlb),
            !self.is_sealed()
                && mode(old) == mode(new)
                && self.binding(old / SLOTS) == self.binding(new / SLOTS),
        ) else {
            // SAFETY: the caller's promise.
            unsafe { core::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, SUPER) };
            return Ok(());
        };
        // SAFETY: both are mapped, on pages that can be moved, and the caller's alone. The old one reads zero
        // afterwards and stays usable.
        match unsafe { self.os.move_pages(from, to, SUPER) } {
            Ok(()) => {
                self.lock_memory(from, SUPER);
                return Ok(());
            }
            Err(Error::Unsupported) => {}
            Err(Error::Lost) => return Err(Error::Lost),
            // SAFETY: the new one is only reserved now.
            Err(_) => unsafe {
                self.map(new / SLOTS, 1, mode(new).unwrap_or(PageMode::Small))
                    .map_err(|_| Error::Lost)?;
            },
        }
        // SAFETY: the caller's promise.
        unsafe { core::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, SUPER) };
        Ok(())
    }

    /// Gives a run back but for the SuperSlab of slot `lost`, which is never used again.
    fn abandon(&self, slot: usize, lost: usize) {
        let meta = self.span(SpanId(slot as u32));
        let end = slot + meta.slots.get() as usize;
        let after = (lost + SLOTS).min(end);
        let node = &self.nodes()[self.node_of_slot(slot)];
        meta.shake.end_run();
        self.count_run(slot, end - slot, 0);
        node.set_lost(lost / SLOTS - node.first);
        node.release_slots(slot, lost - slot);
        node.release_slots(after, end - after);
    }
}

impl Node {
    /// A run of more than one SuperSlab, or aligned to several: its first SuperSlab is at a multiple of `align`
    /// SuperSlabs in memory.
    fn acquire_huge(&self, len: usize, align: usize) -> Option<SlotRun> {
        let shape = Shape::new(len);
        let base = self.arena.range().0 / SUPER + self.first;
        let aligned = |i: usize| (base + i).next_multiple_of(align) - base;
        if shape.supers > self.supers {
            self.say_out_of_memory(len.saturating_mul(SLOT), Error::NoMemory);
            return None;
        }
        let growth = self.growth.lock();
        if self.claims.holes() > 0 || self.avail.levels[avail::WHOLE].next(0).is_some() {
            let mut i = aligned(0);
            while i + shape.supers <= self.claims.frontier() {
                match self.claim_run(i, shape) {
                    Ok(run) => return Some(run),
                    Err(blocked) => i = aligned(blocked + 1),
                }
            }
        }
        if aligned(self.claims.frontier()) == self.claims.frontier()
            && let Some(i) = self.add_gigantic(len)
        {
            return Some(SlotRun {
                slot: (self.first + i) * SLOTS,
                len,
                fresh: true,
            });
        }
        let mut i = aligned(self.claims.frontier());
        loop {
            if i + shape.supers > self.supers {
                self.say_out_of_memory(len.saturating_mul(SLOT), Error::NoMemory);
                return None;
            }
            match self.map_run(i, shape) {
                Ok(run) => {
                    drop(growth);
                    self.start_warmer();
                    return Some(run);
                }
                // What was lost, or where the warmer is at work.
                Err(Error::Lost) => i = aligned(i + 1),
                Err(error) => {
                    self.say_out_of_memory(len.saturating_mul(SLOT), error);
                    return None;
                }
            }
        }
    }

    /// Maps a run behind the frontier, all of it or nothing. SuperSlabs that are bound to different nodes are mapped
    /// one by one: those before a failure stay, free.
    fn map_run(&self, i: usize, shape: Shape) -> Result<SlotRun, Error> {
        if self.arena.interleaves() {
            return self.claim_run(i, shape).map_err(|blocked| {
                if self.claims.is_free(blocked) {
                    Error::NoMemory
                } else {
                    Error::Lost
                }
            });
        }
        if !self.claims.claim(i, shape.supers) {
            return Err(Error::Lost);
        }
        self.map_claimed(i, shape.supers, shape.len)?;
        self.count_taken(shape.len, 0);
        Ok(SlotRun {
            slot: (self.first + i) * SLOTS,
            len: shape.len,
            fresh: true,
        })
    }

    /// Takes the run at SuperSlab `i` if all of it is free or can be mapped; else the SuperSlab that is in the way,
    /// and nothing is taken.
    fn claim_run(&self, i: usize, shape: Shape) -> Result<SlotRun, usize> {
        let usable = |k: &usize| {
            self.claims.is_free(i + k) || self.word(i + k).get().has_run(shape.part(*k))
        };
        // From the end, as a SuperSlab in the way then skips the most.
        if let Some(k) = (0..shape.supers).rev().find(|k| !usable(k)) {
            return Err(i + k);
        }
        let mut fresh = true;
        for k in 0..shape.supers {
            let part = shape.part(k);
            let taken = if self.claims.is_free(i + k) {
                let mapped =
                    self.claims.claim(i + k, 1) && self.map_claimed(i + k, 1, part).is_ok();
                mapped.then_some(0)
            } else {
                self.word(i + k).take_exact(0, part).map(|taken| taken.warm)
            };
            let Some(warm) = taken else {
                self.unclaim(i, k, shape);
                return Err(i + k);
            };
            self.count_taken(part, warm);
            fresh &= warm == 0;
        }
        Ok(SlotRun {
            slot: (self.first + i) * SLOTS,
            len: shape.len,
            fresh,
        })
    }

    /// Gives the first `count` SuperSlabs' parts of a run that could not be completed back.
    fn unclaim(&self, i: usize, count: usize, shape: Shape) {
        for k in 0..count {
            let part = shape.part(k);
            self.empty.fetch_add(part, Ordering::Relaxed);
            let (before, after) = self.word(i + k).release(0, part);
            self.avail.offer(i + k, before, after);
        }
    }

    /// Takes exactly the slots `slot..slot + len` of this node, mapping none; false if one of them is in use.
    fn extend(&self, slot: usize, len: usize) -> bool {
        if (slot + len).div_ceil(SLOTS) > self.first + self.supers {
            return false;
        }
        let mut end = slot;
        for_each_super(slot, len, |super_index, first, part| {
            // After the first refusal `end` no longer reaches the SuperSlab, and nothing more is taken.
            if end != super_index * SLOTS + first || self.mode(super_index - self.first).is_none() {
                return;
            }
            if let Some(taken) = self.word(super_index - self.first).take_exact(first, part) {
                self.count_taken(part, taken.warm);
                end += part;
            }
        });
        if end < slot + len {
            self.release_slots(slot, end - slot);
            return false;
        }
        true
    }
}
