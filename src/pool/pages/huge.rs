//! Room for runs that are larger than a SuperSlab or aligned to several: whole SuperSlabs and then
//! the first slots of one more. They are found and mapped under the growth lock.
#![allow(unsafe_code)] // Maps what it has claimed.

use super::Pages;
use crate::geometry::{NodeSuper, SLOTS, SUPER, SlotId};
use crate::pool::addresses::SlotRun;
use theap_platform::Error;

/// A run that is being assembled: all of its SuperSlabs are whole but the last one.
#[derive(Clone, Copy)]
pub struct Shape {
    /// The slots of the run.
    pub len: usize,
    /// The SuperSlabs of the run, the last one maybe in part.
    supers: usize,
}

impl Shape {
    /// The shape of a run of `len` slots.
    pub fn new(len: usize) -> Self {
        Self {
            len,
            supers: len.div_ceil(SLOTS),
        }
    }

    /// The slots of the `k`-th SuperSlab.
    fn part(self, k: usize) -> usize {
        (self.len - k * SLOTS).min(SLOTS)
    }
}

/// The end of a search for room.
pub enum Huge {
    /// Room among what is mapped, and holes.
    Found(SlotRun),
    /// The node has grown.
    Grown(SlotRun),
}

impl Pages {
    /// Takes a run whose first SuperSlab is at a multiple of `align` SuperSlabs in memory.
    pub fn acquire_huge(&self, len: usize, align: usize) -> Option<Huge> {
        let shape = Shape::new(len);
        if shape.supers > self.supers.count() {
            return None;
        }
        let _growth = self.growth.lock();
        if let Some(run) = self.find_huge(shape, align) {
            return Some(Huge::Found(run));
        }
        let frontier = self.claims.frontier();
        if self.aligned(frontier, align) == frontier
            && let Some(run) = self.add_gigantic(len)
        {
            self.supers.count_published(&run);
            return Some(Huge::Found(run));
        }
        self.grow_huge(shape, align).map(Huge::Grown)
    }

    /// The first SuperSlab from `i` on at a multiple of `align` SuperSlabs in memory.
    fn aligned(&self, i: NodeSuper, align: usize) -> NodeSuper {
        let base = self.address(NodeSuper(0)) / SUPER;
        NodeSuper(((base + i.index()).next_multiple_of(align) - base) as u32)
    }

    /// Takes a run below the frontier.
    fn find_huge(&self, shape: Shape, align: usize) -> Option<SlotRun> {
        if self.claims.holes() == 0 && !self.supers.may_have_whole() {
            return None;
        }
        let mut i = self.aligned(NodeSuper(0), align);
        while i.index() + shape.supers <= self.claims.frontier().index() {
            match self.claim_run(i, shape) {
                Ok(run) => return Some(run),
                Err(blocked) => i = self.aligned(blocked.add(1), align),
            }
        }
        None
    }

    /// Maps a run behind the frontier.
    fn grow_huge(&self, shape: Shape, align: usize) -> Option<SlotRun> {
        let mut i = self.aligned(self.claims.frontier(), align);
        while self.open(i.index() + shape.supers) {
            match self.map_run(i, shape) {
                Ok(run) => return Some(run),
                // The SuperSlab is lost, or the warmer is at work there.
                Err(Error::Lost) => i = self.aligned(i.add(1), align),
                Err(_) => return None,
            }
        }
        None
    }

    /// Maps a run behind the frontier, all of it or nothing. SuperSlabs that are bound to different
    /// nodes are mapped one by one: those before a failure stay, free.
    fn map_run(&self, i: NodeSuper, shape: Shape) -> Result<SlotRun, Error> {
        if self.ground.affinity.interleaves() {
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
        // SAFETY: claimed just now.
        let run = unsafe { self.map_claimed(i, shape.supers, shape.len)? };
        self.supers.count_published(&run);
        Ok(run)
    }

    /// Takes the run at a SuperSlab if all of it is free or can be mapped. Otherwise it takes
    /// nothing and returns the SuperSlab that is in the way.
    fn claim_run(&self, i: NodeSuper, shape: Shape) -> Result<SlotRun, NodeSuper> {
        let usable = |k: &usize| {
            let part = i.add(*k);
            self.claims.is_free(part)
                || !self.is_left_alone(part) && self.supers.slots(part).has_run(shape.part(*k))
        };
        // From the end, as a SuperSlab in the way then skips the most.
        if let Some(k) = (0..shape.supers).rev().find(|k| !usable(k)) {
            return Err(i.add(k));
        }
        let mut taken = self.take_part(i, shape.part(0)).ok_or(i)?;
        for k in 1..shape.supers {
            let Some(part) = self.take_part(i.add(k), shape.part(k)) else {
                // Without a look at what is too much: the search goes on.
                self.supers.release(taken, |_| {});
                return Err(i.add(k));
            };
            taken = taken.join(part);
        }
        Ok(taken)
    }

    /// Takes the first `len` slots of a SuperSlab, which is mapped first if it is not.
    fn take_part(&self, i: NodeSuper, len: usize) -> Option<SlotRun> {
        if !self.claims.is_free(i) {
            return self.supers.take_exact(i, 0, len);
        }
        if !self.claims.claim(i, 1) {
            return None;
        }
        // SAFETY: claimed just now.
        let run = unsafe { self.map_claimed(i, 1, len).ok()? };
        self.supers.count_published(&run);
        Some(run)
    }

    /// Takes exactly the slots `slot..slot + len` of this node, at least one, mapping none; `None`
    /// if one of them is in use.
    pub fn extend(&self, slot: SlotId, len: usize) -> Option<SlotRun> {
        let end_of_node = self.supers.first().add(self.supers.count()).slot(0);
        if slot.index() + len > end_of_node.index() {
            return None;
        }
        let mut taken: Option<SlotRun> = None;
        loop {
            let done = taken.as_ref().map_or(0, SlotRun::len);
            if done == len {
                return taken;
            }
            let (super_id, first) = slot.add(done).split();
            let (i, part) = (self.supers.local(super_id), (SLOTS - first).min(len - done));
            // Nothing is known of what nobody has claimed.
            let mapped = (i.0 < self.claims.frontier().0 && self.mode(i).is_some()).then_some(i);
            let next = mapped.and_then(|i| self.supers.take_exact(i, first, part));
            taken = match (taken, next) {
                (None, next) => Some(next?),
                (Some(run), Some(next)) => Some(run.join(next)),
                (Some(run), None) => {
                    self.release_slots(run);
                    return None;
                }
            };
        }
    }
}
