//! The index of a node's SuperSlabs that have room: a bitmap with a summary for each level of room.
//!
//! A set bit is a hint that may be stale; a clear bit is a promise: the SuperSlab has no such room,
//! or another thread is about to set the bit. A thread that releases slots changes the SuperSlab's
//! word and then sets the bits of the levels that the word now satisfies, always with a
//! read-modify-write. A thread that wants slots and finds a bit stale clears the bit and then reads
//! the word again: if the releaser's `fetch_or` came before the taker's `fetch_and`, the taker sees
//! the releaser's word; if it came after, the bit stays set.

use super::slot_word::{SlotWord, Slots};
use crate::geometry::NodeSuper;
use crate::sync::{AtomicU64, Ordering};

/// The number of levels of room.
pub const LEVELS: usize = 7;
/// The level of a SuperSlab with at least one EMPTY slot.
pub const EMPTY: usize = 0;
/// The level of a SuperSlab of which all 32 slots can be taken.
pub const WHOLE: usize = LEVELS - 1;

/// The least number of adjacent slots that a SuperSlab of `level` offers; EMPTY has no such number.
pub const fn room(level: usize) -> usize {
    1 << (level - 1)
}

/// The lowest level that promises `len` adjacent slots.
#[cfg(any(feature = "shared-pool", loom))]
pub const fn level_for(len: usize) -> usize {
    1 + len.next_power_of_two().trailing_zeros() as usize
}

fn satisfied(slots: Slots, level: usize) -> bool {
    if level == EMPTY {
        slots.has_empty()
    } else {
        slots.has_run(room(level))
    }
}

/// The levels that this build uses: without the shared pool a SuperSlab is offered only as
/// a whole.
const USED: core::ops::Range<usize> = if cfg!(feature = "shared-pool") {
    0..LEVELS
} else {
    WHOLE..LEVELS
};

/// The bits from `first` to `last`: words and the bits in them.
fn bits_from(first: usize, last: usize) -> impl Iterator<Item = (usize, u64)> {
    (first / 64..=last / 64).map(move |word| {
        let below = first.saturating_sub(word * 64);
        let end = (last - word * 64).min(63);
        (word, (!0 << below) & (!0 >> (63 - end)))
    })
}

/// The bitmap of one level: a word for 64 SuperSlabs, and a summary bit for each word that is not
/// zero.
#[derive(Debug, Clone, Copy)]
pub struct Bitmap<'a> {
    /// Bit `i % 64` of word `i / 64` stands for SuperSlab `i`.
    pub words: &'a [AtomicU64],
    /// Bit `w % 64` of summary word `w / 64` is set if word `w` is not zero.
    pub summary: &'a [AtomicU64],
}

impl Bitmap<'_> {
    /// Sets bit `i`.
    pub fn set(&self, i: usize) {
        self.set_bits(i / 64, 1 << (i % 64));
    }

    /// Sets bits of a word.
    fn set_bits(&self, word: usize, bits: u64) {
        if self.words[word].fetch_or(bits, Ordering::AcqRel) == 0 {
            self.summary[word / 64].fetch_or(1 << (word % 64), Ordering::AcqRel);
        }
    }

    /// Sets the bits from `first` to `last`, where one of a word's is not set.
    pub fn set_missing(&self, first: usize, last: usize) {
        for (word, bits) in bits_from(first, last) {
            if self.words[word].load(Ordering::Acquire) & bits != bits {
                self.set_bits(word, bits);
            }
        }
    }

    /// Clears bit `i`.
    pub fn clear(&self, i: usize) {
        self.clear_bits(i / 64, 1 << (i % 64));
    }

    /// Clears bits of a word.
    fn clear_bits(&self, word: usize, bits: u64) {
        let before = self.words[word].fetch_and(!bits, Ordering::AcqRel);
        if before != 0 && before & !bits == 0 {
            self.clear_summary(word);
        }
    }

    /// Clears the bits from `first` to `last`, where one of a word's is set.
    #[cfg_attr(loom, allow(dead_code, reason = "for who takes several SuperSlabs"))]
    pub fn clear_set(&self, first: usize, last: usize) {
        for (word, bits) in bits_from(first, last) {
            if self.words[word].load(Ordering::Relaxed) & bits != 0 {
                self.clear_bits(word, bits);
            }
        }
    }

    /// Whether bit `i` is set.
    #[inline]
    pub fn has(&self, i: usize) -> bool {
        self.words[i / 64].load(Ordering::Acquire) >> (i % 64) & 1 == 1
    }

    fn clear_summary(&self, word: usize) {
        let bit = 1 << (word % 64);
        self.summary[word / 64].fetch_and(!bit, Ordering::AcqRel);
        if self.words[word].load(Ordering::Acquire) != 0 {
            self.summary[word / 64].fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// The first set bit at or after `from`.
    pub fn next(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        if word >= self.words.len() {
            return None;
        }
        #[cfg(all(test, not(loom)))]
        super::looks::count();
        let head = self.words[word].load(Ordering::Acquire) & (!0 << (from % 64));
        if head != 0 {
            return Some(word * 64 + head.trailing_zeros() as usize);
        }
        word += 1;
        while word / 64 < self.summary.len() {
            #[cfg(all(test, not(loom)))]
            super::looks::count();
            let marks = self.summary[word / 64].load(Ordering::Acquire) & (!0 << (word % 64));
            if marks == 0 {
                word = (word / 64 + 1) * 64;
                continue;
            }
            word = word / 64 * 64 + marks.trailing_zeros() as usize;
            let bits = self.words[word].load(Ordering::Acquire);
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
            word += 1;
        }
        None
    }
}

/// The levels of one node.
#[derive(Debug)]
pub struct Avail<'a> {
    /// One bitmap for each level.
    pub levels: [Bitmap<'a>; LEVELS],
}

impl Avail<'_> {
    /// Offers SuperSlab `i` at the levels that it reached when a release (or a purge) turned
    /// `before` into `after`.
    /// Whether it is wholly free then and was not before.
    pub fn offer(&self, i: NodeSuper, before: Slots, after: Slots) -> bool {
        let mut whole = false;
        for level in USED {
            if satisfied(after, level) && !satisfied(before, level) {
                self.levels[level].set(i.index());
                whole = level == WHOLE;
            }
        }
        whole
    }

    /// Offers the SuperSlabs from `first` to `last` at all levels: all of their slots were in use,
    /// and were given back.
    #[cfg_attr(
        loom,
        allow(dead_code, reason = "for who gives several SuperSlabs back")
    )]
    pub fn offer_all(&self, first: NodeSuper, last: NodeSuper) {
        for (word, bits) in bits_from(first.index(), last.index()) {
            USED.for_each(|level| self.levels[level].set_bits(word, bits));
        }
    }

    /// Withdraws the hints that SuperSlabs from `first` to `last` are wholly free. The caller holds
    /// slots of each, so none can be.
    #[cfg_attr(loom, allow(dead_code, reason = "for who takes several SuperSlabs"))]
    pub fn withdraw_taken(&self, first: NodeSuper, last: NodeSuper) {
        self.levels[WHOLE].clear_set(first.index(), last.index());
    }

    /// Withdraws the hint after a take failed at `level`, unless the word has such room (again).
    /// Whether it was withdrawn and set again.
    pub fn withdraw(&self, i: NodeSuper, level: usize, word: &SlotWord) -> bool {
        if satisfied(word.get(), level) {
            return false;
        }
        self.levels[level].clear(i.index());
        let again = satisfied(word.get(), level);
        if again {
            self.levels[level].set(i.index());
        }
        again
    }

    /// The first SuperSlab at or after `from` that is offered at `level`.
    pub fn next(&self, level: usize, from: NodeSuper) -> Option<NodeSuper> {
        let found = self.levels[level].next(from.index())?;
        Some(NodeSuper(found as u32))
    }

    /// Whether every level that the word satisfies is offered. No other thread may change the word
    /// meanwhile.
    #[cfg(any(test, loom, debug_assertions))]
    pub fn keeps_promise(&self, i: NodeSuper, word: &SlotWord) -> bool {
        let offered = |level: usize| {
            let Bitmap { words, summary } = self.levels[level];
            let marked = |table: &[AtomicU64], bit: usize| {
                table[bit / 64].load(Ordering::Relaxed) >> (bit % 64) & 1 == 1
            };
            marked(words, i.index()) && marked(summary, i.index() / 64)
        };
        USED.into_iter()
            .all(|level| offered(level) || !satisfied(word.get(), level))
    }
}
