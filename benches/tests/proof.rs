//! A run whose memory is another allocator's must fail, whatever its label says.
#![allow(unsafe_code)] // contenders that lie are allocators too

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use theap_bench::{CONTENDERS, Contender, Error, Params, Workload};

/// glibc's count of bytes in use is the whole process's, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tiny(workload: Workload) -> Params {
    Params {
        ops: 20_000,
        slots: 64,
        bytes: 1 << 20,
        requests: 2_000,
        rounds: 20,
        ..workload.defaults()
    }
}

/// Allocators that are System under another name.
macro_rules! system_as {
    ($($name:ident)*) => {$(
        // SAFETY: every call goes to System unchanged.
        unsafe impl GlobalAlloc for $name {
            unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
                // SAFETY: `GlobalAlloc::alloc` has its caller promise a size other than 0, which is
                // what System asks for.
                unsafe { System.alloc(layout) }
            }

            unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
                // SAFETY: `GlobalAlloc::dealloc` has its caller promise a live block of this
                // allocator with its layout; all of its blocks are System's.
                unsafe { System.dealloc(block, layout) }
            }
        }
    )*};
}

system_as!(Mislabelled Uncounted Unfaithful);

/// Says it is theap, and hands out System's memory.
struct Mislabelled;

impl Contender for Mislabelled {
    const NAME: &'static str = "theap";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        theap::Theap::new().owns(block, size)
    }
}

/// Claims every block, but counts no bytes.
struct Uncounted;

impl Contender for Uncounted {
    const NAME: &'static str = "uncounted";

    fn owns(&self, _block: NonNull<u8>, _size: usize) -> bool {
        true
    }

    fn bytes_counted(&self) -> Option<u64> {
        Some(0)
    }
}

/// Owns what it hands out in the probe; later blocks are not its own.
struct Unfaithful;

impl Contender for Unfaithful {
    const NAME: &'static str = "unfaithful";

    /// This test's workloads ask for 777 bytes, and no probe does.
    fn owns(&self, _block: NonNull<u8>, size: usize) -> bool {
        size != 777
    }
}

#[test]
fn every_contender_runs_every_workload() {
    let _turn = turn();
    for contender in CONTENDERS {
        for workload in Workload::ALL {
            let outcome = (contender.run)(workload, &tiny(workload));
            let metrics = outcome
                .unwrap_or_else(|error| panic!("{workload}: {error}"))
                .metrics();
            assert!(
                metrics.iter().all(|metric| metric.value.is_finite()),
                "{metrics:?}"
            );
        }
    }
}

#[test]
fn a_wrong_label_fails_every_workload() {
    let _turn = turn();
    for workload in Workload::ALL {
        let error = workload.run(&Mislabelled, &tiny(workload)).err();
        assert!(
            matches!(
                error,
                Some(Error::Foreign {
                    allocator: "theap",
                    ..
                })
            ),
            "{workload}"
        );
    }
}

#[test]
fn a_count_that_does_not_rise_fails() {
    let _turn = turn();
    let error = Workload::Burst
        .run(&Uncounted, &tiny(Workload::Burst))
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("its count of bytes rose by 0"),
        "{error}"
    );
}

#[test]
fn blocks_of_the_workload_itself_are_proved_too() {
    let _turn = turn();
    for workload in Workload::ALL {
        let sizes = theap_bench::Sizes::new(777, 777).unwrap();
        let params = Params {
            sizes,
            ..tiny(workload)
        };
        let error = workload.run(&Unfaithful, &params).err();
        assert!(matches!(error, Some(Error::Foreign { .. })), "{workload}");
    }
}

#[test]
fn parameters_that_cannot_run_are_refused() {
    let _turn = turn();
    let params = Params {
        slots: 0,
        ..tiny(Workload::Burst)
    };
    let error = Workload::Burst.run(&System, &params).err().unwrap();
    assert_eq!(error.to_string(), "slots is 0; give at least 1");
}
