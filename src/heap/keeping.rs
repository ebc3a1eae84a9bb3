//! The number of spans of a class that a heap keeps before it gives wholly free ones back. It is
//! learned, as the capacities of magazines are.
//!
//! Without learning these are as many as fit into [`KEEP`] bytes: two spans of a slot, one of two
//! slots, and none that is larger. So all classes together keep [`LEAST_BYTES`], 4.25 MiB, beside
//! their current spans.
//!
//! A heap that takes a span from the pool after it gave one of the same class back gave it back too
//! early: it keeps one more from then on, as long as the option `budget` has room for the spans
//! beyond that. A class that gave none back too early for the time of the option `decay` keeps
//! half as many, and the heap gives the others back at one of its next batches.

use crate::classes::{CLASS_COUNT, CLASSES};
use crate::geometry::{ClassId, SLOT};
use crate::pool::Budget;

/// Bytes of partial spans of a class that a heap has, at least, before it gives wholly free ones
/// back.
const KEEP: usize = 128 << 10;
/// The number of spans that they are, by class.
const LEAST: [u16; CLASS_COUNT] = {
    let (mut least, mut class) = ([0; CLASS_COUNT], 0);
    while class < CLASS_COUNT {
        least[class] = (KEEP / (CLASSES[class].slots as usize * SLOT)) as u16;
        class += 1;
    }
    least
};
/// Their bytes, of all classes.
pub const LEAST_BYTES: usize = {
    let (mut bytes, mut class) = (0, 0);
    while class < CLASS_COUNT {
        bytes += LEAST[class] as usize * CLASSES[class].slots as usize * SLOT;
        class += 1;
    }
    bytes
};
const _: () = assert!(LEAST_BYTES <= 17 << 18);
/// The number of batches between two ends of a period, and between two looks at the clock.
const LOOK: u32 = 256;
const GLANCE: u32 = 32;

/// The number of spans that a heap has learned to keep, by class.
pub struct Keeping {
    keep: [u16; CLASS_COUNT],
    /// Spans of each class that were given back and not taken again since the last look.
    gave: [u16; CLASS_COUNT],
    /// The bits of the classes that gave a span back too early since the last look.
    repented: u64,
    /// The bits of the classes that gave a span back since everything was forgotten last.
    given: u64,
    /// Spans that classes keep beyond [`LEAST`], and their bytes, which are claimed of the budget.
    learned: usize,
    spent: usize,
    batches: u32,
    /// The time of the last look, in nanoseconds.
    since: u64,
}

impl Keeping {
    /// The state of a heap that has learned nothing yet.
    pub const fn new() -> Self {
        Self {
            keep: LEAST,
            gave: [0; CLASS_COUNT],
            repented: 0,
            given: 0,
            learned: 0,
            spent: 0,
            batches: 0,
            since: 0,
        }
    }

    /// The number of partial spans of the class that the heap has before it gives one back.
    pub fn keeps(&self, class: ClassId) -> usize {
        usize::from(self.keep[class.index()])
    }

    /// Notes that a wholly free span went to the pool.
    pub fn gave(&mut self, class: ClassId) {
        self.gave[class.index()] = self.gave[class.index()].saturating_add(1);
        self.given |= class.bit();
    }

    /// Notes a batch that moved. Returns whether the heap should look whether its period is over.
    #[inline]
    pub fn moved(&mut self) -> bool {
        self.batches += 1;
        self.batches >= LOOK
    }

    /// Whether it is time to look at the clock for the sake of other heaps.
    #[inline]
    pub fn glances(&self) -> bool {
        self.batches.is_multiple_of(GLANCE)
    }

    /// Notes that a span came from the pool.
    pub fn took(&mut self, class: ClassId, budget: &Budget) {
        if self.gave[class.index()] > 0 {
            self.gave[class.index()] -= 1;
            self.repented |= class.bit();
            let bytes = span_bytes(class);
            if self.keep[class.index()] < u16::MAX && budget.claim(self.spent, bytes) {
                self.keep[class.index()] += 1;
                self.learned += 1;
                self.spent += bytes;
            }
        }
    }

    /// Notes that a reclaimer took a wholly free span, as others needed it more: the class keeps
    /// one less of those that it has learned to keep.
    pub fn lost(&mut self, class: ClassId, budget: &Budget) {
        let keep = &mut self.keep[class.index()];
        if *keep > LEAST[class.index()] {
            *keep -= 1;
            self.learned -= 1;
            self.spent -= span_bytes(class);
            budget.give_back(span_bytes(class));
        }
    }

    /// Halves the learned number of each class that gave no span back too early for `decay`
    /// nanoseconds. Returns by how many spans each class keeps less, or `None` if the period is not
    /// over or nothing changes.
    pub fn end_period(
        &mut self,
        now: u64,
        decay: u64,
        budget: &Budget,
    ) -> Option<[u16; CLASS_COUNT]> {
        self.batches = 0;
        if now.saturating_sub(self.since) < decay {
            return None;
        }
        let before = self.spent;
        let mut gone = [0; CLASS_COUNT];
        for (class, gone) in ClassId::all().zip(&mut gone) {
            if self.repented & class.bit() == 0 {
                let keep = (self.keep[class.index()] / 2).max(LEAST[class.index()]);
                *gone = self.keep[class.index()] - keep;
                self.spent -= usize::from(*gone) * span_bytes(class);
                self.learned -= usize::from(*gone);
                self.keep[class.index()] = keep;
            }
        }
        budget.give_back(before - self.spent);
        (self.gave, self.repented, self.since) = ([0; CLASS_COUNT], 0, now);
        (before != self.spent).then_some(gone)
    }

    /// Forgets everything that was learned and gives the claimed bytes back.
    pub fn clear(&mut self, budget: &Budget) {
        budget.give_back(self.spent);
        for class in ClassId::of(self.given) {
            (self.keep[class.index()], self.gave[class.index()]) = (LEAST[class.index()], 0);
        }
        (self.repented, self.given, self.learned, self.spent) = (0, 0, 0, 0);
        (self.batches, self.since) = (0, 0);
    }

    /// The bytes that are claimed of the budget.
    pub fn claimed(&self) -> usize {
        self.spent
    }

    /// The number of spans that all classes together keep beyond the least.
    pub fn learned(&self) -> u64 {
        self.learned as u64
    }
}

fn span_bytes(class: ClassId) -> usize {
    CLASSES[class.index()].slots as usize * SLOT
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIS: ClassId = ClassId::new(3);
    const OTHER: ClassId = ClassId::new(4);

    #[test]
    fn who_repents_keeps_more_up_to_the_budget() {
        let budget = Budget::new(2 << 20);
        let mut keeping = Keeping::new();
        let most = 2 + (1 << 20) / span_bytes(THIS);
        (0..100).for_each(|_| keeping.gave(THIS));
        (0..5).for_each(|_| keeping.took(THIS, &budget));
        assert_eq!(keeping.keeps(THIS), 2 + 5, "one more for each");
        (0..95).for_each(|_| keeping.took(THIS, &budget));
        assert_eq!(keeping.keeps(THIS), most);
        assert_eq!(keeping.keeps(OTHER), 2, "the others as before");
        assert_eq!(keeping.learned(), keeping.keeps(THIS) as u64 - 2);
        assert_eq!(
            budget.spent(),
            keeping.learned() as usize * span_bytes(THIS)
        );
        keeping.clear(&budget);
        assert_eq!((keeping.keeps(THIS), budget.spent()), (2, 0));
    }

    #[test]
    fn the_least_is_in_bytes() {
        let budget = Budget::new(64 << 20);
        let mut keeping = Keeping::new();
        let bytes = ClassId::all().map(|class| {
            let bytes = keeping.keeps(class) * span_bytes(class);
            assert!(
                bytes <= KEEP && bytes + span_bytes(class) > KEEP,
                "{class:?}"
            );
            bytes
        });
        assert_eq!(bytes.sum::<usize>(), LEAST_BYTES);
        // A class of large spans keeps what it needs, and forgets it.
        let large = ClassId::all().last().expect("a class");
        assert_eq!(keeping.keeps(large), 0);
        (0..3).for_each(|_| keeping.gave(large));
        (0..3).for_each(|_| keeping.took(large, &budget));
        assert_eq!((keeping.keeps(large), keeping.learned()), (3, 3));
        keeping.end_period(100, 100, &budget);
        let periods = [200, 300].map(|now| keeping.end_period(now, 100, &budget).is_some());
        assert_eq!(periods, [true; 2]);
        assert_eq!((keeping.keeps(large), budget.spent()), (0, 0));
    }

    #[test]
    fn who_loses_spans_keeps_less() {
        let budget = Budget::new(2 << 20);
        let mut keeping = Keeping::new();
        (0..3).for_each(|_| keeping.gave(THIS));
        (0..3).for_each(|_| keeping.took(THIS, &budget));
        let kept = [(); 5].map(|()| {
            keeping.lost(THIS, &budget);
            keeping.keeps(THIS)
        });
        assert_eq!(kept, [4, 3, 2, 2, 2]);
        assert_eq!((keeping.learned(), budget.spent()), (0, 0));
    }

    #[test]
    fn taking_alone_teaches_nothing() {
        let budget = Budget::new(2 << 20);
        let mut keeping = Keeping::new();
        (0..1000).for_each(|_| keeping.took(THIS, &budget));
        assert_eq!(keeping.keeps(THIS), 2);
    }

    #[test]
    fn what_is_not_needed_is_forgotten() {
        let budget = Budget::new(2 << 20);
        let mut keeping = Keeping::new();
        (0..8).for_each(|_| keeping.gave(THIS));
        (0..8).for_each(|_| keeping.took(THIS, &budget));
        keeping.end_period(100, 100, &budget);
        assert_eq!(keeping.keeps(THIS), 10, "needed since the start");
        keeping.end_period(199, 100, &budget);
        assert_eq!(keeping.keeps(THIS), 10, "it is not time yet");
        let gone = [200, 300, 400].map(|now| {
            keeping
                .end_period(now, 100, &budget)
                .map(|gone| gone[THIS.index()])
        });
        assert_eq!(gone, [Some(5), Some(3), None]);
        assert_eq!((keeping.keeps(THIS), budget.spent()), (2, 0));
    }
}
