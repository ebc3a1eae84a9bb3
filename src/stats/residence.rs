//! The memory that the kernel has for a heap: what of it is resident, and on which pages. The
//! figures are the kernel's own, from `/proc/PID/smaps`, and not what was asked of it.

use super::board::{Board, Extent};
use theap_platform::Mapping;

/// The table of the figures, with their meanings.
macro_rules! resident_figures {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The memory that the kernel has for a heap. Sizes are in bytes.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Resident { $($(#[doc = $doc])+ pub $name: u64,)+ }

        const RESIDENT_FIGURES: usize = [$(stringify!($name)),+].len();

        impl Resident {
            /// The sizes, with their names and meanings.
            pub(super) fn figures(&self) -> [(&'static str, &'static str, u64); RESIDENT_FIGURES] {
                [$((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name),)+]
            }

            /// The sizes, with their names.
            pub fn sizes(&self) -> [(&'static str, u64); RESIDENT_FIGURES] {
                [$((stringify!($name), self.$name),)+]
            }
        }
    };
}

resident_figures! {
    /// Bytes of the heap that are in RAM: blocks, free memory and metadata, on all pages.
    resident,
    /// Bytes of these that are metadata.
    resident_metadata,
    /// Bytes of these on transparent hugepages.
    resident_thp,
    /// Bytes of these on hugetlb pages.
    resident_hugetlb,
    /// Bytes of the heap that were swapped out.
    swapped,
}

impl Resident {
    /// Adds what a mapping has for a heap at these addresses; `outside` are the bytes of runs
    /// outside of the range that lie in the mapping. Where the kernel has put memory of the heap
    /// and of others together to one mapping, the heap gets its share by length.
    pub(crate) fn add(&mut self, extent: &Extent, mapping: &Mapping, outside: usize) {
        let overlap = |from: usize, to: usize| {
            mapping.end.min(to).saturating_sub(mapping.start.max(from)) as u64
        };
        let metadata = overlap(extent.metadata, extent.blocks);
        let blocks = overlap(extent.blocks, extent.blocks.saturating_add(extent.len));
        let ours = metadata
            .saturating_add(blocks)
            .saturating_add(outside as u64);
        let all = (mapping.end.saturating_sub(mapping.start) as u64).max(1);
        let share = |bytes: u64, of: u64| {
            (u128::from(bytes) * u128::from(of.min(all)) / u128::from(all)) as u64
        };
        let total = mapping.rss.saturating_add(mapping.hugetlb);
        for (sum, bytes, of) in [
            (&mut self.resident, total, ours),
            (&mut self.resident_metadata, total, metadata),
            (&mut self.resident_thp, mapping.thp, ours),
            (&mut self.resident_hugetlb, mapping.hugetlb, ours),
            (&mut self.swapped, mapping.swapped, ours),
        ] {
            *sum = sum.saturating_add(share(bytes, of));
        }
    }
}

impl Board<'_> {
    /// The memory that the kernel has for the heap of the board, if these are the mappings of its
    /// process. The mappings of runs outside of the range are not known to a reader of the board,
    /// and do not count.
    pub fn resident(&self, mappings: impl IntoIterator<Item = Mapping>) -> Resident {
        let (extent, mut resident) = (self.extent(), Resident::default());
        for mapping in mappings {
            resident.add(&extent, &mapping, 0);
        }
        resident
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const EXTENT: Extent = Extent {
        metadata: 0x1000,
        blocks: 0x3000,
        len: 0x4000,
    };

    fn added(start: usize, end: usize, outside: usize) -> Resident {
        let mapping = Mapping {
            start,
            end,
            rss: 0x800,
            thp: 0x400,
            hugetlb: 0x800,
            swapped: 0x40,
        };
        let mut resident = Resident::default();
        resident.add(&EXTENT, &mapping, outside);
        resident
    }

    #[test]
    fn mappings_of_others_do_not_count() {
        assert_eq!(added(0, 0x1000, 0), Resident::default());
        assert_eq!(added(0x7000, 0x8000, 0), Resident::default());
    }

    #[test]
    fn a_mapping_is_divided_by_length() {
        let whole = added(0x4000, 0x5000, 0);
        assert_eq!((whole.resident, whole.resident_metadata), (0x1000, 0));
        assert_eq!((whole.resident_thp, whole.resident_hugetlb), (0x400, 0x800));
        let metadata = added(0x1000, 0x3000, 0);
        assert_eq!(
            (metadata.resident, metadata.resident_metadata),
            (0x1000, 0x1000)
        );
        let both = added(0x2000, 0x4000, 0);
        assert_eq!((both.resident, both.resident_metadata), (0x1000, 0x800));
        let shared = added(0x6000, 0x8000, 0);
        assert_eq!((shared.resident, shared.swapped), (0x800, 0x20));
        let outside = added(0x10000, 0x14000, 0x1000);
        assert_eq!(outside.resident, 0x400);
    }

    #[test]
    fn nothing_overflows() {
        let wild = Mapping {
            start: 0,
            end: usize::MAX,
            rss: u64::MAX,
            thp: u64::MAX,
            hugetlb: u64::MAX,
            swapped: u64::MAX,
        };
        let extent = Extent {
            metadata: usize::MAX,
            blocks: 1,
            len: usize::MAX,
        };
        let mut resident = Resident::default();
        resident.add(&extent, &wild, usize::MAX);
        assert_eq!(resident.resident, u64::MAX);
    }
}
