//! How many spans of a class a heap keeps before it gives wholly free ones back: learned, as magazines' capacities are.
//!
//! A heap that takes a span from the pool after it gave one of the same class back gave it back too early: it keeps
//! twice as many from then on, as long as the spans that all classes may keep beyond [`KEEP`] stay below the option
//! `budget`. Every [`PERIOD`] spans from the pool, classes that gave none back too early since the last look keep half
//! as many. Asked where spans go to the pool and come from it, nowhere else.

use crate::classes::{CLASS_COUNT, CLASSES};
use crate::pool::SLOT;

/// Partial spans of a class that a heap has at least before it gives wholly free ones back.
const KEEP: u16 = 2;
/// Spans from the pool between two looks.
const PERIOD: u16 = 256;

/// What a heap has learned.
pub struct Stock {
    keep: [u16; CLASS_COUNT],
    /// Classes that gave a span back since they took one.
    gave: u64,
    /// Classes that gave one back too early since the last look.
    repented: u64,
    /// Bytes of the spans that classes keep beyond [`KEEP`].
    spent: usize,
    taken: u16,
}

impl Stock {
    /// Nothing learned yet.
    pub const fn new() -> Self {
        Self {
            keep: [KEEP; CLASS_COUNT],
            gave: 0,
            repented: 0,
            spent: 0,
            taken: 0,
        }
    }

    /// Partial spans of the class to have before one is given back.
    pub fn keeps(&self, class: usize) -> usize {
        usize::from(self.keep[class])
    }

    /// Notes that a wholly free span went to the pool.
    pub fn gave(&mut self, class: usize) {
        self.gave |= 1 << class;
    }

    /// Notes that a span came from the pool. `budget` is in bytes; without one nothing is learned.
    pub fn took(&mut self, class: usize, budget: Option<usize>) {
        let bit = 1 << class;
        let early = self.gave & bit != 0;
        self.gave &= !bit;
        let Some(budget) = budget else { return };
        self.taken += 1;
        if self.taken == PERIOD {
            self.forget();
        }
        let more = self.keep[class];
        let bytes = usize::from(more) * span_bytes(class);
        if early && self.spent + bytes <= budget {
            self.keep[class] += more;
            self.spent += bytes;
        }
        self.repented |= u64::from(early) << class;
    }

    fn forget(&mut self) {
        for class in 0..CLASS_COUNT {
            if self.repented & 1 << class == 0 {
                let keep = (self.keep[class] / 2).max(KEEP);
                self.spent -= usize::from(self.keep[class] - keep) * span_bytes(class);
                self.keep[class] = keep;
            }
        }
        (self.repented, self.taken) = (0, 0);
    }

    /// Spans that all classes keep beyond the least.
    pub fn learned(&self) -> u64 {
        self.keep.iter().map(|&keep| u64::from(keep - KEEP)).sum()
    }
}

fn span_bytes(class: usize) -> usize {
    CLASSES[class].slots as usize * SLOT
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Option<usize> = Some(1 << 20);

    #[test]
    fn who_repents_keeps_more_up_to_the_budget() {
        let mut stock = Stock::new();
        let most = KEEP as usize + (1 << 20) / span_bytes(3);
        for _ in 0..20 {
            stock.gave(3);
            stock.took(3, BUDGET);
            assert!(stock.keeps(3) <= most);
        }
        assert!(stock.keeps(3) > most / 2);
        assert_eq!(stock.keeps(4), 2, "the others as before");
        assert_eq!(stock.learned(), stock.keeps(3) as u64 - 2);
    }

    #[test]
    fn taking_alone_teaches_nothing_and_nothing_is_learned_when_frozen() {
        let mut stock = Stock::new();
        (0..1000).for_each(|_| stock.took(3, BUDGET));
        assert_eq!(stock.keeps(3), 2);
        stock.gave(3);
        stock.took(3, None);
        stock.took(3, BUDGET);
        assert_eq!(stock.keeps(3), 2);
    }

    #[test]
    fn what_is_not_needed_is_forgotten() {
        let mut stock = Stock::new();
        for _ in 0..4 {
            stock.gave(3);
            stock.took(3, BUDGET);
        }
        assert!(stock.keeps(3) > 4);
        (0..5 * PERIOD).for_each(|_| stock.took(7, BUDGET));
        assert_eq!((stock.keeps(3), stock.spent), (2, 0));
    }
}
