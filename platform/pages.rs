//! The sizes of pages, and the page modes with their names.

/// The base page in bytes.
pub const PAGE: usize = 4096;
/// A hugepage, and the unit and alignment of [`Os::map`](crate::Os::map), in bytes.
pub const HUGE: usize = 2 << 20;
/// The large hugepage, in bytes.
pub const HUGE_1G: usize = 1 << 30;

/// The pages that memory is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageMode {
    /// 4 KiB pages, also where the system would turn them huge by itself.
    Small = 1,
    /// Transparent hugepages: 2 MiB where the kernel finds one at first touch, else 4 KiB.
    Thp = 2,
    /// 2 MiB pages of the system's hugetlb pool, populated.
    Hugetlb = 3,
    /// 1 GiB pages of their hugetlb pool, populated.
    Hugetlb1g = 4,
}

impl PageMode {
    /// One more than the highest number of a mode.
    pub const COUNT: usize = 5;

    /// Every mode, in the order of their numbers.
    pub const ALL: [PageMode; 4] = [
        PageMode::Small,
        PageMode::Thp,
        PageMode::Hugetlb,
        PageMode::Hugetlb1g,
    ];

    /// The mode's name, as the option `pages` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            PageMode::Small => "small",
            PageMode::Thp => "thp",
            PageMode::Hugetlb => "hugetlb",
            PageMode::Hugetlb1g => "hugetlb-1g",
        }
    }

    /// The mode with this number; `None` for a number that no mode has.
    pub const fn from_number(number: u8) -> Option<PageMode> {
        match number {
            1 => Some(PageMode::Small),
            2 => Some(PageMode::Thp),
            3 => Some(PageMode::Hugetlb),
            4 => Some(PageMode::Hugetlb1g),
            _ => None,
        }
    }

    /// The mode with this name; `None` for a name that no mode has.
    pub fn from_name(name: &[u8]) -> Option<PageMode> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.name().as_bytes() == name)
    }

    /// Bytes of the largest page that the mode tries for.
    pub const fn page(self) -> usize {
        match self {
            PageMode::Small => PAGE,
            PageMode::Thp | PageMode::Hugetlb => HUGE,
            PageMode::Hugetlb1g => HUGE_1G,
        }
    }

    /// Whether the pages come from a hugetlb pool.
    pub const fn is_hugetlb(self) -> bool {
        matches!(self, PageMode::Hugetlb | PageMode::Hugetlb1g)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back_to_their_mode() {
        for mode in PageMode::ALL {
            assert_eq!(PageMode::from_number(mode as u8), Some(mode));
            assert_eq!(PageMode::from_name(mode.name().as_bytes()), Some(mode));
            assert!((mode as usize) < PageMode::COUNT);
        }
        assert_eq!(PageMode::from_number(0), None);
        assert_eq!(PageMode::from_number(PageMode::COUNT as u8), None);
        assert_eq!(PageMode::from_name(b"hugetlb_1g"), None);
    }
}
