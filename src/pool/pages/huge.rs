//! Room for runs that are larger than a SuperSlab or aligned to several: whole SuperSlabs and then
//! the first slots of one more.
//!
//! Room among what is mapped is found by the index of extents and taken by compare-exchange on the
//! words of its SuperSlabs, one after the other; a thread that loses one of them gives the others
//! back and looks elsewhere. Holes are mapped, and the node grows, under the growth lock. A search
//! looks at so few words that it does not depend on the heap's size ([`super::super::supers`]); all
//! of them are looked at before memory is refused.
#![allow(unsafe_code)] // Maps what it has claimed, and holds the runs that were shelved.

use super::Pages;
use crate::geometry::{NodeSuper, SLOTS, SUPER, SlotId};
use crate::pool::addresses::SlotRun;
use crate::pool::supers::extents::{Free, STEPS, Want};
use theap_platform::Error;

/// Places that a search asks where a run would end in a SuperSlab that is in use behind it.
const FEW: usize = 16;

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

    /// The SuperSlabs of which the run has all slots.
    fn whole(self) -> usize {
        self.len / SLOTS
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
        // A mix of sizes that left what is shelved where it is would spread over a fifth more
        // memory: extents would not join.
        self.clear_shelf();
        if let Some(run) = self.find_mapped(shape, align) {
            return Some(Huge::Found(run));
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
        let grown = self.extend_frontier(shape, align);
        let grown = grown.or_else(|| self.grow_huge(shape, align));
        let grown = grown.map(Huge::Grown);
        grown.or_else(|| self.find_any(shape, align).map(Huge::Found))
    }

    /// Adjacent SuperSlabs at a multiple of `align` in memory.
    fn want(&self, len: usize, align: usize) -> Want {
        let base = self.address(NodeSuper(0)) / SUPER;
        Want { len, align, base }
    }

    /// The first SuperSlab from `i` on at a multiple of `align` SuperSlabs in memory.
    fn aligned(&self, i: NodeSuper, align: usize) -> NodeSuper {
        NodeSuper(self.want(1, align).aligned(i.index()) as u32)
    }

    /// Takes a run of what is mapped.
    #[inline(never)]
    fn find_mapped(&self, shape: Shape, align: usize) -> Option<SlotRun> {
        let extents = self.supers.extents();
        let take = |i| self.take_mapped(i, shape);
        // Where the run ends within a SuperSlab, that one may be in use behind it.
        let in_part = match shape.whole() {
            0 => self.places(align).take(FEW).find_map(take),
            whole if whole == shape.supers => None,
            whole => extents.find((Free::Whole, FEW), self.want(whole, align), take),
        };
        let want = self.want(shape.supers, align);
        in_part.or_else(|| extents.find((Free::Whole, STEPS), want, take))
    }

    /// The SuperSlabs below the frontier at multiples of `align` SuperSlabs in memory.
    fn places(&self, align: usize) -> impl Iterator<Item = NodeSuper> + '_ {
        let all = (0..self.claims.frontier().index()).step_by(align);
        all.map(move |i| self.aligned(NodeSuper(i as u32), align))
    }

    /// Takes a run below the frontier, and maps the holes in it. The caller has the growth lock.
    fn find_huge(&self, shape: Shape, align: usize) -> Option<SlotRun> {
        self.find_mapped(shape, align).or_else(|| {
            let want = self.want(shape.supers, align);
            let take = |i| self.take_below(i, shape);
            (self.claims.holes() > 0)
                .then(|| self.supers.extents().find((Free::Mixed, STEPS), want, take))?
        })
    }

    /// Takes a run below the frontier, wherever there is one. The caller has the growth lock.
    #[inline(never)]
    fn find_any(&self, shape: Shape, align: usize) -> Option<SlotRun> {
        let take = |i| self.take_below(i, shape);
        if shape.whole() == 0 {
            return self.places(align).find_map(take);
        }
        let want = self.want(shape.whole(), align);
        self.supers.extents().find_any(Free::All, want, take)
    }

    /// Takes the run at a SuperSlab if all of it is free and mapped. What is not as the index has
    /// it is corrected there.
    #[inline(never)]
    fn take_mapped(&self, i: NodeSuper, shape: Shape) -> Option<SlotRun> {
        if i.index() + shape.supers > self.claims.frontier().index() {
            return None;
        }
        // From the end, as a SuperSlab that is in use in part is more likely there.
        for k in (0..shape.supers).rev() {
            let part = i.add(k);
            if self.is_left_alone(part) || !self.supers.slots(part).has_first(shape.part(k)) {
                self.supers.withdraw_whole(part);
                return None;
            }
        }
        self.supers.take_adjacent(i, shape.len).ok()
    }

    /// Takes the run at a SuperSlab if all of it lies below the frontier, and is free or can be
    /// mapped. What is not as the index has it is corrected there.
    fn take_below(&self, i: NodeSuper, shape: Shape) -> Option<SlotRun> {
        if i.index() + shape.supers > self.claims.frontier().index() {
            return None;
        }
        let blocked = match self.claim_run(i, shape) {
            Ok(run) => return Some(run),
            Err(blocked) => blocked,
        };
        self.supers.withdraw_whole(blocked);
        self.claims.withdraw(blocked);
        None
    }

    /// Takes the free SuperSlabs that end at the frontier, and maps what a run needs beyond them.
    #[inline(never)]
    fn extend_frontier(&self, shape: Shape, align: usize) -> Option<SlotRun> {
        if self.ground.affinity.interleaves() {
            // Those are mapped one by one, and may be had in part.
            return None;
        }
        let frontier = self.claims.frontier();
        let is_free = |&i: &NodeSuper| {
            !self.is_left_alone(i) && self.supers.slots(i).free_count() as usize == SLOTS
        };
        let below = (0..frontier.0).rev().map(NodeSuper);
        let free = below.take(shape.supers - 1).take_while(is_free).count();
        let first = self.aligned(NodeSuper(frontier.0 - free as u32), align);
        let has = frontier.0.checked_sub(first.0)? as usize;
        if has == 0 || !self.open(first.index() + shape.supers) {
            return None;
        }
        let end = self.supers.take_adjacent(first, has * SLOTS).ok()?;
        match self.map_run(frontier, Shape::new(shape.len - has * SLOTS)) {
            Ok(run) => Some(end.join(run)),
            Err(_) => {
                self.supers.release(end, |_| {});
                None
            }
        }
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
    #[inline(never)]
    fn claim_run(&self, i: NodeSuper, shape: Shape) -> Result<SlotRun, NodeSuper> {
        let usable = |k: &usize| {
            let part = i.add(*k);
            self.claims.is_free(part)
                || !self.is_left_alone(part) && self.supers.slots(part).has_first(shape.part(*k))
        };
        if let Some(k) = (0..shape.supers).rev().find(|k| !usable(k)) {
            return Err(i.add(k));
        }
        self.take_parts(i, shape)
    }

    /// Takes the parts of a run in their SuperSlabs, the first one first, so that of two threads
    /// whose runs overlap one goes on. Otherwise it takes nothing and returns the SuperSlab of
    /// which nothing was to be had.
    fn take_parts(&self, i: NodeSuper, shape: Shape) -> Result<SlotRun, NodeSuper> {
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

    /// Takes a freed run of at least `len` slots, at a multiple of `align` bytes, off the shelf.
    pub fn unshelve(&self, len: usize, align: usize) -> Option<SlotRun> {
        let addresses = &self.ground.addresses;
        // A power of two: a division would take as long as the rest.
        let fits = |slot| addresses.address_of(slot) & (align - 1) == 0;
        let (slot, has) = self.shelf.take(len, fits)?;
        self.supers.count_unshelved(has);
        // SAFETY: the slots are ACTIVE, and this thread holds them since it took the run.
        Some(unsafe { SlotRun::held(slot, has, false) })
    }

    /// Gives the slots of a run back: a huge one is shelved, unless the node keeps too much then.
    pub fn release_run(&self, run: SlotRun) {
        let len = run.len();
        if len <= SLOTS || self.would_have_too_much(len) {
            return self.release_slots(run);
        }
        self.supers.count_shelved(len);
        if let Some(old) = self.shelf.put(run.slot(), len) {
            self.release_shelved(old);
        }
        if self.supers.decay().kept() != 0 || self.has_too_much() {
            self.trim_idle();
        }
    }

    /// Makes free slots of all shelved runs. Whether there were any.
    pub fn clear_shelf(&self) -> bool {
        let mut any = false;
        while let Some(run) = self.shelf.take_any() {
            self.release_shelved(run);
            any = true;
        }
        any
    }

    fn release_shelved(&self, (slot, len): (SlotId, usize)) {
        self.supers.count_unshelved(len);
        // SAFETY: the slots are ACTIVE, and this thread holds them since it took the run.
        self.release_slots(unsafe { SlotRun::held(slot, len, false) });
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

#[cfg(test)]
mod tests {
    use crate::config::{Config, Pages};
    use crate::geometry::{SLOTS, SUPER};
    use crate::pool::supers::{Taker, looks};
    use crate::pool::{Arena, Node, SlotRun, faked};
    use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::vec::Vec;

    /// SuperSlabs that the kernel maps at once without a look at how much memory there is.
    const STEP: usize = 4096;

    /// A node with addresses for some more than so many SuperSlabs.
    fn world(supers: usize) -> (&'static Arena, &'static Node) {
        let config = Config::new()
            .address_space(2 * supers * SUPER)
            .pages(Pages::Small)
            .retain(1 << 50);
        let (_, arena) = faked::arena(config, |_| ());
        (arena, &arena.nodes()[0])
    }

    fn huge(node: &'static Node, slots: usize) -> SlotRun {
        node.acquire_huge(slots, 1).expect("a run")
    }

    fn first(node: &Node, run: &SlotRun) -> usize {
        node.local(run.slot().split().0).index()
    }

    fn free(node: &Node, run: SlotRun) {
        node.pages().release_slots(run);
    }

    /// A node of which every other SuperSlab is free; the others are the answer.
    fn sparse(node: &'static Node, supers: usize) -> Vec<SlotRun> {
        let mut kept = Vec::new();
        for at in (0..supers).step_by(STEP) {
            let count = STEP.min(supers - at);
            let mut rest = huge(node, count * SLOTS);
            for i in 0..count {
                let (one, others) = rest.split(SLOTS);
                rest = others;
                match i % 2 {
                    0 => free(node, one),
                    _ => kept.push(one),
                }
            }
            assert_eq!(rest.len(), 0);
        }
        kept
    }

    /// The words that are looked at for a run of so many slots, and the SuperSlab at which it is.
    fn looks_for(node: &'static Node, slots: usize) -> (usize, usize) {
        looks::take();
        let run = huge(node, slots);
        let (looks, at) = (looks::take(), first(node, &run));
        free(node, run);
        (looks, at)
    }

    #[test]
    fn a_search_costs_the_same_in_a_heap_of_any_size() {
        for supers in [1000, 16_000, 1_000_000] {
            let (arena, node) = world(supers);
            let mut kept = sparse(node, supers);
            let frontier = node.pages().frontier().index();
            // Extents of 3 and of 101 SuperSlabs, far behind.
            free(node, kept.remove(kept.len() - 2));
            let long = kept.len() - 60;
            kept.drain(long - 50..long).for_each(|run| free(node, run));
            let mut looks = [48, 64, 96, 100 * SLOTS, 101 * SLOTS - 8].map(|slots| {
                let (looks, at) = looks_for(node, slots);
                assert!(
                    at + slots / SLOTS < frontier && at + 250 > frontier,
                    "{slots}: {at}"
                );
                looks
            });
            let most = [60, 20, 20, 150, 150];
            assert!(
                looks.iter().zip(most).all(|(&looks, most)| looks <= most),
                "{supers}: {looks:?}"
            );
            // There is none, and the node grows.
            looks_for(node, 102 * SLOTS);
            assert_eq!(node.pages().frontier().index(), frontier + 102);
            looks[0] = looks_for(node, 104 * SLOTS).0;
            assert!(looks[0] < 1000, "{supers}: {looks:?}");
            kept.into_iter().for_each(|run| free(node, run));
            assert!(node.pages().counts_holes());
            end(arena);
        }
    }

    #[test]
    fn holes_are_found_in_few_steps() {
        let (arena, node) = world(16_000);
        let mut kept = sparse(node, 16_000);
        let last = kept.len() - 2;
        free(node, kept.remove(last));
        let _ = looks::take();
        assert_eq!(node.unmap_free(), 8001 * SUPER);
        let frontier = node.pages().frontier();
        looks::take();
        let run = huge(node, 3 * SLOTS - 7);
        assert_eq!(first(node, &run), 2 * last);
        let looks = looks::take();
        assert!(looks < 100, "{looks}");
        // What is mapped again serves before any hole.
        free(node, run);
        assert_eq!(looks_for(node, 2 * SLOTS).1, 2 * last);
        let (one, _) = node.acquire_slots(1, 1, Taker::Thread).expect("a slot");
        kept.push(one);
        (1..2000).for_each(|nth| {
            looks::take();
            kept.push(
                node.acquire_slots(SLOTS, 1, Taker::Thread)
                    .expect("a hole")
                    .0,
            );
            let looks = looks::take();
            assert!(looks < 100, "{nth}: {looks}");
        });
        assert_eq!(node.pages().frontier(), frontier, "nothing grew");
        assert!(node.pages().counts_holes());
        end(arena);
    }

    #[test]
    fn what_is_hard_to_find_is_not_refused() {
        let (arena, node) = world(1009);
        // Extents of 8 SuperSlabs, and one of 9 behind them; hints are for 8 and for 10.
        let mut all = huge(node, 1009 * SLOTS);
        let mut kept = Vec::new();
        for _ in 0..111 {
            let (extent, rest) = all.split(8 * SLOTS);
            let (one, rest) = rest.split(SLOTS);
            free(node, extent);
            kept.push(one);
            all = rest;
        }
        let (extent, rest) = all.split(9 * SLOTS);
        free(node, extent);
        arena.set_sealed(true);
        let run = huge(node, 9 * SLOTS);
        assert_eq!(first(node, &run), 999);
        assert_eq!(node.acquire_huge(9 * SLOTS, 1), None);
        // The last extent of 8, and the first slots of the SuperSlab in use behind it.
        let (in_part, end_of_one) = kept.pop().expect("one").split(7);
        free(node, in_part);
        let run = huge(node, 8 * SLOTS + 7);
        assert_eq!(first(node, &run), 990);
        assert_eq!(node.acquire_huge(8 * SLOTS + 7, 1), None);
        // A few slots at the start of a SuperSlab that lies right.
        let whole = (0..110).flat_map(|nth| huge_at(node, 9 * nth));
        kept.extend(whole.chain([run, end_of_one, rest]));
        let (few, rest) = kept.swap_remove(kept.len() - 1).split(3);
        let (at, address) = (first(node, &few), arena.addresses().address_of(few.slot()));
        free(node, few);
        let align = 1 << (address / SUPER).trailing_zeros();
        let run = node.acquire_huge(3, align);
        assert_eq!(run.map(|run| first(node, &run)), Some(at));
        kept.push(rest);
        arena.set_sealed(false);
        end(arena);
    }

    fn huge_at(node: &'static Node, i: usize) -> Option<SlotRun> {
        let at = node.supers().first().add(i).slot(0);
        node.pages().extend(at, 8 * SLOTS)
    }

    #[test]
    fn a_superslab_has_one_taker_of_many() {
        let (arena, node) = world(4000);
        let held: Vec<AtomicBool> = (0..4000).map(|_| AtomicBool::new(false)).collect();
        let hold = |run: &SlotRun, now: bool| {
            run.for_each_super(|super_id, _, _| {
                let was = held[node.local(super_id).index()].swap(now, Relaxed);
                assert!(was != now, "a SuperSlab in two hands");
            });
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let hold = &hold;
                scope.spawn(move || {
                    let mut runs = Vec::new();
                    for round in 0..4000 {
                        let len = 2 + (round * 7 + thread) % 5;
                        // Whole SuperSlabs, so that each is in one run.
                        let run = huge(node, len * SLOTS);
                        hold(&run, true);
                        runs.push(run);
                        if runs.len() > 9 {
                            let run = runs.swap_remove((round * 5) % 9);
                            hold(&run, false);
                            free(node, run);
                        }
                        if round % 500 == thread * 100 {
                            node.purge();
                        }
                    }
                    for run in runs {
                        hold(&run, false);
                        free(node, run);
                    }
                });
            }
        });
        let supers = node.pages().mapped_supers();
        assert!(supers.into_iter().all(|i| node.supers().keeps_promise(i)));
        assert!(node.pages().counts_holes());
        assert!(node.pages().frontier().index() < 1000, "room is used again");
        let all = node.pages().frontier().index();
        assert_eq!(
            first(node, &huge(node, all * SLOTS)),
            0,
            "all of it is found"
        );
        end(arena);
    }

    /// Gives the arena back. A pointer: a reference would be an argument of this running function.
    fn end(arena: *const Arena) {
        // SAFETY: nobody uses the arena any more, and no heap ever did.
        unsafe { Arena::destroy(arena) };
    }
}
