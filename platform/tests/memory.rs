//! The memory part of the contract on the real kernel, as `/proc/self/smaps` shows it.
#![allow(unsafe_code, missing_docs)] // The contract's functions are unsafe.

#[deny(unsafe_code)]
mod maps;

use std::slice;

use theap_platform::{Error, HUGE, NodeId, Os, PAGE, PageMode};

const OS: Os = Os::LINUX;

/// A reservation of one test, which is given back when the value is dropped. A reserved hugepage on
/// either side keeps the kernel from merging it with the mappings of other tests.
struct Range {
    addr: usize,
    len: usize,
}

impl Range {
    fn new(len: usize) -> Range {
        Range {
            addr: OS.reserve(len + 2 * HUGE, HUGE).unwrap() + HUGE,
            len,
        }
    }

    /// The bytes of a range that is committed or mapped.
    fn bytes(&mut self, from: usize, len: usize) -> &mut [u8] {
        assert!(from + len <= self.len);
        // SAFETY: each test is the single user of its range and keeps no two slices at once.
        unsafe { slice::from_raw_parts_mut((self.addr + from) as *mut u8, len) }
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // SAFETY: the reservation is this value's, whatever is mapped in it.
        unsafe { OS.unreserve(self.addr - HUGE, self.len + 2 * HUGE) };
    }
}

/// The resident memory of all mappings together, in KiB.
fn rss_kib(addr: usize, len: usize) -> usize {
    maps::within(addr, len).iter().map(|m| m.kib("Rss")).sum()
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

#[test]
fn reserve_is_aligned_and_without_access() {
    for shift in 12..=30 {
        let align = 1 << shift;
        let len = 5 * PAGE;
        let addr = OS.reserve(len, align).unwrap();
        assert_eq!(addr % align, 0);
        assert!(maps::reserved(addr, len));
        // SAFETY: the range was reserved above, and nobody uses it.
        unsafe { OS.unreserve(addr, len) };
    }
}

#[test]
fn reserve_trims_what_it_took_for_alignment() {
    let size = || maps::all().iter().map(|m| m.range.len()).sum::<usize>();
    // Other tests run meanwhile, so the figure shows only a leak of the gigabyte's order.
    let before = size();
    let addr = OS.reserve(PAGE, 64 << 30).unwrap();
    assert!(size() < before + (32 << 30));
    // SAFETY: the range was reserved above, and nobody uses it.
    unsafe { OS.unreserve(addr, PAGE) };
}

#[test]
fn reserve_of_the_impossible_fails() {
    assert_eq!(OS.reserve(1 << 50, HUGE), Err(Error::NoMemory));
    assert_eq!(
        OS.reserve(usize::MAX & !(PAGE - 1), HUGE),
        Err(Error::NoMemory)
    );
    let wrong = Err(Error::Other(libc::EINVAL));
    for (len, align) in [
        (0, PAGE),
        (100, PAGE),
        (PAGE, 16),
        (PAGE, 3 * PAGE),
        (PAGE, 0),
    ] {
        assert_eq!(OS.reserve(len, align), wrong, "{len} bytes at {align}");
    }
}

#[test]
fn a_large_reservation_costs_no_memory() {
    let range = Range::new(1 << 40);
    assert_eq!(rss_kib(range.addr, range.len), 0);
}

#[test]
fn committed_memory_is_zero_and_lazy() {
    let mut range = Range::new(4 * HUGE);
    // SAFETY: the range was reserved above.
    unsafe { OS.commit(range.addr + PAGE, 16 * PAGE) }.unwrap();
    assert_eq!(rss_kib(range.addr, range.len), 0);
    assert!(is_zero(range.bytes(PAGE, 16 * PAGE)));
    range.bytes(PAGE, 1)[0] = 7;
    // SAFETY: a range may be committed twice.
    unsafe { OS.commit(range.addr + PAGE, 16 * PAGE) }.unwrap();
    assert_eq!(range.bytes(PAGE, 1)[0], 7);
    assert!(maps::reserved(range.addr, PAGE));
    assert!(maps::reserved(
        range.addr + 17 * PAGE,
        range.len - 17 * PAGE
    ));
}

#[test]
fn small_pages_stay_small() {
    let mut range = Range::new(2 * HUGE);
    // SAFETY: the range was reserved above.
    unsafe { OS.map(range.addr, HUGE, PageMode::Small, None) }.unwrap();
    assert!(is_zero(range.bytes(0, HUGE)));
    range.bytes(0, HUGE).fill(1);
    let mapping = maps::at(range.addr).unwrap();
    assert_eq!(mapping.perms, "rw-p");
    assert_eq!(mapping.kib("Rss"), HUGE >> 10);
    assert_eq!(mapping.kib("AnonHugePages"), 0);
    assert!(mapping.flag("nh"));
    assert!(maps::reserved(range.addr + HUGE, HUGE));
}

#[test]
fn thp_memory_is_huge_at_first_touch() {
    let mut range = Range::new(2 * HUGE);
    // SAFETY: the range was reserved above.
    match unsafe { OS.map(range.addr, HUGE, PageMode::Thp, None) } {
        Err(Error::Unsupported) => return eprintln!("skipped: no THP in this kernel"),
        other => other.unwrap(),
    }
    range.bytes(0, HUGE)[HUGE / 2] = 1;
    let mapping = maps::at(range.addr).unwrap();
    assert!(mapping.flag("hg"));
    let switch = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap();
    if switch.contains("[never]") {
        return eprintln!("skipped: THP is switched off");
    }
    assert_eq!(mapping.kib("AnonHugePages"), HUGE >> 10);
}

#[test]
fn neighbours_become_one_mapping() {
    for mode in [PageMode::Small, PageMode::Thp] {
        let mut range = Range::new(64 * HUGE);
        for i in 0..32 {
            // SAFETY: the range was reserved above.
            unsafe { OS.map(range.addr + i * HUGE, HUGE, mode, None) }.unwrap();
            range.bytes(i * HUGE, 1)[0] = 1;
        }
        assert_eq!(maps::within(range.addr, 32 * HUGE).len(), 1);
        assert!(maps::reserved(range.addr + 32 * HUGE, 32 * HUGE));
    }
}

#[test]
fn populate_provides_all_pages_and_keeps_contents() {
    let mut range = Range::new(HUGE);
    // SAFETY: the range was reserved above.
    unsafe { OS.map(range.addr, HUGE, PageMode::Small, None) }.unwrap();
    range.bytes(PAGE, 1)[0] = 9;
    // SAFETY: the range was mapped above.
    unsafe { OS.populate(range.addr, HUGE) }.unwrap();
    assert_eq!(rss_kib(range.addr, HUGE), HUGE >> 10);
    assert_eq!(range.bytes(PAGE, 1)[0], 9);
    // SAFETY: the range was mapped above.
    unsafe { OS.unmap(range.addr, HUGE, PageMode::Small) }.unwrap();
    // SAFETY: the kernel only tells the state of reserved memory, which nobody accesses.
    assert!(unsafe { OS.populate(range.addr, HUGE) }.is_err());
}

#[test]
fn purged_memory_is_zero_again_and_stays_mapped() {
    for mode in [PageMode::Small, PageMode::Thp] {
        let mut range = Range::new(HUGE);
        // SAFETY: the range was reserved above.
        unsafe { OS.map(range.addr, HUGE, mode, None) }.unwrap();
        range.bytes(0, HUGE).fill(1);
        // SAFETY: the range was mapped above, and nobody has a reference to it.
        unsafe { OS.purge(range.addr, HUGE) }.unwrap();
        assert_eq!(rss_kib(range.addr, HUGE), 0);
        assert!(is_zero(range.bytes(0, HUGE)));
    }
}

#[test]
fn unmapped_memory_is_given_back_and_reserved() {
    let mut range = Range::new(4 * HUGE);
    for mode in [PageMode::Small, PageMode::Thp, PageMode::Small] {
        // SAFETY: the range was reserved above, or again by the last round.
        unsafe { OS.map(range.addr + HUGE, 2 * HUGE, mode, None) }.unwrap();
        assert!(is_zero(range.bytes(HUGE, 2 * HUGE)));
        range.bytes(HUGE, 2 * HUGE).fill(1);
        // SAFETY: the range was mapped above, and nobody has a reference to it.
        unsafe { OS.unmap(range.addr + HUGE, 2 * HUGE, mode) }.unwrap();
        assert_eq!(rss_kib(range.addr, range.len), 0);
        assert!(maps::reserved(range.addr, range.len));
    }
}

#[test]
fn moved_pages_take_their_contents_and_leave_zero() {
    for mode in [PageMode::Small, PageMode::Thp] {
        let mut range = Range::new(8 * HUGE);
        // SAFETY: the range was reserved above.
        unsafe { OS.map(range.addr, 8 * HUGE, mode, None) }.unwrap();
        let (from, to, len) = (HUGE, 5 * HUGE, 2 * HUGE);
        range.bytes(0, 8 * HUGE).fill(3);
        range.bytes(from, len).fill(1);
        // SAFETY: both ranges are mapped, apart, and unused.
        unsafe { OS.move_pages(range.addr + from, range.addr + to, len) }.unwrap();
        assert!(range.bytes(to, len).iter().all(|&byte| byte == 1));
        assert!(is_zero(range.bytes(from, len)));
        assert!(range.bytes(0, HUGE).iter().all(|&byte| byte == 3));
        assert!(range.bytes(3 * HUGE, HUGE).iter().all(|&byte| byte == 3));
        range.bytes(from, len).fill(2);
        assert!(range.bytes(to, len).iter().all(|&byte| byte == 1));
    }
}

#[test]
fn a_failed_move_leaves_no_hole() {
    let range = Range::new(2 * HUGE);
    // SAFETY: the range was reserved above.
    unsafe { OS.map(range.addr, HUGE, PageMode::Small, None) }.unwrap();
    // SAFETY: nothing is mapped at the source, so the kernel refuses, perhaps after it has cleared
    // the target.
    let error = unsafe { OS.move_pages(PAGE, range.addr, HUGE) }.unwrap_err();
    let parts = maps::within(range.addr, HUGE);
    assert_eq!(
        parts.iter().map(|m| m.range.len().min(HUGE)).sum::<usize>(),
        HUGE,
        "{error:?}"
    );
}

#[test]
fn bound_memory_lies_on_its_node() {
    let mut range = Range::new(2 * HUGE);
    let node = OS.topology().kernel_node(0);
    // SAFETY: the range was reserved above.
    match unsafe { OS.map(range.addr, 2 * HUGE, PageMode::Small, Some(node)) } {
        Err(Error::Other(errno)) => {
            assert!(maps::reserved(range.addr, 2 * HUGE));
            return eprintln!("skipped: binding is refused here (errno {errno})");
        }
        other => other.unwrap(),
    }
    range.bytes(0, 1)[0] = 1;
    assert_eq!(OS.node_of(range.addr), Ok(node));
}

#[test]
fn a_refused_binding_leaves_the_range_reserved() {
    let range = Range::new(HUGE);
    for mode in [PageMode::Small, PageMode::Thp] {
        // SAFETY: the range was reserved above. No machine has a node of this number.
        let mapped = unsafe { OS.map(range.addr, HUGE, mode, Some(NodeId(255))) };
        assert!(matches!(mapped, Err(Error::Other(_))), "{mapped:?}");
        assert!(maps::reserved(range.addr, HUGE));
    }
    // SAFETY: the range is still reserved.
    unsafe { OS.map(range.addr, HUGE, PageMode::Small, None) }.unwrap();
}

#[test]
fn the_node_of_nothing_is_an_error() {
    assert!(OS.node_of(PAGE).is_err());
}
