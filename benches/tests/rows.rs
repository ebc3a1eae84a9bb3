//! The rows of the suite in one process, briefly.
#![allow(unsafe_code)] // contenders that lie are allocators

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use theap::Theap;
use theap_bench::row::{Budget, Category, PEAK, RESIDENT, ROWS, chosen, row};
use theap_bench::suite::{Entrant, Role, Side};
use theap_bench::{Contender, Error, Null, forward_global_alloc};

const BRIEF: Budget = Budget::Time(Duration::from_millis(1));

/// glibc's count of bytes in use is the whole process's, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// System is this program's global allocator, so it can run them all.
#[test]
fn every_row_has_figures() {
    let _turn = turn();
    for row in ROWS {
        let metrics = row.run(&System, BRIEF).unwrap();
        for wanted in [row.metric(), PEAK] {
            let found = metrics.iter().find(|metric| metric.metric == wanted);
            let value = found
                .unwrap_or_else(|| panic!("{}: no {wanted}", row.name))
                .value;
            assert!(value.is_finite() && value > 0.0, "{}: {value}", row.name);
        }
    }
}

#[test]
fn the_null_allocator_runs_the_hit_path_alone() {
    let _turn = turn();
    // SAFETY: rows of the hit path have one thread, and `run` refuses the others.
    static NULL: Null = unsafe { Null::new() };
    for row in ROWS {
        let outcome = row.run(&NULL, BRIEF);
        if row.category == Category::HitPath {
            outcome.unwrap_or_else(|error| panic!("{}: {error}", row.name));
        } else {
            assert!(matches!(outcome, Err(Error::Setup(_))), "{}", row.name);
        }
    }
}

#[test]
fn collections_need_the_global_allocator() {
    let _turn = turn();
    let error = row("btree").unwrap().run(&Theap::new(), BRIEF).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the run is not theap's: it is not the global allocator of this program"
    );
}

/// C++'s operators go to the C library here, and so cannot pass as theap's.
#[test]
fn operators_of_another_heap_are_refused() {
    let _turn = turn();
    for name in ["new-delete/object", "new-delete/array", "new-delete/sized"] {
        let error = row(name).unwrap().run(&Theap::new(), BRIEF).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Foreign {
                    allocator: "theap",
                    ..
                }
            ),
            "{error}"
        );
    }
}

/// The preparation of a sparse heap is 16,000 blocks, and none of it counts: neither as time nor,
/// as nobody writes to the blocks, as memory.
#[test]
fn a_sparse_heap_takes_addresses_alone() {
    let _turn = turn();
    let metrics = row("sparse/3m-16000").unwrap().run(&System, BRIEF).unwrap();
    let value = |name: &str| {
        metrics
            .iter()
            .find(|metric| metric.metric == name)
            .unwrap()
            .value
    };
    // The blocks have 31 GiB; the other rows of this process take up to 2 GiB.
    assert!(value(PEAK) < 4e9, "{}", value(PEAK));
    assert!(value("throughput") > 0.01, "{}", value("throughput"));
}

/// System, which notes in front of each block the thread that it went to.
struct Marking(System);

/// Frees, and those of them by another thread than the one that the block went to.
static FREES: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Bytes in front of a block.
const NOTE: usize = 16;

/// An address that no other living thread has.
fn this_thread() -> usize {
    thread_local!(static PLACE: u8 = const { 0 });
    PLACE.with(|place| std::ptr::from_ref(place).addr())
}

fn noted(layout: Layout) -> Layout {
    Layout::from_size_align(layout.size() + NOTE, NOTE).unwrap()
}

// SAFETY: every block is a part of one of System's, behind the note, and aligned to 16 bytes; no
// row of this test asks for more.
unsafe impl GlobalAlloc for Marking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the size is not 0, and the note is within the block, which System has aligned.
        unsafe {
            let start = self.0.alloc(noted(layout));
            start.cast::<usize>().write(this_thread());
            start.add(NOTE)
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller promises a live block of `alloc`'s, so the note stands before it.
        unsafe {
            let start = block.sub(NOTE);
            FREES[0].fetch_add(1, Ordering::Relaxed);
            if start.cast::<usize>().read() != this_thread() {
                FREES[1].fetch_add(1, Ordering::Relaxed);
            }
            self.0.dealloc(start, noted(layout));
        }
    }
}

impl Contender for Marking {
    const NAME: &'static str = "marking";

    fn owns(&self, _block: NonNull<u8>, _size: usize) -> bool {
        true
    }
}

/// Part of the row's frees that are of blocks of another thread.
fn foreign_frees(name: &str) -> f64 {
    FREES
        .iter()
        .for_each(|count| count.store(0, Ordering::Relaxed));
    let budget = Budget::Time(Duration::from_millis(100));
    row(name).unwrap().run(&Marking(System), budget).unwrap();
    let [all, foreign] = [0, 1].map(|nth: usize| FREES[nth].load(Ordering::Relaxed) as f64);
    foreign / all
}

/// Every block of the many is freed by the one; a task that moves frees the blocks that it
/// allocated elsewhere; and a thread with blocks of its own frees those alone.
#[test]
fn blocks_move_from_thread_to_thread() {
    let _turn = turn();
    let part = foreign_frees("fan-in/16");
    assert!(part > 0.9, "{part}");
    for name in ["pool/2", "pool/8"] {
        let part = foreign_frees(name);
        assert!((0.1..0.9).contains(&part), "{name}: {part}");
    }
    let part = foreign_frees("apart/2");
    assert!(part == 0.0, "{part}");
}

/// A side whose program is a line of shell.
fn shell(role: Role, line: &str) -> Side {
    Side {
        entrant: Entrant {
            name: "sh".into(),
            role,
            version: "1".into(),
        },
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), line.into()],
        environment: role.variables(),
    }
}

/// theap goes on without hugetlb pages when there are none; its figure is not one of such pages.
#[test]
fn a_heap_beside_the_pool_has_no_figure() {
    let row = row("growth/512m").unwrap();
    let printed = |pages: u64| {
        let metric = format!(r#"{{"metric":"hugetlb_at_end","unit":"bytes","value":{pages}}}"#);
        format!(r#"[ $THEAP_PAGES = hugetlb ] && echo '[{metric}]'"#)
    };
    let measure = |line: &str| shell(Role::Hugetlb, line).measure(row, BRIEF);
    assert_eq!(measure(&printed(512 << 20)).unwrap().len(), 1);
    let error = measure(&printed(510 << 20)).unwrap_err().to_string();
    assert_eq!(error, "sh: its heap is not on hugetlb pages");
}

#[test]
fn a_row_sets_the_option_that_it_needs() {
    let line =
        r#"echo "[{\"metric\":\"$THEAP_PREFAULT-$THEAP_PAGES\",\"unit\":\"\",\"value\":1}]""#;
    for (name, set) in [
        ("growth/512m", "-"),
        ("growth/512m-ahead", "ahead-"),
        ("sparse/3m-1000", "-small"),
    ] {
        let metrics = shell(Role::Subject, line).measure(row(name).unwrap(), BRIEF);
        assert_eq!(metrics.unwrap()[0].metric, set, "{name}");
    }
}

/// Hands out System's memory under theap's name.
struct Mislabelled(System);

forward_global_alloc!(Mislabelled);

impl Contender for Mislabelled {
    const NAME: &'static str = "theap";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        Theap::new().owns(block, size)
    }
}

#[test]
fn a_wrong_label_fails_every_row() {
    let _turn = turn();
    for row in ROWS {
        let error = row.run(&Mislabelled(System), BRIEF).unwrap_err();
        assert!(
            matches!(error, Error::Foreign { .. }),
            "{}: {error}",
            row.name
        );
    }
}

#[test]
fn quick_runs_leave_out_the_rows_that_wait_unless_they_are_named() {
    let names = |parts: &[&str], quick| -> Vec<&str> {
        let parts: Vec<String> = parts.iter().map(|&part| part.into()).collect();
        let rows = chosen(&parts, quick).into_iter();
        rows.map(|row| row.name).collect()
    };
    let waiting: Vec<_> = ROWS.iter().filter(|row| row.waits()).collect();
    assert_eq!(waiting.len(), 4);
    assert_eq!(names(&[], false).len(), ROWS.len());
    assert_eq!(names(&[], true).len(), ROWS.len() - waiting.len());
    assert_eq!(
        names(&["rss/freed", "lists"], true),
        ["lists", "rss/freed-200m", "rss/freed-90k"]
    );
}

/// What stays of 1 GiB is 1 MiB, and the C library gives the rest back when it is told to.
#[test]
fn what_is_left_is_read_after_the_contender_has_trimmed() {
    let _turn = turn();
    let metrics = row("rss/sparse-trim").unwrap().run(&System, BRIEF).unwrap();
    let value = |name: &str| {
        let mut found = metrics.iter().filter(|metric| metric.metric == name);
        found.next().unwrap_or_else(|| panic!("no {name}")).value
    };
    assert_eq!(value("trims"), 1.0);
    assert!(value(PEAK) > f64::from(1 << 30), "{}", value(PEAK));
    assert!(
        value(RESIDENT) < f64::from(256 << 20),
        "{}",
        value(RESIDENT)
    );
}
