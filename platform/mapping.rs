//! A mapping as the kernel describes it.

/// A mapping of a process, as the kernel tells of it. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// The first address.
    pub start: usize,
    /// The address behind the last one.
    pub end: usize,
    /// Resident bytes, without those on hugetlb pages (`Rss`).
    pub rss: u64,
    /// Bytes of these on transparent hugepages (`AnonHugePages`, `ShmemPmdMapped`).
    pub thp: u64,
    /// Bytes on hugetlb pages (`Private_Hugetlb`, `Shared_Hugetlb`).
    pub hugetlb: u64,
    /// Bytes that were swapped out (`Swap`).
    pub swapped: u64,
}
