//! The workloads, by name.

mod all_classes;
mod burst;
mod first_touch;
mod growth;
mod larson;
mod pinned_service;
mod producer_consumer;
pub mod random_mixed;

use std::fmt;
use std::hint::spin_loop;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::params::Affinity;
use crate::{Contender, Error, Outcome, Params, Sizes, proof};

/// Tries on a full or empty ring before a thread yields its CPU.
const SPINS: u32 = 256;

/// A program that allocates in a known way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Allocates blocks of mixed sizes until `bytes` are out and writes every page: what page
    /// faults cost.
    FirstTouch,
    /// The same after the allocator was told to have the memory ready (System has no such call).
    FirstTouchWarm,
    /// A service whose live heap grows by `growth_rate` until `bytes` are out; each allocate-and-touch
    /// is timed.
    Growth,
    /// The same after the allocator was told to have the memory ready.
    GrowthWarm,
    /// The same with theap's warmer following the growth (System has no such thing).
    GrowthAhead,
    /// A pinned thread that serves `requests` at a fixed rate, with blocks of mixed sizes and
    /// lifetimes, some of them handed to a second thread.
    PinnedService,
    /// The same after the allocator was told to have the memory ready.
    PinnedServiceWarm,
    /// Picks a random slot: frees its block if it holds one, else puts a new one there.
    RandomMixed,
    /// Allocates `slots` blocks, frees them in the same order, and again.
    Burst,
    /// Each thread replaces random ones of its chunks and hands them on to a new thread; after
    /// the program of that name.
    Larson,
    /// One thread allocates, another frees, through a ring of `slots` blocks.
    ProducerConsumer,
    /// `threads` threads hold blocks of every size at once, `slots` of each.
    AllClasses,
}

impl Workload {
    /// Every workload, in the order of a report.
    pub const ALL: [Self; 12] = [
        Self::FirstTouch,
        Self::FirstTouchWarm,
        Self::Growth,
        Self::GrowthWarm,
        Self::GrowthAhead,
        Self::PinnedService,
        Self::PinnedServiceWarm,
        Self::RandomMixed,
        Self::Burst,
        Self::Larson,
        Self::ProducerConsumer,
        Self::AllClasses,
    ];

    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstTouch => "first-touch",
            Self::FirstTouchWarm => "first-touch-warm",
            Self::Growth => "growth",
            Self::GrowthWarm => "growth-warm",
            Self::GrowthAhead => "growth-ahead",
            Self::PinnedService => "pinned-service",
            Self::PinnedServiceWarm => "pinned-service-warm",
            Self::RandomMixed => "random-mixed",
            Self::Burst => "burst",
            Self::Larson => "larson",
            Self::ProducerConsumer => "producer-consumer",
            Self::AllClasses => "all-classes",
        }
    }

    /// The parameters of a full run.
    pub fn defaults(self) -> Params {
        let (min, max, slots, ops) = match self {
            Self::FirstTouch | Self::FirstTouchWarm => (64, 128 << 10, 1, 1),
            Self::Growth | Self::GrowthWarm | Self::GrowthAhead => (64, 4096, 1, 1),
            Self::PinnedService | Self::PinnedServiceWarm => (64, 16 << 10, 32_768, 1),
            Self::RandomMixed => (16, 1024, 8192, 20_000_000),
            Self::Burst => (64, 64, 1024, 20_000_000),
            Self::Larson => (1, 1000, 100, 20_000_000),
            Self::ProducerConsumer => (64, 64, 1024, 10_000_000),
            Self::AllClasses => (16, 256 << 10, 4, 1),
        };
        Params {
            ops,
            sizes: Sizes::new(min, max).expect("the ranges above hold neither 0 nor a huge size"),
            slots,
            bytes: 512 << 20,
            growth_rate: 1 << 30,
            requests: 300_000,
            request_rate: 100_000,
            threads: if self == Self::AllClasses { 8 } else { 1 },
            rounds: 10_000,
            seed: 42,
            cpus: Vec::new(),
        }
    }

    /// The most bytes of blocks that a run with `params` holds at once.
    pub fn footprint(self, params: &Params) -> usize {
        match self {
            Self::FirstTouch
            | Self::FirstTouchWarm
            | Self::Growth
            | Self::GrowthWarm
            | Self::GrowthAhead => params.bytes,
            Self::PinnedService | Self::PinnedServiceWarm => pinned_service::footprint(params),
            Self::RandomMixed | Self::Burst | Self::ProducerConsumer => {
                params.slots.saturating_mul(params.sizes.max())
            }
            Self::AllClasses => all_classes::sizes(params.sizes)
                .sum::<usize>()
                .saturating_mul(params.slots)
                .saturating_mul(params.threads),
            Self::Larson => params
                .slots
                .saturating_mul(params.sizes.max())
                .saturating_mul(params.threads),
        }
    }

    /// The option of theap that the workload is about, by name and value; it must be set from the
    /// process's start.
    pub fn setting(self) -> Option<(&'static str, &'static str)> {
        (self == Self::GrowthAhead).then_some(("prefault", "ahead"))
    }

    /// Whether it is about the latency of a service, which is then pinned.
    pub fn is_service(self) -> bool {
        matches!(
            self,
            Self::Growth
                | Self::GrowthWarm
                | Self::GrowthAhead
                | Self::PinnedService
                | Self::PinnedServiceWarm
        )
    }

    /// Runs the workload on `a`, having it prove its memory before and after the measured part.
    ///
    /// # Errors
    /// Fails if a proof fails, memory runs out, or `params` cannot be carried out.
    pub fn run<A: Contender>(self, a: &A, params: &Params) -> Result<Outcome, Error> {
        params.check()?;
        let before = Affinity::keep()?;
        let mut params = params.clone();
        if self.is_service() && params.cpus.is_empty() {
            params.cpus = before.cpus();
        }
        params.pin(0)?;
        proof::prove(a)?;
        let outcome = self.measure(a, &params)?;
        proof::prove(a)?;
        Ok(outcome)
    }

    fn measure<A: Contender>(self, a: &A, params: &Params) -> Result<Outcome, Error> {
        match self {
            Self::FirstTouch => first_touch::run(a, params, false),
            Self::FirstTouchWarm => first_touch::run(a, params, true),
            Self::Growth | Self::GrowthAhead => growth::run(a, params, false),
            Self::GrowthWarm => growth::run(a, params, true),
            Self::PinnedService => pinned_service::run(a, params, false),
            Self::PinnedServiceWarm => pinned_service::run(a, params, true),
            Self::RandomMixed => random_mixed::run(a, params),
            Self::Burst => burst::run(a, params),
            Self::Larson => larson::run(a, params),
            Self::ProducerConsumer => producer_consumer::run(a, params),
            Self::AllClasses => all_classes::run(a, params),
        }
    }
}

/// Has the contender prepare `bytes`; returns the time that took, or nothing if it cannot prepare.
fn prepare<A: Contender>(a: &A, bytes: usize) -> Result<Option<Duration>, Error> {
    let start = Instant::now();
    let prepared = a.warm_up(bytes)?;
    Ok(prepared.then(|| start.elapsed()))
}

/// Waits for the other end of a ring: briefly on the CPU, then without it.
#[inline]
fn wait(tries: &mut u32) {
    *tries += 1;
    if *tries < SPINS {
        spin_loop();
    } else {
        std::thread::yield_now();
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Workload {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|workload| workload.name() == name)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(", ");
                Error::Setup(format!("no workload is named {name}; there are {known}"))
            })
    }
}
