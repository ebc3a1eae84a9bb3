//! The cost of the heap: memory that stays after everything was freed and purged, and page faults
//! of a first touch. Each in a process of its own that uses theap for nothing else, in every page
//! mode that the machine serves.
#![allow(unsafe_code)] // Calls the allocator directly, and getrusage.

mod child;
mod hugepages;

use std::fs;
use std::mem::MaybeUninit;
use std::ptr;
use theap::raw;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The sizes of a mixture, in turn: tiny, mid, large and huge.
const SIZES: [usize; 12] = [
    16,
    100,
    48,
    1000,
    24 * KIB,
    300,
    5000,
    200 * KIB,
    64,
    700 * KIB,
    2000,
    3 * MIB,
];

/// Allocates mixed blocks of `bytes` in all, 64 KiB of each of the smaller sizes in turn, and
/// touches all their pages.
fn fill(bytes: usize, blocks: &mut Vec<*mut u8>) {
    let mut left = bytes;
    for size in SIZES.into_iter().cycle() {
        for _ in 0..(64 * KIB / size).max(1) {
            if left < size {
                return;
            }
            left -= size;
            let block = raw::alloc(size);
            assert!(!block.is_null());
            for at in (0..size).step_by(4 * KIB).chain([size - 1]) {
                // SAFETY: within the block.
                unsafe { block.add(at).write(1) };
            }
            blocks.push(block);
        }
    }
}

/// Frees every second block first, so that the blocks of a span do not go in order.
fn free(blocks: &mut Vec<*mut u8>) {
    let (even, odd) = (blocks.iter().step_by(2), blocks.iter().skip(1).step_by(2));
    for &block in even.chain(odd) {
        // SAFETY: allocated above.
        unsafe { raw::free(block) };
    }
    blocks.clear();
}

/// Bytes of the process in memory, hugetlb pages not included.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * KIB
}

/// Minor faults of the process: those of its own accesses and those of the pages that it asked the
/// kernel to populate.
fn faults() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the kernel writes the structure.
    unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0);
        usage.assume_init().ru_minflt
    }
}

/// The code of `fill` and a list for it that cause no fault of their own any more.
fn rehearsed() -> Vec<*mut u8> {
    let mut blocks = vec![ptr::dangling_mut(); 600_000];
    blocks.clear();
    fill(5 * MIB, &mut blocks);
    free(&mut blocks);
    faults();
    blocks
}

/// 300 MiB come and go, twice.
fn give_back() {
    let mut blocks = rehearsed();
    theap::purge();
    let before = resident();
    for _ in 0..2 {
        fill(300 * MIB, &mut blocks);
        let full = theap::stats();
        let most_mapped = full.mapped();
        free(&mut blocks);
        theap::purge();
        let (stats, kept) = (theap::stats(), resident().saturating_sub(before));
        println!("{kept} bytes kept");
        // Metadata on hugepages stays: 36 KiB for each 2 MiB that were mapped, in whole hugepages.
        let slack = if std::env::var("THEAP_PAGES").unwrap() == "small" {
            MIB
        } else {
            most_mapped as usize / 2048 * 36 + 3 * MIB
        };
        assert!(kept <= slack, "{kept} bytes more than before; {stats:?}");
        assert_eq!((stats.active, stats.mapped_hugetlb), (0, 0));
    }
}

/// 128 MiB, the first that the process touches on the heap but for the rehearsal.
fn first_touch() {
    let mut blocks = rehearsed();
    let before = faults();
    fill(128 * MIB, &mut blocks);
    let (cost, stats) = (faults() - before, theap::stats());
    println!("{cost} faults");
    // The hugepages of the blocks and of their metadata, and a few small pages of tables. In the
    // mode auto the first SuperSlab is on small pages, and so is the first 2 MiB of metadata.
    let huge = (stats.mapped_thp + stats.mapped_hugetlb) / (2 * MIB as u64);
    let small = stats.mapped_small / 4096 * 2;
    assert!(cost as u64 <= huge + small + 16, "{cost} faults; {stats:?}");
    assert!(stats.mapped_small <= 2 * MIB as u64, "{stats:?}");
}

/// As `first_touch`, on a heap that was warmed up while it had free blocks and slots of all kinds
/// already.
fn warmed() {
    let mut blocks = rehearsed();
    // Without the shared pool every class takes whole SuperSlabs.
    let more = if cfg!(feature = "shared-pool") {
        0
    } else {
        128 * MIB
    };
    theap::warm_up(128 * MIB + more).unwrap();
    let before = faults();
    fill(128 * MIB, &mut blocks);
    assert_eq!(faults() - before, 0, "{:?}", theap::stats());
}

/// Warming up and purging in turn uses the same addresses again: there are 64 MiB of them.
fn warmed_again() {
    for round in 0..5 {
        let warmed = theap::warm_up(16 * MIB);
        assert!(
            warmed.is_ok(),
            "round {round}: {warmed:?}; {:?}",
            theap::stats()
        );
        assert!(theap::purge() > 0 || theap::stats().mapped_hugetlb == 0);
    }
}

#[test]
#[ignore = "the other tests run it, in processes of their own"]
fn scenario() {
    match child::role().as_deref() {
        Some("give back") => give_back(),
        Some("first touch") => first_touch(),
        Some("warmed") => warmed(),
        Some("warmed again") => warmed_again(),
        _ => {}
    }
}

/// Runs a scenario in a page mode; it passes and writes nothing to stderr.
fn passes(scenario: &str, pages: &str) {
    let mut variables = vec![("THEAP_PAGES", pages)];
    if scenario == "warmed again" {
        variables.push(("THEAP_ADDRESS_SPACE", "64M"));
    }
    let output = child::run(scenario, &variables);
    let (stdout, stderr) = (child::text(&output.stdout), child::text(&output.stderr));
    assert!(
        output.status.success() && stderr.is_empty(),
        "{scenario}, pages {pages}: {}\n{stdout}\n{stderr}",
        output.status
    );
    println!("{scenario}, pages {pages}:\n{stdout}");
}

/// Runs a scenario with hugetlb pages, of which there are enough.
fn passes_on_hugetlb(scenario: &str) {
    const PAGES: usize = 320;
    if let Some(pool) = hugepages::Pool::take()
        && pool.set(PAGES)
    {
        passes(scenario, "hugetlb");
        passes(scenario, "auto");
        assert!(pool.returns_to(PAGES), "all pages are back in the pool");
    }
}

/// Hugepages as `madvise` asks for them.
fn has_thp() -> bool {
    let mode =
        fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let has = mode.contains("[always]") || mode.contains("[madvise]");
    if !has {
        eprintln!("skipped: this kernel gives no transparent hugepages ({mode})");
    }
    has
}

#[test]
fn what_is_freed_goes_back_after_purge() {
    passes("give back", "small");
    passes("give back", "thp");
    passes_on_hugetlb("give back");
}

#[test]
fn a_first_touch_costs_one_fault_a_hugepage() {
    if has_thp() {
        passes("first touch", "thp");
    }
    passes_on_hugetlb("first touch");
}

#[test]
fn what_is_warmed_up_costs_no_fault() {
    passes("warmed", "small");
    if has_thp() {
        passes("warmed", "thp");
    }
    passes_on_hugetlb("warmed");
}

#[test]
fn what_is_warmed_up_and_purged_can_be_warmed_up_again() {
    passes("warmed again", "small");
    passes("warmed again", "thp");
    passes_on_hugetlb("warmed again");
}
