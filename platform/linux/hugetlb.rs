//! The kernel's pools of hugetlb pages.

use super::{cgroup, file, numa};
use crate::node_set::{NodeSet, node_file};
use crate::{HUGE, PageMode};

/// See [`crate::Os::hugetlb_free`].
pub fn free(mode: PageMode) -> usize {
    let (free, reserved): (&[u8], &[u8]) = match mode {
        PageMode::Small | PageMode::Thp => return 0,
        PageMode::Hugetlb => (
            b"/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
            b"/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages",
        ),
        PageMode::Hugetlb1g => (
            b"/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages",
            b"/sys/kernel/mm/hugepages/hugepages-1048576kB/resv_hugepages",
        ),
    };
    let number =
        |path| file::field(file::read(path, &mut [0; 64]).unwrap_or_default(), b"").unwrap_or(0);
    let free = number(free).saturating_sub(number(reserved));
    if mode != PageMode::Hugetlb || free == 0 {
        return free;
    }
    let group = cgroup::hugetlb_left() / HUGE as u64;
    free.min(group.try_into().unwrap_or(usize::MAX))
        .min(free_on(&numa::allowed()))
}

/// The number of free hugetlb pages of 2 MiB of these nodes; no limit where the kernel does not
/// say.
fn free_on(nodes: &NodeSet) -> usize {
    if *nodes == NodeSet::ALL {
        return usize::MAX;
    }
    let free = |node| {
        let path = node_file(node, "/hugepages/hugepages-2048kB/free_hugepages");
        file::field(file::read(path.as_bytes(), &mut [0; 32])?, b"")
    };
    let told = nodes.iter().filter_map(free);
    told.reduce(|sum, free| sum + free).unwrap_or(usize::MAX)
}
