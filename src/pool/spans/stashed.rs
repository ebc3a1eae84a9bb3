//! Which CPUs have spans in their stashes: a bit for each CPU, so that a thread that looks into the
//! stashes of others looks at 64 of them in a step.
//!
//! A bit is set after a span was put. Who takes from a stash leaves the bit, and who finds a stash
//! empty clears it, and looks once more: either the one that puts sees the bit cleared, or the one
//! that clears it sees the span.

use crate::sync::{AtomicU64, Ordering, fence};

/// The bits of one class's stashes.
#[derive(Clone, Copy, Debug)]
pub struct Stashed<'a>(&'a [AtomicU64]);

impl<'a> Stashed<'a> {
    /// Words for so many CPUs.
    pub const fn words(cpus: usize) -> usize {
        cpus.div_ceil(64)
    }

    /// The bits in these words, which are zero as long as all stashes are empty.
    pub fn new(words: &'a [AtomicU64]) -> Self {
        Self(words)
    }

    /// Notes that a span was put into the stash of a CPU just now.
    pub fn note(&self, cpu: usize) {
        let (word, bit) = (&self.0[cpu / 64], 1 << (cpu % 64));
        fence(Ordering::SeqCst);
        // The words are shared, and mostly have the bit already.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Asks `take` for a span in the stash of one CPU after another that is noted and `wanted`,
    /// until it takes one.
    pub fn find<T>(
        &self,
        wanted: impl Fn(usize) -> bool,
        mut take: impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        for (at, word) in self.0.iter().enumerate() {
            let mut left = word.load(Ordering::Relaxed);
            while left != 0 {
                let bit = left & left.wrapping_neg();
                left ^= bit;
                let cpu = at * 64 + bit.trailing_zeros() as usize;
                if !wanted(cpu) {
                    continue;
                }
                let mut found = take(cpu);
                if found.is_none() {
                    word.fetch_and(!bit, Ordering::Relaxed);
                    fence(Ordering::SeqCst);
                    found = take(cpu);
                    if found.is_some() {
                        word.fetch_or(bit, Ordering::Relaxed);
                    }
                }
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    /// Tells whether a CPU is noted.
    #[cfg(all(any(test, debug_assertions), not(loom)))]
    pub fn has(&self, cpu: usize) -> bool {
        self.0[cpu / 64].load(Ordering::Relaxed) >> (cpu % 64) & 1 == 1
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn those_are_asked_that_are_noted_and_wanted() {
        let words = [const { AtomicU64::new(0) }; 3];
        let stashed = Stashed::new(&words);
        let asked = |wanted: &dyn Fn(usize) -> bool| {
            let mut asked = Vec::new();
            let none = stashed.find(wanted, |cpu| {
                asked.push(cpu);
                None::<()>
            });
            assert_eq!(none, None);
            asked
        };
        assert!(asked(&|_| true).is_empty());
        [2, 64, 150].into_iter().for_each(|cpu| stashed.note(cpu));
        assert_eq!(stashed.find(|cpu| cpu > 60, Some), Some(64));
        // Each of those that have nothing is asked twice, and then no more.
        assert_eq!(asked(&|cpu| cpu != 64), [2, 2, 150, 150]);
        assert_eq!(asked(&|_| true), [64, 64]);
        assert!(!stashed.has(64));
    }
}
