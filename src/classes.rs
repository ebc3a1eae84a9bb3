//! Size classes: the table that `build.rs` generates, and the index of a block within its span.

use crate::geometry::{ClassId, SLOT, SLOTS};

/// The constants of one size class.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    /// Bytes of a block.
    pub size: u32,
    /// Blocks of a span.
    pub blocks: u16,
    /// 64 KiB slots of a span.
    pub slots: u8,
    /// Least capacity of the class's magazine, in blocks.
    pub least: u8,
    /// Greatest capacity of the class's magazine before learning, in blocks.
    pub magazine: u16,
    /// `ceil(2^RECIPROCAL_SHIFT / size)`: turns the division by `size` into a multiplication.
    pub reciprocal: u64,
}

include!(concat!(env!("OUT_DIR"), "/classes.rs"));

const _: () = assert!(
    CLASS_COUNT == theap_arch::CLASSES && TABLE_SLOT == SLOT && TABLE_SLOTS == SLOTS,
    "build.rs, the geometry and the machine layer agree"
);

/// The number of classes whose blocks are spans: the largest ones.
#[cfg(all(feature = "magazines", feature = "drain"))]
pub const WHOLE_CLASSES: usize = {
    let mut count = 0;
    while CLASSES[CLASS_COUNT - 1 - count].is_whole() {
        count += 1;
    }
    count
};

/// The number of a class among those whose blocks are spans; `None` for another.
#[cfg(all(feature = "magazines", feature = "drain"))]
#[inline]
pub fn whole_class(class: ClassId) -> Option<usize> {
    class.index().checked_sub(CLASS_COUNT - WHOLE_CLASSES)
}

impl Class {
    /// Answers true if a span is one block.
    #[inline]
    pub const fn is_whole(&self) -> bool {
        self.blocks == 1
    }

    /// Bytes of a span, the unused rest at its end included.
    #[inline]
    pub fn span_bytes(&self) -> usize {
        self.slots as usize * SLOT
    }

    /// `offset / size`, for an offset below 2 MiB.
    #[inline]
    pub fn quotient(&self, offset: usize) -> usize {
        ((offset as u64).wrapping_mul(self.reciprocal) >> RECIPROCAL_SHIFT) as usize
    }

    /// The index of the block that starts at `offset` bytes from the span's first byte, or `None`
    /// if no block starts there. `offset` is below 2 MiB.
    #[inline]
    pub fn index_of(&self, offset: usize) -> Option<usize> {
        let index = self.quotient(offset);
        (index * self.size as usize == offset && index < self.blocks as usize).then_some(index)
    }
}

/// The smallest class whose blocks hold `size` bytes at a multiple of `align`, or `None` if only a
/// run does. Blocks of a class whose size is a multiple of `align` are aligned to it, since spans
/// start at 64 KiB boundaries.
#[inline]
pub fn class_for(size: usize, align: usize) -> Option<ClassId> {
    if size > theap_arch::CLASSED_MAX || align > SLOT {
        return None;
    }
    if align <= 16 {
        // Every class's size is a multiple of 16.
        return Some(ClassId::new(theap_arch::class_of(size)));
    }
    let first = theap_arch::class_of(size.max(align));
    let fits = |class: &usize| (CLASSES[*class].size as usize).is_multiple_of(align);
    (first..CLASS_COUNT).find(fits).map(ClassId::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_and_arithmetic_agree() {
        assert_eq!(CLASS_COUNT, theap_arch::CLASSES);
        let mut class = 0;
        for size in 0..=theap_arch::CLASSED_MAX {
            if size > CLASSES[class].size as usize {
                class += 1;
            }
            assert_eq!(theap_arch::class_of(size), class, "size {size}");
        }
    }

    #[test]
    fn index_of_accepts_block_starts_only() {
        for class in &CLASSES {
            let size = class.size as usize;
            for index in 0..class.blocks as usize {
                assert_eq!(class.index_of(index * size), Some(index));
                assert_eq!(class.index_of(index * size + 1), None);
                assert_eq!(class.index_of(index * size + size - 1), None);
            }
            assert_eq!(class.index_of(class.blocks as usize * size), None);
        }
    }

    #[test]
    fn class_for_keeps_alignment() {
        for shift in 0..=16 {
            let align = 1usize << shift;
            for size in [
                1,
                15,
                17,
                100,
                129,
                1000,
                5000,
                70_000,
                200_000,
                300_000,
                2 << 20,
            ] {
                let class = class_for(size, align).expect("fits a class");
                let class = CLASSES[class.index()];
                assert!(class.size as usize >= size && (class.size as usize).is_multiple_of(align));
            }
        }
        assert_eq!(class_for((2 << 20) + 1, 1), None);
        assert_eq!(class_for(1, 131_072), None);
    }
}
