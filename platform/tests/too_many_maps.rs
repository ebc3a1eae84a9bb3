//! At the limit of mappings (vm.max_map_count) the kernel refuses calls, and no addresses are lost.
//! The test is a process of its own, because it uses up the mappings that the whole process may
//! have.
#![allow(unsafe_code, missing_docs)] // The contract's functions are unsafe.

#[path = "../../tests/hugepages/mod.rs"]
mod hugepages;
#[allow(dead_code, reason = "no test uses all of it")]
#[deny(unsafe_code)]
mod maps;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
use std::ptr::{null_mut, with_exposed_provenance_mut};
use theap_platform::{Error, HUGE, Os, PAGE, PageMode};

const OS: Os = Os::LINUX;

/// Pages of which every other one has other rights: they take mappings until the kernel makes no
/// more.
struct Filling {
    start: usize,
    pages: usize,
}

impl Filling {
    const MOST: usize = 1 << 20;

    fn all() -> Self {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the place of the mapping, and the other calls change only its
        // pages.
        unsafe {
            let start = mmap_anonymous(null_mut(), Self::MOST * PAGE, ProtFlags::READ, flags);
            let start = start.unwrap().expose_provenance();
            let other = |page: usize| {
                let at = with_exposed_provenance_mut(start + page * PAGE);
                mprotect(at, PAGE, MprotectFlags::empty()).is_ok()
            };
            let pages = (0..Self::MOST).find(|page| page % 2 == 1 && !other(*page));
            Self {
                start,
                pages: pages.expect("the limit is low enough to be reached"),
            }
        }
    }

    /// Gives this many mappings back to the process.
    fn give_back(&mut self, count: usize) {
        let first = self.pages.saturating_sub(count);
        let at = with_exposed_provenance_mut(self.start + first * PAGE);
        // SAFETY: the pages belong to this mapping.
        unsafe { mprotect(at, (self.pages - first) * PAGE, MprotectFlags::READ) }.unwrap();
        self.pages = first;
    }
}

#[test]
fn at_the_limit_of_mappings_nothing_is_lost() {
    let pool = hugepages::Pool::take().filter(|pool| pool.set(4));
    let addr = OS.reserve(16 * HUGE, HUGE).unwrap();
    let mode = if pool.is_some() {
        PageMode::Hugetlb
    } else {
        PageMode::Thp
    };
    let (from, to) = (addr + 8 * HUGE, addr + 12 * HUGE);
    // SAFETY: each range lies within the reservation, in the state that the call before left.
    unsafe {
        OS.map(from, HUGE, PageMode::Small, None).unwrap();
        OS.map(to, HUGE, PageMode::Small, None).unwrap();
        let text = std::slice::from_raw_parts_mut(with_exposed_provenance_mut::<u8>(from), HUGE);
        text.fill(7);
        let mut filling = Filling::all();
        let (mut refused, mut stayed) = (0, 0);
        // The test goes down from the limit, to calls that need one mapping more, two, three, and
        // so on.
        for _ in 0..12 {
            match OS.map(addr + HUGE, HUGE, mode, None) {
                Ok(()) => OS.unmap(addr + HUGE, HUGE, mode).unwrap_or_else(|error| {
                    // Giving the range back needs mappings too.
                    assert_ne!(error, Error::Lost);
                    filling.give_back(4);
                    OS.unmap(addr + HUGE, HUGE, mode).unwrap();
                }),
                Err(error) => {
                    assert_ne!(error, Error::Lost);
                    refused += 1;
                }
            }
            match OS.move_pages(from, to, HUGE) {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error, Error::Unsupported);
                    with_exposed_provenance_mut::<u8>(to).write_volatile(1);
                    stayed += 1;
                }
            }
            filling.give_back(1);
        }
        filling.give_back(filling.pages);
        assert!(refused > 0 && stayed > 0, "{refused} {stayed}");
        assert!(maps::reserved(addr, 8 * HUGE));
        OS.map(addr + HUGE, HUGE, mode, None).unwrap();
        OS.unmap(addr + HUGE, HUGE, mode).unwrap();
        OS.unreserve(addr, 16 * HUGE);
    }
}
