//! The cost of the heap: the memory that stays after everything was freed and purged, and the page
//! faults of a first touch. Each scenario runs in a process of its own that uses theap for nothing
//! else, in every page mode that the machine serves.
#![allow(unsafe_code)] // Calls the allocator directly, and getrusage.

mod child;
mod hugepages;

use std::fs;
use std::mem::MaybeUninit;
use std::time::Duration;
use std::{ptr, thread};
use theap::raw;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// The option `decay` of the scenario that rests.
const DECAY: Duration = Duration::from_millis(500);

/// The sizes of a mixture in the order of allocation: tiny, mid, large and huge.
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
                // SAFETY: the byte lies within the block.
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
        // SAFETY: `fill` allocated the block, and it is freed once.
        unsafe { raw::free(block) };
    }
    blocks.clear();
}

/// Resident bytes of the process, without hugetlb pages.
fn resident() -> usize {
    child::memory("VmRSS")
}

/// Minor faults of the process: its accesses cause them, and so do the pages that it asks the
/// kernel to populate.
fn faults() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the kernel writes the whole structure.
    unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0);
        usage.assume_init().ru_minflt
    }
}

/// Runs `fill` once, so that its code and the list that is returned cause no fault later.
fn rehearsed() -> Vec<*mut u8> {
    let mut blocks = vec![ptr::dangling_mut(); 600_000];
    blocks.clear();
    fill(5 * MIB, &mut blocks);
    free(&mut blocks);
    faults();
    blocks
}

/// Allocates and frees 300 MiB, twice.
fn give_back() {
    let mut blocks = rehearsed();
    theap::purge();
    let before = resident();
    for _ in 0..2 {
        fill(300 * MIB, &mut blocks);
        free(&mut blocks);
        theap::purge();
        let (stats, kept) = (theap::stats(), resident().saturating_sub(before));
        println!("{kept} bytes kept");
        assert!(kept <= MIB, "{kept} bytes more than before; {stats:?}");
        assert_eq!((stats.active, stats.mapped_hugetlb), (0, 0));
    }
}

/// Touches 128 MiB on a heap that the process has touched only in the rehearsal.
fn first_touch() {
    let mut blocks = rehearsed();
    let before = faults();
    fill(128 * MIB, &mut blocks);
    let (cost, stats) = (faults() - before, theap::stats());
    println!("{cost} faults");
    // The faults are those of the hugepages of blocks and of metadata, and of a few small pages of
    // tables. In the mode auto the first 8 MiB and the first 2 MiB of metadata are on small
    // pages.
    let huge = (stats.mapped_thp + stats.mapped_hugetlb) / (2 * MIB as u64);
    let small = stats.mapped_small / 4096 * 2;
    assert!(cost as u64 <= huge + small + 16, "{cost} faults; {stats:?}");
    assert!(stats.mapped_small <= 8 * MIB as u64, "{stats:?}");
}

/// Warms up what `fill(128 * MIB, …)` takes: a quarter more for the classes, and spans of which a
/// part is in use.
fn warm_up() {
    // Without the shared pool every class takes whole SuperSlabs.
    let begun = if cfg!(feature = "shared-pool") {
        16 * MIB
    } else {
        144 * MIB
    };
    theap::warm_up(160 * MIB + begun).unwrap();
}

/// Touches 128 MiB on a heap that was warmed up while it had free blocks and slots of all kinds.
fn warmed() {
    let mut blocks = rehearsed();
    warm_up();
    let before = faults();
    fill(128 * MIB, &mut blocks);
    assert_eq!(faults() - before, 0, "{:?}", theap::stats());
}

/// Fills, frees and fills a heap that was warmed up for more than it retains otherwise.
fn warmed_twice() {
    let mut blocks = rehearsed();
    warm_up();
    let before = faults();
    for round in 0..3 {
        fill(128 * MIB, &mut blocks);
        free(&mut blocks);
        theap::collect();
        // What gives spans back has code and tables of its own.
        let cost = faults() - before;
        assert!(cost <= 4, "{round}: {cost}, {:?}", theap::stats());
    }
    theap::purge();
    let stats = theap::stats();
    assert!(
        stats.empty < 4 * MIB as u64,
        "a purge takes it all: {stats:?}"
    );
}

/// Warms up and purges in turn within 64 MiB of addresses, which must be used again.
fn warmed_again() {
    for round in 0..5 {
        let warmed = theap::warm_up(36 * MIB);
        assert!(
            warmed.is_ok(),
            "round {round}: {warmed:?}; {:?}",
            theap::stats()
        );
        assert!(theap::purge() > 0 || theap::stats().mapped_hugetlb == 0);
    }
}

/// Allocates 64 MiB of blocks of a size, and frees all but one for each 64 KiB: every second of the
/// others in another thread. What stays is given with the byte that it is full of.
fn thinned(size: usize) -> Vec<(*mut u8, u8)> {
    let (count, every) = (64 * MIB / size, 64 * KIB / size);
    let blocks: Vec<_> = (0..count)
        .map(|i| {
            let block = raw::alloc(size);
            assert!(!block.is_null());
            // SAFETY: the block is new and has as many bytes.
            unsafe { block.write_bytes(i as u8, size) };
            block.expose_provenance()
        })
        .collect();
    let free = |first: usize| {
        for (_, &block) in (blocks.iter().enumerate().skip(first).step_by(2))
            .filter(|(i, _)| !i.is_multiple_of(every))
        {
            // SAFETY: live, and not used any more.
            unsafe { raw::free(ptr::with_exposed_provenance_mut(block)) };
        }
    };
    free(0);
    thread::scope(|scope| scope.spawn(|| free(1)).join()).unwrap();
    let kept = blocks.iter().enumerate().step_by(every);
    kept.map(|(i, &block)| (ptr::with_exposed_provenance_mut(block), i as u8))
        .collect()
}

/// Purges where all spans and SuperSlabs have a live block.
fn thin() {
    const SIZES: [usize; 3] = [48, 1000, 5000];
    let before = resident();
    let kept = SIZES.map(thinned);
    let (full, bytes) = (resident(), theap::purge());
    let after = resident();
    println!("before {before}, full {full}, purged {bytes}, after {after}");
    // With this feature free blocks keep a pattern that is compared later.
    if !cfg!(feature = "hardened") {
        assert!(after < before + 48 * MIB, "{after} of {full} stay");
        // Metadata goes as well, in whole hugepages.
        assert!(bytes + 4 * MIB >= full - after, "{bytes} told");
    }
    for (blocks, size) in kept.into_iter().zip(SIZES) {
        let anew = thinned(size);
        for (block, byte) in blocks.into_iter().chain(anew) {
            // SAFETY: a live block of as many bytes, freed once.
            unsafe {
                let bytes = std::slice::from_raw_parts(block, size);
                assert!(
                    bytes.iter().all(|&it| it == byte),
                    "a live block has changed"
                );
                raw::free(block);
            }
        }
    }
    theap::purge();
    assert!(resident() < before + 16 * MIB, "{} in the end", resident());
}

/// Frees 200 MiB and rests: the thread in the background gives them back.
fn rested() {
    let resident = || resident() + child::memory("HugetlbPages");
    let before = resident();
    let mut blocks = rehearsed();
    fill(200 * MIB, &mut blocks);
    assert!(resident() > 150 * MIB);
    free(&mut blocks);
    thread::sleep(DECAY + Duration::from_secs(2));
    let list = blocks.capacity() * size_of::<*mut u8>();
    let kept = resident() - before - list;
    println!("{} KiB kept", kept / KIB);
    // Blocks that are held back after their free keep pages of the kernel's pool.
    let most = if cfg!(feature = "hardened") { 24 } else { 16 };
    assert!(
        kept <= most * MIB,
        "{} KiB: {:?}",
        kept / KIB,
        theap::stats()
    );
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test memory"]
fn scenario() {
    match child::role().as_deref() {
        Some("rested") => rested(),
        Some("give back") => give_back(),
        Some("first touch") => first_touch(),
        Some("warmed") => warmed(),
        Some("warmed twice") => warmed_twice(),
        Some("warmed again") => warmed_again(),
        Some("thin") => thin(),
        _ => {}
    }
}

/// Runs a scenario in a page mode. It must succeed and write nothing to standard error.
fn passes(scenario: &str, pages: &str) {
    let mut variables = vec![("THEAP_PAGES", pages)];
    match scenario {
        "warmed again" => variables.push(("THEAP_ADDRESS_SPACE", "64M")),
        "warmed twice" => variables.push(("THEAP_RETAIN", "8M")),
        "rested" => variables.extend([("THEAP_BACKGROUND", "1"), ("THEAP_DECAY", "500")]),
        _ => {}
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

/// Runs a scenario with a pool that has enough hugetlb pages.
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

/// Whether the kernel gives transparent hugepages to a program that asks by `madvise`.
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
fn what_was_free_for_the_decay_goes_back_by_itself() {
    if cfg!(target_env = "musl") {
        return eprintln!("skipped: programs of musl have no warmer");
    }
    passes("rested", "small");
    passes("rested", "thp");
    passes_on_hugetlb("rested");
}

#[test]
fn pages_between_live_blocks_go_back_after_purge() {
    passes("thin", "small");
    passes("thin", "thp");
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
fn what_is_warmed_up_stays_warm() {
    passes("warmed twice", "small");
    if has_thp() {
        passes("warmed twice", "thp");
    }
    passes_on_hugetlb("warmed twice");
}

#[test]
fn what_is_warmed_up_and_purged_can_be_warmed_up_again() {
    passes("warmed again", "small");
    passes("warmed again", "thp");
    passes_on_hugetlb("warmed again");
}
