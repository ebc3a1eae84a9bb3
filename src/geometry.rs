//! The geometry of the heap: the units that memory is counted in, a type for each number that could
//! be taken for another one, and the conversions between them, which stand here alone.
//!
//! ```text
//! unit        bytes   numbered by
//! SuperSlab   2 MiB   `SuperId` in the address range, `NodeSuper` in the part of a NUMA node
//! slot        64 KiB  `SlotId` in the address range; 0 to 31 within its SuperSlab
//! span        1 to 32 slots with blocks of one class: `SpanId`, the number of the first slot
//! ```
//!
//! A NUMA node is a [`NodeIndex`] here, its index in the topology; the kernel's number of it is the
//! platform's `NodeId`. The byte that a slot has in the table of class bytes is a [`Kind`].

use theap_arch::CLASSES as CLASS_COUNT;

/// Slots of a SuperSlab.
pub const SLOTS: usize = 32;
/// Bytes of a slot.
pub const SLOT: usize = 64 << 10;
/// Bytes of a SuperSlab.
pub const SUPER: usize = SLOT * SLOTS;

/// A slot, by its number in the address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// A SuperSlab, by its number in the address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SuperId(pub u32);

/// A SuperSlab, by its number in the part of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeSuper(pub u32);

/// A span, by the number of its first slot in the address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub u32);

/// A NUMA node, by its index in the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIndex(pub u8);

/// A size class, by its index in the table of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassId(u8);

impl SlotId {
    /// The number as an index of a table.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The SuperSlab that the slot lies in, and its number there.
    #[inline]
    pub const fn split(self) -> (SuperId, usize) {
        (SuperId(self.0 / SLOTS as u32), self.index() % SLOTS)
    }

    /// The slot so many slots further on.
    #[inline]
    pub const fn add(self, slots: usize) -> Self {
        Self(self.0 + slots as u32)
    }

    /// The slot so many slots before.
    #[inline]
    pub const fn back(self, slots: usize) -> Self {
        Self(self.0 - slots as u32)
    }

    /// The span that begins here.
    #[inline]
    pub const fn span(self) -> SpanId {
        SpanId(self.0)
    }
}

impl SuperId {
    /// The number as an index of a table.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// A slot of the SuperSlab, by its number in it.
    #[inline]
    pub const fn slot(self, at: usize) -> SlotId {
        SlotId(self.0 * SLOTS as u32 + at as u32)
    }

    /// The SuperSlab so many SuperSlabs further on.
    #[inline]
    pub const fn add(self, supers: usize) -> Self {
        Self(self.0 + supers as u32)
    }

    /// The number in the part of a node that begins with SuperSlab `first`.
    #[inline]
    pub const fn within(self, first: SuperId) -> NodeSuper {
        NodeSuper(self.0 - first.0)
    }
}

impl NodeSuper {
    /// The number as an index of a table of the node.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The number in the range, of a node whose part begins with SuperSlab `first`.
    #[inline]
    pub const fn from(self, first: SuperId) -> SuperId {
        SuperId(self.0 + first.0)
    }

    /// The SuperSlab so many SuperSlabs further on.
    #[inline]
    pub const fn add(self, supers: usize) -> Self {
        Self(self.0 + supers as u32)
    }

    /// The SuperSlab so many SuperSlabs before.
    #[inline]
    pub const fn back(self, supers: usize) -> Self {
        Self(self.0 - supers as u32)
    }
}

impl SpanId {
    /// The first slot.
    #[inline]
    pub const fn slot(self) -> SlotId {
        SlotId(self.0)
    }

    /// The SuperSlab, and the number of the first slot in it.
    #[inline]
    pub const fn split(self) -> (SuperId, usize) {
        self.slot().split()
    }
}

impl NodeIndex {
    /// The index as such.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl ClassId {
    /// The smallest class.
    pub const FIRST: Self = Self(0);

    /// The class with this index, which is below `CLASS_COUNT`.
    #[inline]
    pub const fn new(index: usize) -> Self {
        debug_assert!(index < CLASS_COUNT);
        Self(index as u8)
    }

    /// Every class, smallest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..CLASS_COUNT).map(Self::new)
    }

    /// The index as such.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The class's bit in a set of classes.
    #[inline]
    pub const fn bit(self) -> u64 {
        1 << self.0
    }

    /// The classes of a set, smallest first.
    pub fn of(mut set: u64) -> impl Iterator<Item = Self> {
        core::iter::from_fn(move || {
            let class = (set != 0).then(|| Self::new(set.trailing_zeros() as usize))?;
            set &= set - 1;
            Some(class)
        })
    }
}

/// The use of a slot, as its class byte says. The byte is at once the place of the magazine that
/// takes the slot's blocks, in words from the first magazine: a processor multiplies by a word's
/// size as it adds, but not by a magazine's. The magazines of [`Kind::Free`], [`Kind::Large`] and
/// [`Kind::Huge`] hold nothing and take nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The slot is not in use.
    Free,
    /// The slot belongs to a span with blocks of this class.
    Class(ClassId),
    /// The slot belongs to a run that lies in one SuperSlab.
    Large,
    /// The slot belongs to a run of more slots than a SuperSlab has, or aligned to more than one
    /// slot's place in it.
    Huge,
}

impl Kind {
    /// Number of kinds, and of magazines.
    pub const COUNT: usize = CLASS_COUNT + 3;

    /// Words of a magazine.
    const WORDS: u8 = 2;
    const LARGE: u8 = CLASS_COUNT as u8 + 1;

    /// The byte. Zero, the state of untouched metadata, is [`Kind::Free`].
    #[inline]
    pub const fn byte(self) -> u8 {
        self.magazine() as u8 * Self::WORDS
    }

    /// The kind that a byte of the table stands for; a byte that nobody writes counts as
    /// [`Kind::Huge`].
    #[inline]
    pub const fn of(byte: u8) -> Self {
        match byte / Self::WORDS {
            0 => Kind::Free,
            class if class < Self::LARGE => Kind::Class(ClassId(class - 1)),
            Self::LARGE => Kind::Large,
            _ => Kind::Huge,
        }
    }

    /// The index of the magazine.
    #[inline]
    pub const fn magazine(self) -> usize {
        let number = match self {
            Kind::Free => 0,
            Kind::Class(ClassId(class)) => class + 1,
            Kind::Large => Self::LARGE,
            Kind::Huge => Self::LARGE + 1,
        };
        number as usize
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_kinds_agree() {
        for number in 0..Kind::COUNT {
            let kind = Kind::of(2 * number as u8);
            assert_eq!((kind.byte(), kind.magazine()), (2 * number as u8, number));
        }
        assert_eq!(Kind::of(0), Kind::Free);
        assert_eq!(Kind::of(2), Kind::Class(ClassId::FIRST));
        assert_eq!(Kind::of(u8::MAX), Kind::Huge);
        assert_eq!(ClassId::all().len(), CLASS_COUNT);
    }

    #[test]
    fn numbers_are_converted_and_back() {
        let first = SuperId(7);
        for number in [0, 1, 31, 32, 1000] {
            let (super_id, at) = SlotId(number).split();
            assert_eq!(super_id.slot(at), SlotId(number));
            assert_eq!(SlotId(number).span().slot(), SlotId(number));
            let inside = NodeSuper(number);
            assert_eq!(inside.from(first).within(first), inside);
        }
        assert_eq!(SuperId(2).slot(3), SlotId(67));
        assert_eq!(SlotId(67).add(5).back(5), SlotId(67));
    }
}
