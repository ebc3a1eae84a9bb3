//! The gate: which front serves which size class, set by the options `front` and `classes` and
//! changed while the program runs, so that two fronts can be compared in one process.
//!
//! Two words of the arena hold the answer; any thread may change them at any time. A heap compares
//! them with its own state on its slow paths and switches its own magazines there. Nothing else is
//! shared, so relaxed accesses do.

use crate::choices::choices;
use crate::classes::CLASS_COUNT;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

choices! {
    /// The front of the heap: the kind of cache of free blocks, one in each thread, that serves
    /// most calls of malloc and free. The spans behind it are the same for both kinds.
    pub enum Front {
        /// Magazines (arrays of block addresses) for the size classes of the option `classes`; the
        /// classic front for the other classes, and for all in a build without magazines.
        Theap = "theap",
        /// The classic front for all classes: a small array of blocks, then a singly linked list
        /// through them.
        Classic = "classic",
    }
}

/// A set of size classes, by their numbers: class 0 has the smallest blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes(u64);

impl Classes {
    /// Number of classes.
    pub const COUNT: usize = CLASS_COUNT;
    /// Every class.
    pub const ALL: Self = Self(u64::MAX >> (u64::BITS as usize - CLASS_COUNT));
    /// No class.
    pub const NONE: Self = Self(0);

    /// The classes whose bits are set; bits from [`Classes::COUNT`] on are ignored.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Bit `c` is set if class `c` is in the set.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Reads `all`, or numbers and ranges such as `0-3,7`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text == b"all" {
            return Some(Self::ALL);
        }
        text.split(|&b| b == b',')
            .try_fold(Self::NONE, |set, part| {
                let mut ends = part.splitn(2, |&b| b == b'-').map(number);
                let first = ends.next()??;
                let last = ends.next().unwrap_or(Some(first))?;
                (first..=last)
                    .try_fold(set.0, |bits, class| {
                        (class < CLASS_COUNT).then(|| bits | 1 << class)
                    })
                    .filter(|_| first <= last)
                    .map(Self)
            })
    }
}

/// Reads a number from 0 to 99 without leading zeros.
fn number(text: &[u8]) -> Option<usize> {
    match text {
        [digit @ b'0'..=b'9'] => Some(usize::from(digit - b'0')),
        [ten @ b'1'..=b'9', one @ b'0'..=b'9'] => {
            Some(usize::from(ten - b'0') * 10 + usize::from(one - b'0'))
        }
        _ => None,
    }
}

/// The words that say which classes magazines serve.
#[derive(Debug)]
pub struct Gate {
    /// The classic front serves all classes.
    classic: AtomicBool,
    /// The classes that magazines serve otherwise.
    classes: AtomicU64,
}

impl Gate {
    /// A gate that says what the options say.
    pub const fn new(front: Front, classes: Classes) -> Self {
        Self {
            classic: AtomicBool::new(matches!(front, Front::Classic)),
            classes: AtomicU64::new(classes.0),
        }
    }

    /// The classes that magazines serve now, a bit each; none while the classic front serves all.
    #[inline]
    #[cfg(any(feature = "magazines", test))]
    pub fn served(&self) -> u64 {
        match self.get() {
            (Front::Classic, _) => 0,
            (Front::Theap, classes) => classes.0,
        }
    }

    /// The front and the classes that are set.
    #[inline]
    pub fn get(&self) -> (Front, Classes) {
        let front = match self.classic.load(Relaxed) {
            true => Front::Classic,
            false => Front::Theap,
        };
        (front, Classes(self.classes.load(Relaxed)))
    }

    /// Sets the front; the set of classes that magazines serve stays.
    pub fn set_front(&self, front: Front) {
        self.classic.store(front == Front::Classic, Relaxed);
    }

    /// Sets the classes that magazines serve; the front stays.
    pub fn set_classes(&self, classes: Classes) {
        self.classes.store(classes.0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_classes() {
        let parse = |text: &str| Classes::parse(text.as_bytes()).map(Classes::bits);
        assert_eq!(parse("all"), Some(u64::MAX));
        assert_eq!(parse("0-63"), parse("all"));
        assert_eq!(parse("0-3,7"), Some(0b1000_1111));
        assert_eq!(parse("7,0-3,2"), Some(0b1000_1111));
        assert_eq!(parse("12"), Some(1 << 12));
        for wrong in [
            "", ",", "1,", "3-1", "64", "0-64", "-1", "1-", "1-2-3", "x", " 1", "01", "100",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn front_and_classes_are_set_apart() {
        let gate = Gate::new(Front::Theap, Classes::ALL);
        assert_eq!(gate.served(), Classes::ALL.bits());
        gate.set_front(Front::Classic);
        assert_eq!(gate.served(), 0);
        gate.set_classes(Classes::from_bits(5));
        assert_eq!(
            (gate.served(), gate.get()),
            (0, (Front::Classic, Classes(5)))
        );
        gate.set_front(Front::Theap);
        assert_eq!((gate.served(), gate.get()), (5, (Front::Theap, Classes(5))));
    }
}
