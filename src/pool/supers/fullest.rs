//! The choice of the SuperSlab that serves next: of those that are offered the fullest one, so that
//! the emptier ones run empty and whole hugepages can go back.
//!
//! A choice looks at the words of a few SuperSlabs. It holds until the chosen one has no such room
//! left that is warm, or nothing is in use in it any more, so that as a rule a choice is made for
//! each SuperSlab that is filled and not for each span. All threads of a node go by the same
//! choice. It is a hint: only the compare-exchange on the SuperSlab's word takes slots.

use super::avail::LEVELS;
use super::node_supers::Supers;
use super::nursed::Taker;
use super::slot_word::{SlotWord, Slots, Taken, Warmth};
use crate::geometry::{NodeSuper, SLOTS};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// SuperSlabs with room of which the fullest is chosen.
const LOOKS: usize = 32;

/// The SuperSlabs that were chosen, one for each level of room.
pub struct Chosen([AtomicU32; LEVELS]);

impl Chosen {
    /// None is chosen yet.
    pub const fn new() -> Self {
        Self([const { AtomicU32::new(u32::MAX) }; LEVELS])
    }

    fn get(&self, level: usize) -> Option<NodeSuper> {
        let i = self.0[level].load(Relaxed);
        (i != u32::MAX).then_some(NodeSuper(i))
    }

    fn set(&self, level: usize, i: NodeSuper) {
        self.0[level].store(i.0, Relaxed);
    }
}

impl Supers {
    /// Takes slots of the SuperSlab that was chosen last, or else of the fullest one of those that
    /// are offered at `level` to the taker, of which up to `tries` are looked at. `has` says
    /// whether there is what `take` takes, and whether that is warm. For nurseries, and for
    /// threads that need any slots, nothing is chosen.
    pub(super) fn take_of_fullest(
        &self,
        (level, taker): (usize, Taker),
        tries: usize,
        has: impl Fn(Slots) -> Option<Warmth>,
        take: impl Fn(&SlotWord) -> Option<Taken>,
    ) -> Option<(NodeSuper, Taken)> {
        if taker != Taker::Thread {
            return self.search((level, taker), tries, take);
        }
        let serves = |&i: &NodeSuper| {
            let slots = self.slots(i);
            (slots.free_count() as usize) < SLOTS
                && has(slots) == Some(Warmth::Warm)
                && !self.nursed().is_reserved(i)
        };
        let take_in = |i: NodeSuper| Some((i, take(self.word(i))?));
        let chosen = self.chosen.get(level).filter(serves);
        if let Some(taken) = chosen.and_then(take_in) {
            return Some(taken);
        }
        let fullest = self.fullest(level, tries, has)?;
        let taken = take_in(fullest);
        if taken.is_some() {
            self.chosen.set(level, fullest);
            return taken;
        }
        // Other threads took it. A search that follows their choice could meet them again.
        self.search((level, taker), tries, take)
    }

    /// The fullest one of the first SuperSlabs at `level` that have what is wanted. One that has it
    /// warm goes first.
    fn fullest(
        &self,
        level: usize,
        tries: usize,
        has: impl Fn(Slots) -> Option<Warmth>,
    ) -> Option<NodeSuper> {
        let mut best = None;
        let mut looks = 0;
        for i in self.offered(level, Taker::Thread).take(tries) {
            let slots = self.slots(i);
            let Some(warmth) = has(slots) else {
                self.withdraw(i, level);
                continue;
            };
            let rank = (warmth, slots.free_count());
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, i));
            }
            looks += 1;
            if looks == LOOKS {
                break;
            }
        }
        Some(best?.1)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Pages};
    use crate::geometry::{NodeSuper, SLOTS};
    use crate::pool::supers::Taker;
    use crate::pool::{Node, SlotRun, faked};
    use std::vec::Vec;

    /// A node with this many SuperSlabs that are all in use, slot by slot.
    fn full(supers: usize) -> (&'static Node, Vec<Vec<SlotRun>>) {
        let config = Config::new()
            .address_space(256 << 20)
            .pages(Pages::Small)
            .growth(2 << 20);
        let (_, arena) = faked::arena(config, |_| ());
        let node = &arena.nodes()[0];
        let mut slots: Vec<Vec<_>> = (0..supers).map(|_| Vec::new()).collect();
        for _ in 0..supers * SLOTS {
            let run = node.acquire_slots(1, 1, Taker::Thread).expect("a slot").0;
            slots[of(node, &run)].push(run);
        }
        assert!(slots.iter().all(|slots| slots.len() == SLOTS));
        (node, slots)
    }

    fn of(node: &Node, run: &SlotRun) -> usize {
        node.local(run.slot().split().0).index()
    }

    fn give_back(node: &Node, runs: impl IntoIterator<Item = SlotRun>) {
        runs.into_iter()
            .for_each(|run| node.pages().release_slots(run));
        assert!(
            node.pages()
                .mapped_supers()
                .all(|i| node.supers().keeps_promise(i))
        );
    }

    #[test]
    fn the_fullest_serves_until_it_is_full() {
        let (node, mut slots) = full(5);
        // Slots of each that become free, in all of them at least eight adjacent ones.
        let free = [20, 12, 9, 31, 16];
        for (slots, free) in slots.iter_mut().zip(free) {
            give_back(node, slots.drain(..free));
        }
        let mut take = |len| {
            let run = node.acquire_slots(len, 1, Taker::Thread).expect("slots").0;
            let i = of(node, &run);
            slots[i].push(run);
            i
        };
        assert_eq!(take(1), 2);
        assert_eq!(take(8), 2, "the largest room that has it goes last");
        assert_eq!((take(8), take(1)), (1, 1));
        assert!((0..3).all(|_| take(1) == 1), "the same again");
        assert_eq!((take(4), take(16), take(1)), (4, 0, 0));
        assert!(node.supers().slots(NodeSuper(3)).free_count() == 31);
        give_back(node, slots.into_iter().flatten());
    }

    #[test]
    fn what_is_warm_goes_first_and_what_is_wholly_free_goes_last() {
        let (node, mut slots) = full(3);
        give_back(node, slots[0].drain(..));
        give_back(node, slots[1].drain(..16));
        node.purge();
        give_back(node, slots[2].drain(..17));
        let take = || node.acquire_slots(2, 1, Taker::Thread).expect("slots").0;
        let runs: Vec<_> = (0..17).map(|_| take()).collect();
        let from: Vec<_> = runs.iter().map(|run| of(node, run)).collect();
        assert_eq!(from[..8], [2; 8], "warm");
        assert_eq!(from[8..16], [1; 8], "in use");
        assert_eq!(from[16], 0);
        give_back(node, slots.into_iter().flatten().chain(runs));
    }
}
