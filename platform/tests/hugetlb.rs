//! Hugetlb memory on the real kernel. The whole machine has one pool, so everything is in one test,
//! which sets the size of the pool if it may, and restores it.
#![allow(unsafe_code, missing_docs)] // The contract's functions are unsafe.

#[deny(unsafe_code)]
mod maps;

use std::fs::{self, File};

use theap_platform::{Error, HUGE, Os, PageMode};

const OS: Os = Os::LINUX;
const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// The size of the pool is this test's for as long as this value lives.
struct Pool {
    before: String,
    /// Keeps other processes that run this test out.
    _lock: File,
}

impl Pool {
    /// Takes the pool; `None` if the test may not change it.
    fn take() -> Option<Pool> {
        let lock = File::create(std::env::temp_dir().join("theap-hugetlb.lock")).ok()?;
        lock.lock().ok()?;
        let pool = Pool {
            before: fs::read_to_string(POOL).ok()?,
            _lock: lock,
        };
        fs::write(POOL, &pool.before).ok().map(|()| pool)
    }

    /// Sets the size of the pool, and answers whether the kernel found that many pages.
    fn set(&self, pages: usize) -> bool {
        fs::write(POOL, pages.to_string()).unwrap();
        fs::read_to_string(POOL).unwrap().trim() == pages.to_string()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = fs::write(POOL, &self.before);
    }
}

fn free_pages() -> usize {
    let info = fs::read_to_string("/proc/meminfo").unwrap();
    let line = info
        .lines()
        .find(|line| line.starts_with("HugePages_Free"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Asks for `pages` hugepages at `addr`.
///
/// # Safety
/// The range is reserved.
unsafe fn map(addr: usize, pages: usize) -> Result<(), Error> {
    let bind = Some(OS.topology().kernel_node(0));
    // SAFETY: the range is reserved, as the caller promises in `# Safety`, and aligned as `hugetlb`
    // reserved it.
    unsafe { OS.map(addr, pages * HUGE, PageMode::Hugetlb, bind) }
}

#[test]
fn hugetlb() {
    let Some(pool) = Pool::take() else {
        return eprintln!("skipped: {POOL} cannot be changed here");
    };
    let addr = OS.reserve(16 * HUGE, HUGE).unwrap();

    assert!(pool.set(0));
    // SAFETY: the range was reserved above.
    assert_eq!(unsafe { map(addr, 1) }, Err(Error::NoHugepages));
    assert!(maps::reserved(addr, 16 * HUGE));

    if !pool.set(8) {
        return eprintln!("skipped: the kernel finds no hugepages");
    }
    // SAFETY: the range is reserved: it was so at first, and each round leaves it so.
    unsafe {
        mapped_memory_is_huge_and_zero(addr);
        a_pool_too_small_takes_nothing(addr);
        a_pool_used_up_by_earlier_maps_is_refused(addr);
        pages_of_a_mapping_come_one_by_one(addr);
    }
    // SAFETY: the reservation is this test's.
    unsafe { OS.unreserve(addr, 16 * HUGE) };
}

/// # Safety
/// The 16 hugepages at `addr` are reserved, and only this test uses them.
unsafe fn mapped_memory_is_huge_and_zero(addr: usize) {
    for round in 1..=3 {
        // SAFETY: the range is reserved (`# Safety`).
        unsafe { map(addr + HUGE, 4) }.unwrap();
        assert_eq!(free_pages(), 4, "populated");
        let mapping = maps::at(addr + HUGE).unwrap();
        assert_eq!(mapping.range, addr + HUGE..addr + 5 * HUGE);
        assert!(mapping.flag("ht"));
        assert_eq!(mapping.kib("Private_Hugetlb"), (4 * HUGE) >> 10);
        assert!(maps::reserved(addr, HUGE) && maps::reserved(addr + 5 * HUGE, 11 * HUGE));
        // SAFETY: the range was mapped above, and nobody else uses it.
        let bytes = unsafe { std::slice::from_raw_parts_mut((addr + HUGE) as *mut u8, 4 * HUGE) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        bytes.fill(round);
        assert_eq!(OS.node_of(addr + HUGE), Ok(OS.topology().kernel_node(0)));
        // SAFETY: the range was mapped above, and `bytes` is not used again.
        unsafe { OS.unmap(addr + HUGE, 4 * HUGE, PageMode::Hugetlb) }.unwrap();
        assert_eq!(free_pages(), 8, "given back");
        assert!(maps::reserved(addr, 16 * HUGE));
    }
}

/// # Safety
/// The 16 hugepages at `addr` are reserved, and only this test uses them.
unsafe fn a_pool_too_small_takes_nothing(addr: usize) {
    // SAFETY: the range is reserved (`# Safety`).
    assert_eq!(unsafe { map(addr, 9) }, Err(Error::NoHugepages));
    assert_eq!(free_pages(), 8);
    assert!(maps::reserved(addr, 16 * HUGE));
}

/// # Safety
/// The 16 hugepages at `addr` are reserved, and only this test uses them.
unsafe fn a_pool_used_up_by_earlier_maps_is_refused(addr: usize) {
    // SAFETY: the ranges are reserved (`# Safety`), and nobody uses the memory that is mapped
    // there.
    unsafe {
        map(addr, 6).unwrap();
        assert_eq!(map(addr + 6 * HUGE, 3), Err(Error::NoHugepages));
        map(addr + 6 * HUGE, 2).unwrap();
        OS.unmap(addr, 6 * HUGE, PageMode::Hugetlb).unwrap();
        OS.unmap(addr + 6 * HUGE, 2 * HUGE, PageMode::Hugetlb)
            .unwrap();
    }
    assert_eq!(free_pages(), 8);
    assert!(maps::reserved(addr, 16 * HUGE));
}

/// # Safety
/// The 16 hugepages at `addr` are reserved, and only this test uses them.
unsafe fn pages_of_a_mapping_come_one_by_one(addr: usize) {
    let (mode, lens) = (PageMode::Hugetlb, (4 * HUGE, HUGE));
    // SAFETY: the range is reserved (`# Safety`); only pages that were populated are touched, and
    // nobody uses the memory when it is unmapped.
    unsafe {
        OS.map_ahead(addr, lens, mode, None).unwrap();
        assert_eq!((free_pages(), OS.hugetlb_free(mode)), (7, 4), "promised");
        assert_eq!(map(addr + 4 * HUGE, 5), Err(Error::NoHugepages));
        for page in 1..3 {
            OS.fill(addr + page * HUGE, mode).unwrap();
            assert_eq!(free_pages(), 7 - page);
            assert_eq!(*((addr + page * HUGE) as *const u64), 0);
        }
        // The last page has no contents yet.
        OS.unmap(addr + 3 * HUGE, HUGE, mode).unwrap();
        assert_eq!(OS.hugetlb_free(mode), 5, "the promise is gone");
        OS.unmap(addr, 3 * HUGE, mode).unwrap();
    }
    assert_eq!((free_pages(), OS.hugetlb_free(PageMode::Hugetlb)), (8, 8));
    assert!(maps::reserved(addr, 16 * HUGE));
}
