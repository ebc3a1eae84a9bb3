//! The figures of memory agree with an oracle: a table of all blocks that the test holds. They are
//! exact where no other thread's cache holds blocks, and else to what magazines hold. Each scenario
//! is a process of its own, in which nothing else allocates from the heap.
#![allow(unsafe_code)] // Calls the allocator directly, and fork.
#![cfg(feature = "stats")]

mod child;

use child::passes;
use std::collections::BTreeMap;
use std::sync::{Barrier, Mutex};
use std::thread;
use theap::{Stats, raw};

const MIB: usize = 1 << 20;
/// Sizes of blocks in several classes, of large and huge runs, and of one that a small range has no
/// room for.
const SIZES: [usize; 16] = [
    1,
    16,
    40,
    100,
    1000,
    3000,
    5000,
    20_000,
    70_000,
    200_000,
    300_000,
    MIB,
    3 * MIB,
    5 * MIB,
    24,
    64,
];
const OUTSIDE: usize = 80 * MIB;
/// Options under which the figures must be the same.
const OPTIONS: [(&str, &str); 5] = [
    ("THEAP_NURSERY", "1"),
    ("THEAP_NURSERY", "0"),
    ("THEAP_FRONT", "classic"),
    ("THEAP_LEARN", "0"),
    ("THEAP_PUBLISH", "1"),
];
/// A range that huge blocks soon fill.
const SMALL: (&str, &str) = ("THEAP_ADDRESS_SPACE", "128M");

/// Pages of which a fork copies those that it must, without a word.
const PAGES: (&str, &str) = ("THEAP_PAGES", "small");

/// Bytes at a block's end that are not the program's.
const TAIL: usize = if cfg!(feature = "valgrind") {
    16
} else if cfg!(feature = "hardened") {
    8
} else {
    0
};

/// A live block: its address and the bytes that it has, those at its end included.
type Block = (usize, usize);

/// The blocks that the test holds.
#[derive(Default)]
struct Oracle {
    /// The number of blocks by their bytes.
    held: BTreeMap<usize, u64>,
}

impl Oracle {
    fn alloc(&mut self, size: usize) -> Block {
        let block = alloc(size);
        *self.held.entry(block.1).or_default() += 1;
        block
    }

    fn free(&mut self, block: Block) {
        *self.held.get_mut(&block.1).unwrap() -= 1;
        free(block);
    }

    fn count(&mut self, blocks: &[Block]) {
        for &(_, bytes) in blocks {
            *self.held.entry(bytes).or_default() += 1;
        }
    }

    /// The bytes that the blocks of the class take.
    fn class(&self, stats: &Stats, index: usize) -> u64 {
        let below = index.checked_sub(1).map_or(0, |it| stats.classes[it].size);
        let size = stats.classes[index].size;
        let of_class = self.held.range(below as usize + 1..=size as usize);
        of_class.map(|(_, count)| count * size).sum()
    }

    /// The bytes that all blocks take that are larger than any class.
    fn runs(&self, stats: &Stats) -> u64 {
        let most = stats.classes.last().unwrap().size as usize;
        let whole = |bytes: usize| bytes.next_multiple_of(64 << 10) as u64;
        let runs = self.held.range(most + 1..);
        runs.map(|(&bytes, count)| count * whole(bytes)).sum()
    }

    /// Compares the figures with the blocks; each class's may be wrong by so many blocks.
    fn compare(&self, stats: &Stats, blocks: impl Fn(&theap::ClassStats) -> u64) {
        let mut slack = 0;
        let mut sum = self.runs(stats);
        for (index, class) in stats.classes.iter().enumerate() {
            let held = self.class(stats, index);
            let may = blocks(class) * class.size;
            let is = class.allocated;
            assert!(
                is.abs_diff(held) <= may,
                "{held} held, {may} cached: {class:?}"
            );
            assert_eq!(
                class.allocated + class.cached + class.free,
                class.span_bytes
            );
            (sum, slack) = (sum + held, slack + may);
        }
        assert!(stats.allocated.abs_diff(sum) <= slack, "{sum}: {stats:?}");
        let parts = stats.allocated + stats.cached + stats.free;
        assert_eq!(stats.active + stats.outside, parts);
        let by_class: u64 = stats.classes.iter().map(|class| class.cached).sum();
        assert_eq!(stats.cached, by_class);
        assert!(stats.kept <= stats.free, "{stats:?}");
    }

    fn is(&self, stats: &Stats) {
        self.compare(stats, |_| 0);
    }
}

fn alloc(size: usize) -> Block {
    let block = raw::alloc(size);
    assert!(!block.is_null());
    known(block)
}

fn known(block: *mut u8) -> Block {
    (block.expose_provenance(), theap::usable_size(block) + TAIL)
}

fn free((address, _): Block) {
    // SAFETY: a live block, not used after this.
    unsafe { raw::free(std::ptr::with_exposed_provenance_mut(address)) };
}

/// Numbers that follow no pattern which the allocator could know.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
        (self.0 >> 33) as usize % end
    }
}

/// Checks the allocator's own invariants, of which the figures of each heap are a part.
fn check() {
    #[cfg(debug_assertions)]
    // SAFETY: no other thread is inside the allocator.
    unsafe {
        theap::is_valid().unwrap();
    }
}

/// One thread: every look is exact, whatever its magazines hold.
fn alone() {
    let (mut oracle, mut blocks, mut random) = (Oracle::default(), Vec::new(), Random(7));
    assert_eq!(theap::stats().allocated, 0);
    for round in 0..40_000 {
        if blocks.len() < 300 || random.below(1000) < 500 {
            let most = if blocks.len() % 50 == 0 {
                SIZES.len()
            } else {
                9
            };
            blocks.push(oracle.alloc(SIZES[random.below(most)]));
        } else {
            let at = random.below(blocks.len());
            oracle.free(blocks.swap_remove(at));
        }
        if round % 251 == 0 {
            oracle.is(&theap::stats());
        }
    }
    // Bursts, for which magazines get arrays in blocks of the heap.
    for _ in 0..20 {
        let burst: Vec<_> = (0..6000).map(|_| oracle.alloc(64)).collect();
        oracle.is(&theap::stats());
        burst.into_iter().for_each(|block| oracle.free(block));
        oracle.is(&theap::stats());
    }
    let outside = [(); 3].map(|()| oracle.alloc(OUTSIDE));
    let stats = theap::stats();
    assert!(stats.outside >= OUTSIDE as u64, "the range is too small");
    assert!(stats.cached > 0, "magazines hold blocks");
    oracle.is(&stats);
    outside.into_iter().for_each(|block| oracle.free(block));
    blocks.into_iter().for_each(|block| oracle.free(block));
    oracle.is(&theap::stats());
    check();
    theap::collect();
    let stats = theap::stats();
    oracle.is(&stats);
    assert_eq!((stats.allocated, stats.cached), (0, 0));
}

/// Blocks of a size change their sizes, where they are and by moving.
fn resized() {
    let mut oracle = Oracle::default();
    for (from, to) in [
        (100, 120),
        (100, 1000),
        (MIB, 300_000),
        (MIB, 9 * MIB),
        (9 * MIB, 50),
    ] {
        let (old, _) = alloc(from);
        // SAFETY: a live block, whose old address is not used any more.
        let new = unsafe { raw::realloc(std::ptr::with_exposed_provenance_mut(old), to) };
        oracle.count(&[known(new)]);
        oracle.is(&theap::stats());
    }
    let zeroed = [40_000, 100_000, 2 * MIB].map(raw::alloc_zeroed);
    // With the feature `valgrind`, the usable size does not tell an aligned block's class.
    let aligned = [(100, 64), (100, 4096), (1000, 1 << 16)].into_iter();
    let aligned = aligned
        .filter(|_| !cfg!(feature = "valgrind"))
        .map(|(size, align)| raw::alloc_aligned(size, align));
    for block in zeroed.into_iter().chain(aligned) {
        oracle.count(&[known(block)]);
    }
    oracle.is(&theap::stats());
}

/// Another thread takes and frees blocks one by one, and this one looks after each: its figures are
/// those of the other's last batch, from which they differ by what the other has done since.
fn at_batches() {
    const STEPS: usize = 9000;
    let (begin, done) = (Barrier::new(2), Barrier::new(2));
    let takes = |step: usize| (step / 1500).is_multiple_of(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut blocks = Vec::new();
            for step in 0..STEPS {
                begin.wait();
                match takes(step) {
                    true => blocks.push(alloc(64)),
                    false => free(blocks.pop().unwrap()),
                }
                done.wait();
            }
        });
        let (mut held, mut batches, mut since, mut close) = (0, 0, 0, 0);
        for step in 0..STEPS {
            begin.wait();
            done.wait();
            held = if takes(step) { held + 1 } else { held - 1 };
            let stats = theap::stats();
            let now = stats.totals.refills + stats.totals.drains;
            // The block whose free made the cache drain comes into the cache behind the drain.
            since = if now == batches { since + 1 } else { 1 };
            batches = now;
            let allocated: u64 = stats.classes.iter().map(|class| class.allocated).sum();
            let size = (64 + TAIL as u64).next_multiple_of(16);
            let differs = allocated.abs_diff(held * size);
            assert!(
                differs <= since * size,
                "step {step}: {held} held, {stats:?}"
            );
            close += u64::from(differs <= size);
        }
        assert!(
            batches > 5 && close > 5,
            "{batches} batches, {close} times close"
        );
    });
}

/// The most blocks of a class that a cache can hold beyond what its learner has taught it.
fn magazine(class: &theap::ClassStats) -> u64 {
    // A quarantine or a delay holds up to 256 blocks more.
    let kept = if cfg!(any(feature = "hardened", feature = "valgrind")) {
        256
    } else {
        0
    };
    ((32 << 10) / class.size).clamp(16, 512) + kept
}

const THREADS: usize = 6;

/// The blocks that each thread holds, and those that it leaves to others to free.
fn work(seed: usize, given: &Mutex<Vec<Block>>) -> Vec<Block> {
    let (mut blocks, mut random) = (Vec::new(), Random(seed as u64));
    for _ in 0..20_000 {
        match random.below(100) {
            0..40 => blocks.push(alloc(SIZES[random.below(8)])),
            40 => blocks.push(alloc(SIZES[random.below(SIZES.len())])),
            41..60 if !blocks.is_empty() => {
                let at = random.below(blocks.len());
                given.lock().unwrap().push(blocks.swap_remove(at));
            }
            60..80 => {
                let taken = given.lock().unwrap().pop();
                taken.into_iter().for_each(free);
            }
            _ if !blocks.is_empty() => {
                let at = random.below(blocks.len());
                free(blocks.swap_remove(at));
            }
            _ => {}
        }
    }
    blocks
}

/// Several threads that free each other's blocks: exact to what magazines hold while they live, and
/// exact when they have ended. A forked child, and its own child, see the same.
fn together() {
    let (given, all) = (Mutex::new(Vec::new()), Mutex::new(Oracle::default()));
    let (rest, go) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    thread::scope(|scope| {
        for seed in 1..=THREADS {
            let (given, all, rest, go) = (&given, &all, &rest, &go);
            scope.spawn(move || {
                let blocks = work(seed, given);
                all.lock().unwrap().count(&blocks);
                rest.wait();
                go.wait();
            });
        }
        rest.wait();
        let stats = theap::stats();
        let mut oracle = all.lock().unwrap();
        oracle.count(&given.lock().unwrap());
        let threads = THREADS as u64;
        let close = |class: &theap::ClassStats| threads * magazine(class) + class.learned_blocks;
        oracle.compare(&stats, close);
        check();
        in_child(|| {
            oracle.compare(&theap::stats(), close);
            let own: Vec<_> = (0..1000).map(|i| alloc(SIZES[i % 9])).collect();
            oracle.count(&own);
            oracle.compare(&theap::stats(), close);
            in_child(|| oracle.compare(&theap::stats(), close));
        });
        go.wait();
    });
    wait_for_ends();
    // The blocks that the threads held are held still, as nobody has freed them.
    let mut oracle = all.lock().unwrap();
    oracle.is(&theap::stats());
    for block in given.lock().unwrap().drain(..) {
        oracle.free(block);
    }
    oracle.is(&theap::stats());
    check();
    in_child(|| {
        oracle.is(&theap::stats());
        let more: Vec<_> = (0..1000).map(|i| oracle.alloc(SIZES[i % 9])).collect();
        oracle.is(&theap::stats());
        more.into_iter().for_each(|block| oracle.free(block));
        theap::purge();
        oracle.is(&theap::stats());
    });
}

/// Waits until no thread but this one has a heap: caches end a little later than what threads do.
fn wait_for_ends() {
    let me = u64::from(gettid());
    while theap::heaps().any(|heap| heap.thread != 0 && heap.thread != me) {
        thread::yield_now();
    }
}

fn gettid() -> u32 {
    // SAFETY: the call has no precondition.
    unsafe { libc::gettid() as u32 }
}

/// Runs `what` in a forked child, which must end well.
fn in_child(what: impl FnOnce()) {
    // SAFETY: the child uses its memory and theap, which is made for it, and ends without unwinding
    // into the parent's frames.
    let child = unsafe { libc::fork() };
    if child == 0 {
        what();
        // SAFETY: the call ends the child, and runs no handler of the parent's.
        unsafe { libc::_exit(0) };
    }
    let mut status = -1;
    // SAFETY: the status is a local variable.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "the child's figures are right");
}

/// Every heap tells its thread and its spans, until the thread ends.
fn by_thread() {
    let mine = alloc(100);
    let (there, go) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let blocks: Vec<_> = (0..5000).map(|_| alloc(1000)).collect();
            let tid = gettid();
            there.wait();
            go.wait();
            blocks.into_iter().for_each(free);
            tid
        });
        there.wait();
        let me = u64::from(gettid());
        let heaps: Vec<_> = theap::heaps().collect();
        let of = |tid: u64| *heaps.iter().find(|heap| heap.thread == tid).unwrap();
        let others = heaps.iter().filter(|it| it.thread != 0 && it.thread != me);
        let its = *others.max_by_key(|heap| heap.refilled).unwrap();
        assert!(its.refilled - its.drained >= 4000 * 1000, "{its:?}");
        assert!(its.span_bytes > 0 && of(me).heap != its.heap, "{heaps:?}");
        let stats = theap::stats();
        assert!(stats.kept >= heaps.iter().map(|heap| heap.kept).sum());
        assert!(heaps.iter().map(|heap| heap.span_bytes).sum::<u64>() <= stats.active);
        in_child(|| {
            let left: Vec<_> = theap::heaps().map(|heap| heap.thread).collect();
            assert!(left.contains(&gettid().into()), "{left:?}");
            assert!(!left.contains(&its.thread), "{left:?}");
        });
        go.wait();
        assert_eq!(u64::from(other.join().unwrap()), its.thread);
    });
    wait_for_ends();
    free(mine);
    check();
}

/// The kernel has the memory that is touched, of every kind, and no more after a purge.
fn resident() {
    let before = theap::resident().unwrap();
    let blocks = [64 * MIB, 200 * MIB].map(|bytes| (alloc(bytes).0, bytes));
    assert!(
        theap::stats().outside > 0,
        "one block has a mapping of its own"
    );
    let untouched = theap::resident().unwrap();
    assert!(
        untouched.resident < before.resident + 8 * MIB as u64,
        "{untouched:?}"
    );
    for (address, bytes) in blocks {
        // SAFETY: a live block of so many bytes.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(address).write_bytes(1, bytes) };
    }
    let touched = theap::resident().unwrap();
    let all = 264 * MIB as u64;
    assert!(
        (all..all + 16 * MIB as u64).contains(&touched.resident),
        "{touched:?}"
    );
    assert!(
        (1..16 * MIB as u64).contains(&touched.resident_metadata),
        "{touched:?}"
    );
    assert!(touched.resident_thp + touched.resident_hugetlb <= touched.resident);
    if std::env::var("THEAP_PAGES").unwrap() == "small" {
        assert_eq!(touched.resident_thp, 0);
    }
    assert!(theap::stats().metadata >= touched.resident_metadata);
    blocks.into_iter().for_each(free);
    theap::purge();
    let purged = theap::resident().unwrap();
    assert!(purged.resident <= 16 * MIB as u64, "{purged:?}");
    theap::seal();
    assert_eq!(theap::resident(), Err(theap::Error::NoMemory));
    theap::unseal();
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test figures"]
fn scenario() {
    // Other threads would wait for one that fails, and a child would go on in the parent's frames.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |what| {
        report(what);
        // SAFETY: the call ends the process.
        unsafe { libc::_exit(101) };
    }));
    match child::role().as_deref() {
        Some("alone") => alone(),
        Some("resized") => resized(),
        Some("at batches") => at_batches(),
        Some("together") => together(),
        Some("by thread") => by_thread(),
        Some("resident") => resident(),
        _ => {}
    }
}

#[test]
fn one_threads_figures_are_exact() {
    for option in OPTIONS {
        passes("alone", &[option, SMALL]);
        passes("resized", &[option]);
    }
}

#[test]
fn another_threads_figures_are_those_of_its_last_batch() {
    for option in OPTIONS {
        passes("at batches", &[option]);
    }
}

#[test]
fn several_threads_figures_are_exact_to_what_magazines_hold() {
    for option in OPTIONS {
        passes("together", &[option, PAGES]);
    }
}

#[test]
fn a_heap_tells_its_thread() {
    for option in OPTIONS {
        passes("by thread", &[option, PAGES]);
    }
}

#[test]
fn the_kernel_tells_what_is_resident() {
    for pages in ["small", "thp"] {
        passes("resident", &[("THEAP_PAGES", pages), SMALL]);
    }
}
