//! The index of extents: where adjacent SuperSlabs are free.
//!
//! A run of more than 2 MiB needs several SuperSlabs that lie side by side. The index knows two
//! kinds of free ones: *whole* ones, which are mapped and of which all slots can be taken, and
//! *holes*, which are not mapped. A bitmap for each kind has a bit a SuperSlab, and 64 of them are
//! searched in a step: the positions at which `n` set bits begin are found by shifts and ands over
//! a word and its neighbour.
//!
//! A heap of which every other SuperSlab is free has many such words and no two adjacent bits, so
//! above these bitmaps lie *hints*: for each of some lengths a bitmap with a bit a word, which says
//! that an extent of at least this length may begin in the word. A search for `n` SuperSlabs reads
//! the hints of the next shorter length, then those of the next longer one, and looks at a bounded
//! number of words. So it costs the same in a heap of any size.
//!
//! In all of these bitmaps a clear bit is a promise and a set bit a hint that may be stale, as in
//! [`super::avail`]: whoever makes a SuperSlab free sets its bit and then the hints of all extents
//! that it has made or joined; whoever takes adjacent ones clears their bits, and whoever takes
//! slots writes nothing here; whoever finds a hint stale clears it, looks once more, and sets it
//! again if there is such an extent by now. Between the write and the look each has a fence: of two
//! threads that free neighbours, one sees both bits, and of one that frees and one that clears a
//! hint, one sees what the other did.
//!
//! Nursed SuperSlabs count as taken here, as threads leave them to nurseries.

use super::avail::Bitmap;
use crate::geometry::NodeSuper;
use crate::sync::{AtomicU64, Ordering, fence};

/// The lengths of extents that have hints. Four a doubling: a search between two of them looks at
/// few extents that are too short.
const LENGTHS: [usize; 19] = [
    2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, LONGEST,
];
/// An extent of so many SuperSlabs reaches into the next word, and no further.
const LONGEST: usize = 64;
/// Bitmaps of hints: for each length, of whole SuperSlabs alone, and of extents with holes.
const HINTS: usize = 2 * LENGTHS.len();
/// Words that a search looks at, besides one for each SuperSlab that it looks for.
pub const STEPS: usize = 64;

/// The SuperSlabs of which an extent may consist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Free {
    /// Whole ones.
    Whole,
    /// Whole ones and holes.
    Mixed,
    /// Whole ones and holes, among them nursed ones. There are no hints for these.
    All,
}

/// The length of a run in SuperSlabs, and where it may begin.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// Adjacent SuperSlabs.
    pub len: usize,
    /// The first one lies at a multiple of so many in memory, a power of two ...
    pub align: usize,
    /// ... where SuperSlab 0 lies so many after such a multiple.
    pub base: usize,
}

impl Want {
    /// The first place at or after `i` where the run may begin.
    pub fn aligned(self, i: usize) -> usize {
        (self.base + i).next_multiple_of(self.align) - self.base
    }

    /// The bits of a word at which it may begin.
    fn mask(self, word: usize) -> u64 {
        if self.align == 1 {
            return !0;
        }
        let first = self.aligned(word * 64) - word * 64;
        (first..64)
            .step_by(self.align)
            .fold(0, |mask, bit| mask | 1 << bit)
    }
}

/// The words that a search looks at.
#[derive(Clone, Copy)]
enum Level {
    /// Those with any free SuperSlab.
    Any,
    /// Those for which there is a hint of this length.
    Hint(usize),
}

/// The index of a node's extents.
#[derive(Debug, Clone, Copy)]
pub struct Extents<'a> {
    /// The bits of wholly free SuperSlabs: the last level of room.
    whole: Bitmap<'a>,
    /// The bits of holes.
    holes: Bitmap<'a>,
    /// The marks of nursed SuperSlabs ...
    nursed: Bitmap<'a>,
    /// ... which mean nothing before this one.
    common: usize,
    /// All hints, bitmap by bitmap.
    hints: &'a [AtomicU64],
}

impl<'a> Extents<'a> {
    /// Words for the hints of so many SuperSlabs.
    pub const fn words(supers: usize) -> usize {
        HINTS * Self::words_of_one(supers.div_ceil(64))
    }

    /// Words of one bitmap, and of its summary, with a bit for each of so many words.
    const fn words_of_one(words: usize) -> usize {
        let own = words.div_ceil(64);
        own + own.div_ceil(64)
    }

    /// The index over these bitmaps, with [`Extents::words`] of zeros. Before the SuperSlab
    /// `common`, marks of nursed ones mean nothing.
    pub fn new(
        (whole, holes): (Bitmap<'a>, Bitmap<'a>),
        (nursed, common): (Bitmap<'a>, usize),
        hints: &'a [AtomicU64],
    ) -> Self {
        Self {
            whole,
            holes,
            nursed,
            common,
            hints,
        }
    }

    fn hints(&self, free: Free, length: usize) -> Bitmap<'a> {
        let nth = length
            + if free == Free::Whole {
                0
            } else {
                LENGTHS.len()
            };
        let all = self.hints.len() / HINTS;
        let own = self.whole.words.len().div_ceil(64);
        let (words, summary) = self.hints[nth * all..][..all].split_at(own);
        Bitmap { words, summary }
    }

    /// The SuperSlabs of a word that may be free.
    fn word(&self, free: Free, at: usize) -> u64 {
        let Some(whole) = self.whole.words.get(at) else {
            return 0;
        };
        #[cfg(all(test, not(loom)))]
        super::looks::count();
        let load = |word: &AtomicU64| word.load(Ordering::Acquire);
        let nursed = load(&self.nursed.words[at]) & !bits_below(self.common, at);
        match free {
            Free::Whole => load(whole) & !nursed,
            Free::Mixed => (load(whole) | load(&self.holes.words[at])) & !nursed,
            Free::All => load(whole) | load(&self.holes.words[at]),
        }
    }

    /// The bits of a word at which so many free SuperSlabs begin, at most [`LONGEST`].
    fn starts(&self, free: Free, at: usize, len: usize) -> u64 {
        let here = self.word(free, at);
        if len == 1 || here == 0 {
            return here;
        }
        let mut set = u128::from(here) | u128::from(self.word(free, at + 1)) << 64;
        let mut have = 1;
        while have < len {
            let step = have.min(len - have);
            set &= set >> step;
            have += step;
        }
        set as u64
    }

    /// The first SuperSlab of the extent in which `i` lies, and its length, as far as the words
    /// beside that of `i`.
    fn around(&self, free: Free, i: usize) -> (usize, usize) {
        let (at, bit) = (i / 64, i % 64);
        let here = self.word(free, at);
        let mut below = (here << (63 - bit)).leading_ones() as usize;
        if below == 0 {
            return (i, 0);
        }
        if below == bit + 1 && at > 0 {
            below += self.word(free, at - 1).leading_ones() as usize;
        }
        let mut above = (here >> bit).trailing_ones() as usize;
        if above == 64 - bit {
            above += self.word(free, at + 1).trailing_ones() as usize;
        }
        (i + 1 - below, below + above - 1)
    }

    /// Notes that a SuperSlab is wholly free, after its bit was set.
    pub fn offer_whole(&self, i: NodeSuper) {
        self.offer_all(i, i);
    }

    /// Notes that the SuperSlabs from `first` to `last`, which have their bits in the same word,
    /// are wholly free, after the bits were set.
    pub fn offer_all(&self, first: NodeSuper, last: NodeSuper) {
        debug_assert!(first.index() / 64 == last.index() / 64);
        fence(Ordering::SeqCst);
        self.hint(Free::Whole, first.index(), last.index());
        // A hole may still have the bit of a whole one, so lengths do not tell whether there is a
        // hole in the extent.
        let at = first.index() / 64;
        let mut beside = self
            .holes
            .words
            .iter()
            .take(at + 2)
            .skip(at.saturating_sub(1));
        if beside.any(|word| word.load(Ordering::Acquire) != 0) {
            self.hint(Free::Mixed, first.index(), last.index());
        }
    }

    /// Offers a SuperSlab that is not mapped.
    pub fn offer_hole(&self, i: NodeSuper) {
        self.holes.set(i.index());
        fence(Ordering::SeqCst);
        self.hint(Free::Mixed, i.index(), i.index());
    }

    /// Sets the hints of all extents in which SuperSlabs from `i` to `last` lie, of one word.
    fn hint(&self, free: Free, i: usize, last: usize) {
        let mut i = i;
        while i <= last {
            let (first, len) = self.around(free, i);
            // What is nursed, or was taken meanwhile, lies between extents.
            if len > 0 {
                self.hint_extent(free, (first, len), (i, last.min(first + len - 1)));
            }
            i = (first + len).max(i + 1);
        }
    }

    /// Sets the hints of the parts of an extent in which SuperSlabs from `i` to `last` lie.
    fn hint_extent(&self, free: Free, (first, len): (usize, usize), (i, last): (usize, usize)) {
        for (nth, &short) in LENGTHS.iter().enumerate() {
            if short > len {
                break;
            }
            let from = first.max((i + 1).saturating_sub(short));
            let to = last.min(first + len - short);
            self.hints(free, nth).set_missing(from / 64, to / 64);
        }
    }

    /// Notes that a SuperSlab is no hole any more. For the thread that has claimed it.
    pub fn take_hole(&self, i: NodeSuper) {
        if self.holes.has(i.index()) {
            self.holes.clear(i.index());
        }
    }

    /// Tells whether a SuperSlab may be a hole.
    pub fn may_be_hole(&self, i: NodeSuper) -> bool {
        self.holes.has(i.index())
    }

    /// The first SuperSlab from `from` on that may be a hole.
    pub fn next_hole(&self, from: NodeSuper) -> Option<NodeSuper> {
        Some(NodeSuper(self.holes.next(from.index())? as u32))
    }

    /// Clears the hint that an extent begins in a word, unless there is one (again).
    fn withdraw(&self, free: Free, nth: usize, at: usize) {
        let hints = self.hints(free, nth);
        hints.clear(at);
        fence(Ordering::SeqCst);
        if self.starts(free, at, LENGTHS[nth]) != 0 {
            hints.set(at);
        }
    }

    /// Calls `take` with SuperSlabs at which what is wanted may begin, until it takes something, or
    /// the search has looked at so many words and asked so many times, besides one for each
    /// SuperSlab that is wanted. So what is free in a heap full of extents that are a little too
    /// short may not be found.
    pub fn find<T>(
        &self,
        (free, steps): (Free, usize),
        want: Want,
        mut take: impl FnMut(NodeSuper) -> Option<T>,
    ) -> Option<T> {
        let mut taken = None;
        let mut take = |i| {
            taken = take(i);
            taken.is_some()
        };
        self.try_find(free, steps, want, &mut take)?;
        taken
    }

    /// The search itself, once for all that `find` takes.
    #[inline(never)]
    fn try_find(
        &self,
        free: Free,
        steps: usize,
        want: Want,
        take: &mut dyn FnMut(NodeSuper) -> bool,
    ) -> Option<()> {
        let shorter = LENGTHS.partition_point(|&len| len <= want.len);
        let level = shorter.checked_sub(1).map_or(Level::Any, Level::Hint);
        let steps = steps + want.len;
        let found = self.search(free, (level, &mut { steps }), want, take);
        if found.is_some() {
            return found;
        }
        // An extent that is longer by the alignment has an aligned place.
        let sure = want.len + want.align - 1;
        let longer = LENGTHS.iter().position(|&len| len >= sure);
        let nth = longer.filter(|&nth| nth >= shorter)?;
        let unaligned = Want {
            len: sure,
            align: 1,
            base: 0,
        };
        let mut take = |i: NodeSuper| take(NodeSuper(want.aligned(i.index()) as u32));
        self.search(
            free,
            (Level::Hint(nth), &mut { steps }),
            unaligned,
            &mut take,
        )
    }

    /// Does what `find` does, and looks at every word.
    pub fn find_any<T>(
        &self,
        free: Free,
        want: Want,
        mut take: impl FnMut(NodeSuper) -> Option<T>,
    ) -> Option<T> {
        let mut steps = usize::MAX;
        let mut taken = None;
        let mut take = |i| {
            taken = take(i);
            taken.is_some()
        };
        self.search(free, (Level::Any, &mut steps), want, &mut take)?;
        taken
    }

    /// Searches the words of a level, in so many steps at most, until `take` has taken something.
    #[inline(never)]
    fn search(
        &self,
        free: Free,
        (level, steps): (Level, &mut usize),
        want: Want,
        take: &mut dyn FnMut(NodeSuper) -> bool,
    ) -> Option<()> {
        let short = want.len.min(LONGEST);
        let mut from = 0;
        loop {
            let at = self.next(free, level, from)?;
            from = at + 1;
            *steps = steps.checked_sub(1)?;
            let all = self.starts(free, at, short);
            if let Level::Hint(nth) = level
                && all == 0
                && self.starts(free, at, LENGTHS[nth]) == 0
            {
                self.withdraw(free, nth, at);
            }
            let mut left = all & want.mask(at);
            while left != 0 {
                let i = at * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                *steps = steps.checked_sub(1)?;
                if !self.reaches(free, (i, want.len), steps)? {
                    // The others begin in the same extent.
                    break;
                }
                if take(NodeSuper(i as u32)) {
                    return Some(());
                }
            }
        }
    }

    /// Tells whether `len` SuperSlabs from `i` on are free; the caller knows that of the first
    /// [`LONGEST`]. `None` after too many steps.
    fn reaches(&self, free: Free, (i, len): (usize, usize), steps: &mut usize) -> Option<bool> {
        if len <= LONGEST {
            return Some(true);
        }
        let end = i + len;
        for at in i / 64 + 1..end.div_ceil(64) {
            *steps = steps.checked_sub(1)?;
            let wanted = bits_below(end, at);
            if self.word(free, at) & wanted != wanted {
                return Some(false);
            }
        }
        Some(true)
    }

    /// The places of the bits and hints of `count` SuperSlabs: addresses and lengths. The hints are
    /// few, so all of them are told.
    #[cfg(not(loom))]
    pub fn rows(&self, first: usize, count: usize) -> [(usize, usize); 3] {
        let row = |words: &[AtomicU64]| (words.as_ptr() as usize, size_of_val(words));
        let (from, to) = (first / 64, (first + count).div_ceil(64));
        let summary = &self.holes.summary[from / 64..][..1];
        [
            row(&self.holes.words[from..to]),
            row(summary),
            row(self.hints),
        ]
    }

    /// Tells whether there is a hint of every extent of the SuperSlabs below `end`, of which `free`
    /// tells which are whole and which are holes. No other thread may be at them meanwhile.
    #[cfg(any(test, loom, debug_assertions))]
    pub fn keeps_promise(&self, end: usize, free: impl Fn(NodeSuper) -> Option<Free>) -> bool {
        let has = |free, nth, at: usize| {
            let Bitmap { words, summary } = self.hints(free, nth);
            let bit = |words: &[AtomicU64], at: usize| {
                words[at / 64].load(Ordering::Relaxed) >> (at % 64) & 1 == 1
            };
            bit(words, at) && bit(summary, at / 64)
        };
        // The length of the extent that ends at `i`, and of what follows its latest hole.
        let (mut len, mut whole) = (0, 0);
        (0..end).all(|i| {
            let kind = free(NodeSuper(i as u32));
            len = kind.map_or(0, |_| len + 1);
            whole = if kind == Some(Free::Whole) {
                whole + 1
            } else {
                0
            };
            LENGTHS.iter().enumerate().all(|(nth, &short)| {
                let at = (i + 1).saturating_sub(short) / 64;
                let of = [Free::Mixed, Free::Whole][usize::from(whole >= short)];
                short > len || has(of, nth, at)
            })
        })
    }

    /// The next word of a level, from `from` on.
    fn next(&self, free: Free, level: Level, from: usize) -> Option<usize> {
        if let Level::Hint(nth) = level {
            return self.hints(free, nth).next(from);
        }
        let whole = self.whole.next(from * 64);
        let hole = match free {
            Free::Whole => None,
            Free::Mixed | Free::All => self.holes.next(from * 64),
        };
        Some([whole, hole].into_iter().flatten().min()? / 64)
    }
}

/// The bits of a word that stand for SuperSlabs below `end`.
fn bits_below(end: usize, word: usize) -> u64 {
    match end.saturating_sub(word * 64) {
        bits @ 0..64 => (1 << bits) - 1,
        _ => !0,
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
