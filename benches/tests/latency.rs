//! The latency workloads report what happened: delays of an allocator that is known to be
//! slow.
#![allow(unsafe_code)] // a slow contender is an allocator too

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::spin_loop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use theap_bench::{Contender, Latency, Outcome, Params, Sizes, Workload};

/// The slow contender's settings and counts are the process's, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Allocations of [`MARKED`] bytes between two that take [`DELAY`]; 0 is never.
static EVERY: AtomicU64 = AtomicU64::new(0);
static DELAY: AtomicU64 = AtomicU64::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static FREES: AtomicU64 = AtomicU64::new(0);

/// The size of all blocks of these tests, which no probe asks for.
const MARKED: usize = 777;

/// System, with a delay in every [`EVERY`]th allocation.
struct Slow;

// SAFETY: every call goes to System unchanged, with a delay before some.
unsafe impl GlobalAlloc for Slow {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() == MARKED {
            let nth = ALLOCATIONS.fetch_add(1, Ordering::Relaxed) + 1;
            if nth.checked_rem(EVERY.load(Ordering::Relaxed)) == Some(0) {
                let end = Instant::now() + Duration::from_nanos(DELAY.load(Ordering::Relaxed));
                while Instant::now() < end {
                    spin_loop();
                }
            }
        }
        // SAFETY: `GlobalAlloc::alloc` has its caller promise a size other than 0, which is what
        // System asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() == MARKED {
            FREES.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: `GlobalAlloc::dealloc` has its caller promise a live block of this allocator with
        // its layout; all of its blocks are System's.
        unsafe { System.dealloc(block, layout) }
    }
}

impl Contender for Slow {
    const NAME: &'static str = "slow";

    fn owns(&self, _block: NonNull<u8>, _size: usize) -> bool {
        true
    }
}

/// Runs the workload with one allocation in `every` delayed.
fn run(workload: Workload, every: u64, delay: Duration, set: impl Fn(&mut Params)) -> Outcome {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    EVERY.store(every, Ordering::Relaxed);
    DELAY.store(delay.as_nanos() as u64, Ordering::Relaxed);
    ALLOCATIONS.store(0, Ordering::Relaxed);
    FREES.store(0, Ordering::Relaxed);
    let mut params = Params {
        sizes: Sizes::new(MARKED, MARKED).unwrap(),
        slots: 64,
        ..workload.defaults()
    };
    set(&mut params);
    let outcome = workload.run(&Slow, &params).unwrap();
    let (made, freed) = (
        ALLOCATIONS.load(Ordering::Relaxed),
        FREES.load(Ordering::Relaxed),
    );
    assert_eq!(made, freed, "every block came back");
    outcome
}

fn latency<'a>(outcome: &'a Outcome, what: &str) -> &'a Latency {
    let mut latencies = outcome.latencies().iter();
    latencies.find(|latency| latency.what == what).unwrap()
}

fn value(outcome: &Outcome, metric: &str) -> f64 {
    let metrics = outcome.metrics();
    let found = metrics.iter().find(|found| found.metric == metric);
    found.unwrap_or_else(|| panic!("no {metric}")).value
}

#[test]
fn a_delay_in_one_of_two_hundred_shows_beyond_p99() {
    let delay = Duration::from_micros(300);
    let outcome = run(Workload::Growth, 200, delay, |params| {
        params.bytes = 20_000 * MARKED;
        params.growth_rate = 0;
    });
    let times = latency(&outcome, "alloc_touch");
    assert_eq!(times.count(), 20_000);
    assert!(times.quantile(0.99) < 300_000, "{}", times.quantile(0.99));
    assert!(times.quantile(0.996) >= 299_000);
    let long = times.longer_than(299_000);
    assert!((100..150).contains(&long), "{long}");
    assert_eq!(
        value(&outcome, "alloc_touch_max"),
        times.quantile(1.0) as f64
    );
    // 20 000 blocks of 777 bytes are 3800 pages, the first touch of which is the measured thread's.
    assert!(value(&outcome, "thread_minor_faults") > 1_000.0);
}

#[test]
fn growth_keeps_its_pace() {
    let outcome = run(Workload::Growth, 0, Duration::ZERO, |params| {
        params.bytes = 4 << 20;
        params.growth_rate = 20 << 20;
    });
    assert!(value(&outcome, "wall_time") >= 199.0);
    // Most of these 200 ms go by waiting, in turns far below a microsecond.
    let idle = latency(&outcome, "idle");
    assert!(idle.count() > 10_000, "{}", idle.count());
    assert!(idle.quantile(0.5) < 10_000, "{}", idle.quantile(0.5));
}

#[test]
fn a_stall_shows_in_every_request_that_was_due_meanwhile() {
    // A stall of 20 ms at 20 000 requests a second: 400 are due meanwhile. Of their response times,
    // those of the first half are longer than 10 ms.
    let outcome = run(
        Workload::PinnedService,
        2_000,
        Duration::from_millis(20),
        |params| {
            params.requests = 1_500; // 6750 blocks of the server, 1350 of the second thread
            params.request_rate = 20_000;
        },
    );
    let response = latency(&outcome, "response");
    let service = latency(&outcome, "service");
    assert_eq!((response.count(), service.count()), (1_500, 1_500));
    let stalls = service.longer_than(10_000_000);
    assert!((1..20).contains(&stalls), "{stalls}");
    let late = response.longer_than(10_000_000);
    assert!((190..1_500).contains(&late), "{late}");
    assert!(response.max() >= 20_000_000);
}

#[test]
fn requests_start_on_schedule() {
    let outcome = run(Workload::PinnedService, 0, Duration::ZERO, |params| {
        params.requests = 1_000;
        params.request_rate = 10_000;
    });
    assert!(value(&outcome, "wall_time") >= 99.9);
    let (response, service) = (latency(&outcome, "response"), latency(&outcome, "service"));
    for quantile in [0.5, 0.9, 1.0] {
        assert!(response.quantile(quantile) >= service.quantile(quantile));
    }
    assert!(service.quantile(0.5) < 100_000);
}
