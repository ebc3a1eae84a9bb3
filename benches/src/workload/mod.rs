//! The workloads, by name: benchmarks that do a given amount of work and report times, latencies
//! and page faults.

mod all_classes;
mod burst;
mod contenders;
mod growth;
mod larson;
mod metrics;
mod params;
mod pinned_service;
mod producer_consumer;
mod random_mixed;

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::block::prove;
use crate::contender::Contender;
use crate::error::Error;
use crate::steps::{SEED, Sizes};
use crate::thread::Affinity;

pub use contenders::{CONTENDERS, Entry, contender};
pub use metrics::Outcome;
pub use params::Params;
pub use random_mixed::operations as random_mixed_operations;

/// A program that allocates in a known way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Allocates blocks of mixed sizes until `bytes` are allocated, and writes every page: it shows
    /// the cost of page faults.
    FirstTouch,
    /// Does the work of `FirstTouch` after the allocator was told to have the memory ready (System
    /// has no such call).
    FirstTouchWarm,
    /// A service whose live heap grows by `growth_rate` until `bytes` are allocated; each
    /// allocate-and-touch is timed.
    Growth,
    /// Does the work of `Growth` after the allocator was told to have the memory ready.
    GrowthWarm,
    /// Does the work of `Growth` with theap's warmer ahead of the growth (System has no such
    /// thing).
    GrowthAhead,
    /// A pinned thread that serves `requests` at a fixed rate, with blocks of mixed sizes and
    /// lifetimes, some of them handed to a second thread.
    PinnedService,
    /// Does the work of `PinnedService` after the allocator was told to have the memory ready.
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
            seed: SEED,
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
            Self::AllClasses => params
                .sizes
                .ladder()
                .sum::<usize>()
                .saturating_mul(params.slots)
                .saturating_mul(params.threads),
            Self::Larson => params
                .slots
                .saturating_mul(params.sizes.max())
                .saturating_mul(params.threads),
        }
    }

    /// The option of theap that the workload is about, as name and value. It must be set when the
    /// process starts.
    pub fn setting(self) -> Option<(&'static str, &'static str)> {
        (self == Self::GrowthAhead).then_some(("prefault", "ahead"))
    }

    /// Whether the workload is about the latency of a service, whose thread is pinned.
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

    /// Runs the workload on `a`, which must prove its memory before and after the measured part.
    ///
    /// # Errors
    /// Fails if a proof fails, memory runs out, or `params` cannot be carried out.
    pub fn run<A: Contender>(self, a: &A, params: &Params) -> Result<Outcome, Error> {
        params.check()?;
        if A::ONE_THREAD {
            return Err(Error::Setup(format!("{} runs no workload", A::NAME)));
        }
        let before = Affinity::keep()?;
        let mut params = params.clone();
        if self.is_service() && params.cpus.is_empty() {
            params.cpus = before.cpus();
        }
        params.pin(0)?;
        prove(a)?;
        let outcome = self.measure(a, &params)?;
        prove(a)?;
        Ok(outcome)
    }

    fn measure<A: Contender>(self, a: &A, params: &Params) -> Result<Outcome, Error> {
        match self {
            Self::FirstTouch => growth::first_touch(a, params, false),
            Self::FirstTouchWarm => growth::first_touch(a, params, true),
            Self::Growth | Self::GrowthAhead => growth::growth(a, params, false),
            Self::GrowthWarm => growth::growth(a, params, true),
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

/// Has the contender make `bytes` ready and returns the time that this took, or `None` if the
/// contender cannot.
fn prepare<A: Contender>(a: &A, bytes: usize) -> Result<Option<Duration>, Error> {
    let start = Instant::now();
    let prepared = a.warm_up(bytes)?;
    Ok(prepared.then(|| start.elapsed()))
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
