//! theap as a guest in programs and hosts that set limits: it takes the addresses that it uses and
//! no more, lives with mappings in its way, and serves threads that can have no heap of their own.
//! Each test is a process of its own.
#![allow(unsafe_code)] // Calls the allocator directly, sets limits and maps memory.

mod child;

use child::{memory, passes};
use std::ffi::c_void;
use std::sync::Barrier;
use std::{ptr, slice, thread};
use theap::raw;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SUPER: usize = 2 * MIB;
/// Sizes of small blocks.
const SIZES: [usize; 5] = [16, 100, 1000, 9000, 40_000];

/// A block with a number in it; the heap must have one.
fn block(size: usize, number: usize) -> *mut u8 {
    let block = raw::alloc(size);
    assert!(!block.is_null(), "no {size} bytes");
    // SAFETY: a new block of at least 16 bytes.
    unsafe { block.cast::<usize>().write(number) };
    block
}

fn free(block: *mut u8, number: usize) {
    // SAFETY: a live block, as `block` made it.
    unsafe {
        assert_eq!(block.cast::<usize>().read(), number);
        raw::free(block);
    }
}

/// The addresses of the process grow with the heap and fall with it.
fn addresses() {
    let before = memory("VmSize");
    for blocks in [1, 100, 10_000] {
        let all: Vec<_> = (0..blocks).map(|number| block(40_000, number)).collect();
        let (taken, mapped) = (memory("VmSize") - before, theap::stats().mapped() as usize);
        assert!(taken <= 2 * mapped + 16 * MIB, "{taken} bytes for {mapped}");
        all.into_iter()
            .enumerate()
            .for_each(|(number, block)| free(block, number));
    }
}

/// With few addresses left, threads start and the program maps memory, and the heap grows.
fn few_addresses() {
    let limit = libc::rlimit {
        rlim_cur: (memory("VmSize") + 400 * MIB) as u64,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the structure is read only.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    let first = block(100, 1);
    let all_run = Barrier::new(100);
    thread::scope(|scope| {
        for number in 0..100 {
            let all_run = &all_run;
            let body = move || {
                let mine = SIZES.map(|size| block(size, number));
                all_run.wait();
                mine.into_iter().for_each(|block| free(block, number));
            };
            let started = thread::Builder::new()
                .stack_size(64 * KIB)
                .spawn_scoped(scope, body);
            assert!(started.is_ok(), "thread {number}");
        }
    });
    // SAFETY: a mapping where the kernel likes.
    let mapping = unsafe {
        let (access, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        libc::mmap(ptr::null_mut(), 200 * MIB, access, flags, -1, 0)
    };
    assert_ne!(mapping, libc::MAP_FAILED);
    free(first, 1);
}

/// Somebody else's mapping lies where the heap would grow: the heap goes on behind it.
fn mapping_in_the_way() {
    let first = block(100, 1);
    let next = (first.addr() & !(SUPER - 1)) + SUPER;
    let wish = ptr::without_provenance_mut::<c_void>(next);
    // SAFETY: the mapping replaces nothing.
    let foreign = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        libc::mmap(wish, SUPER, access, flags, -1, 0)
    };
    assert_eq!(
        foreign, wish,
        "the heap has not reserved what it does not use"
    );
    // SAFETY: the program's own mapping.
    let foreign = unsafe { slice::from_raw_parts_mut(foreign.cast::<u8>(), SUPER) };
    foreign.fill(0x5A);
    let all: Vec<_> = (0..5000).map(|number| block(9000, number)).collect();
    let run = block(9 * MIB, 7);
    let lies_in = |block: *mut u8| (next..next + SUPER).contains(&block.addr());
    assert!(!all.iter().any(|&block| lies_in(block)));
    assert!(foreign.iter().all(|&byte| byte == 0x5A));
    free(run, 7);
    all.into_iter()
        .enumerate()
        .for_each(|(number, block)| free(block, number));
    free(first, 1);
}

/// More threads at once than there are heaps, which pass blocks on to each other.
fn many_threads() {
    const THREADS: usize = 400;
    let (taken, freed) = (Barrier::new(THREADS), Barrier::new(THREADS));
    let blocks: Vec<_> = (0..THREADS)
        .map(|_| std::sync::Mutex::new(Vec::<(usize, usize)>::new()))
        .collect();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (taken, freed, blocks) = (&taken, &freed, &blocks);
            let body = move || {
                let take = |size| (block(size, number).expose_provenance(), number);
                blocks[number]
                    .lock()
                    .unwrap()
                    .extend(SIZES[..4].iter().map(|&size| take(size)));
                taken.wait();
                let others: Vec<_> = blocks[(number + 1) % THREADS]
                    .lock()
                    .unwrap()
                    .drain(..)
                    .collect();
                for (at, number) in others {
                    free(ptr::with_exposed_provenance_mut(at), number);
                }
                freed.wait();
                let grown = block(100, number);
                // SAFETY: a live block; its old address is not used any more.
                free(unsafe { raw::realloc(grown, 5000) }, number);
            };
            thread::Builder::new()
                .stack_size(64 * KIB)
                .spawn_scoped(scope, body)
                .unwrap();
        }
    });
    assert!(theap::stats().heaps < 256);
}

/// A destructor that arms itself again in each round, and allocates.
fn late_destructors() {
    static KEY: std::sync::OnceLock<libc::pthread_key_t> = std::sync::OnceLock::new();
    extern "C" fn again(value: *mut c_void) {
        free(block(100, 3), 3);
        free(block(3 * MIB, 4), 4);
        // SAFETY: the key exists; the value is not used.
        unsafe { libc::pthread_setspecific(KEY.get().copied().unwrap_or(0), value) };
    }
    KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: the destructor may be called with any value.
        let made = unsafe { libc::pthread_key_create(&raw mut key, Some(again)) };
        assert_eq!(made, 0);
        key
    });
    for _ in 0..500 {
        let one = thread::spawn(|| {
            free(block(100, 1), 1);
            // SAFETY: the key exists.
            unsafe { libc::pthread_setspecific(KEY.get().copied().unwrap_or(0), ptr::dangling()) }
        });
        assert_eq!(one.join().unwrap(), 0);
    }
    // This thread's, the one of those past their last destructor, and what a CPU may be left: four
    // at most, as a thread may end on another CPU than it has begun on.
    let most = 2 + 4 * thread::available_parallelism().unwrap().get() as u64;
    let heaps = theap::stats().heaps;
    assert!(heaps <= most, "{heaps} heaps");
}

/// What `mlockall` locks of the heap, before and after it starts: as of the program's other memory.
fn locked(flags: libc::c_int, early: bool) {
    if !early {
        free(block(100, 1), 1);
    }
    // SAFETY: the call concerns the kernel's treatment of memory alone.
    if unsafe { libc::mlockall(flags) } != 0 {
        return println!("skipped: this process may not lock its memory");
    }
    let before = memory("VmLck");
    let blocks: Vec<_> = (0..3).map(|number| block(3 * MIB, number)).collect();
    let more = memory("VmLck") - before;
    let grows = flags & libc::MCL_FUTURE != 0;
    assert_eq!(more >= 9 * MIB, grows, "{more} bytes locked");
    assert!(grows || more == 0, "{more} bytes locked");
    blocks
        .into_iter()
        .enumerate()
        .for_each(|(number, block)| free(block, number));
}

/// The heap's start takes little but its first SuperSlab, however many addresses it may use.
fn small_start() {
    let before = memory("VmSize");
    let first = block(100, 1);
    let taken = memory("VmSize") - before;
    // Ten bits for each SuperSlab that there may ever be, and what sums them up.
    let space: usize = std::env::var("SPACE").unwrap().parse().unwrap();
    let most = SUPER + 256 * KIB + space / SUPER * 10 / 8 + space / SUPER / 32;
    assert!(taken <= most, "{} KiB", taken / KIB);
    free(first, 1);
}

/// Blocks beyond the first GiB, whose tables come to be while threads run, are freed by threads
/// that were there before, and used again.
fn beyond_a_step() {
    const SIZE: usize = 200_000;
    const BLOCKS: usize = (7 << 29) / SIZE;
    let (ready, freed) = (Barrier::new(2), Barrier::new(2));
    let fill = || -> Vec<_> {
        (0..BLOCKS)
            .map(|number| block(SIZE, number).addr())
            .collect()
    };
    let give = |all: &[usize], first: usize| {
        for (k, &at) in all.iter().enumerate() {
            free(ptr::with_exposed_provenance_mut(at), first + k);
        }
    };
    let blocks = std::sync::Mutex::new(Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            free(block(SIZE, 1), 1);
            ready.wait();
            ready.wait();
            give(&blocks.lock().unwrap()[BLOCKS / 2..], BLOCKS / 2);
            freed.wait();
        });
        ready.wait();
        *blocks.lock().unwrap() = fill();
        ready.wait();
        freed.wait();
    });
    give(&blocks.into_inner().unwrap()[..BLOCKS / 2], 0);
    theap::collect();
    let mapped = theap::stats().mapped();
    let again = fill();
    assert!(theap::stats().mapped() <= mapped + (64 * MIB) as u64);
    give(&again, 0);
}

/// Runs that end at, and go beyond, what the tables describe so far.
fn runs_beyond_a_step() {
    for (first, then) in [(512, 3), (513, 1200), (3000, 4000)] {
        let (size, more) = (first * SUPER, then * SUPER);
        let run = block(size, first);
        // SAFETY: a live block; the new one is at least as large as what is read.
        unsafe {
            let grown = raw::realloc(run, more);
            assert!(!grown.is_null());
            assert_eq!(raw::usable_size(grown), more);
            free(grown, first);
        }
    }
}

/// A sealed heap whose first GiB is used up gives nothing more, says nothing, and counts that.
fn sealed_at_a_step() {
    let mapped = || theap::stats().mapped() as usize;
    while mapped() < 1 << 30 {
        block(SUPER, 1);
    }
    assert_eq!(mapped(), 1 << 30, "the tables end here");
    theap::seal();
    let before = theap::stats().refusals;
    while !raw::alloc(SUPER).is_null() {}
    assert!(theap::stats().refusals > before && mapped() == 1 << 30);
    theap::unseal();
    block(SUPER, 1);
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test guest"]
fn scenario() {
    match child::role().as_deref() {
        Some("start") => small_start(),
        Some("beyond") => beyond_a_step(),
        Some("runs") => runs_beyond_a_step(),
        Some("sealed") => sealed_at_a_step(),
        Some("addresses") => addresses(),
        Some("few") => few_addresses(),
        Some("in-the-way") => mapping_in_the_way(),
        Some("threads") => many_threads(),
        Some("destructors") => late_destructors(),
        Some("current") => locked(libc::MCL_CURRENT, false),
        Some("future") => locked(libc::MCL_FUTURE, false),
        Some("future-early") => locked(libc::MCL_FUTURE, true),
        Some("both") => locked(libc::MCL_CURRENT | libc::MCL_FUTURE, false),
        _ => {}
    }
}

#[test]
fn addresses_are_taken_as_they_are_used() {
    for pages in ["small", "thp", "auto"] {
        passes("addresses", &[("THEAP_PAGES", pages)]);
    }
}

#[test]
fn a_limit_of_addresses_leaves_room_for_the_program() {
    for pages in ["small", "auto"] {
        // The test's own memory comes from the C library, whose arenas would take the addresses.
        passes("few", &[("THEAP_PAGES", pages), ("MALLOC_ARENA_MAX", "1")]);
    }
}

#[test]
fn a_foreign_mapping_is_passed_by() {
    for pages in ["small", "thp", "auto"] {
        passes("in-the-way", &[("THEAP_PAGES", pages)]);
    }
}

#[test]
fn threads_without_heaps_share_one() {
    for front in ["theap", "classic"] {
        let options = [("THEAP_ADDRESS_SPACE", "512M"), ("THEAP_FRONT", front)];
        passes(
            "threads",
            &[options[0], options[1], ("THEAP_PAGES", "small")],
        );
    }
}

#[test]
fn late_destructors_cost_no_heap() {
    passes("destructors", &[]);
}

#[test]
fn a_start_takes_little_whatever_the_host_has() {
    for pages in ["small", "thp", "auto"] {
        for space in [64 * MIB, 1 << 30, 32 << 30, 128 << 30, 1 << 40, 16 << 40] {
            let space = space.to_string();
            let variables = [
                ("THEAP_PAGES", pages),
                ("THEAP_ADDRESS_SPACE", &space),
                ("SPACE", &space),
            ];
            passes("start", &variables);
        }
    }
}

#[test]
fn tables_grow_with_the_heap() {
    for (pages, calls) in [("small", "all"), ("thp", "all"), ("small", "plain")] {
        let variables = [("THEAP_PAGES", pages), ("THEAP_CALLS", calls)];
        passes("beyond", &variables);
        passes("runs", &variables);
    }
    passes("sealed", &[("THEAP_PAGES", "small")]);
}

#[test]
fn memory_is_locked_as_the_program_asks() {
    for pages in ["small", "thp", "auto"] {
        for scenario in ["current", "future", "future-early", "both"] {
            passes(scenario, &[("THEAP_PAGES", pages)]);
        }
    }
}
