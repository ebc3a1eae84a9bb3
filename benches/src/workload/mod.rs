//! The workloads, by name.

mod burst;
mod first_touch;
mod larson;
mod producer_consumer;
mod random_mixed;

use std::fmt;
use std::str::FromStr;

use crate::{Contender, Error, Outcome, Params, Sizes, proof};

/// A program that allocates in a known way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Allocates blocks of mixed sizes until `bytes` are out and writes every page: what page
    /// faults cost.
    FirstTouch,
    /// The same after the allocator was told to have the memory ready (System has no such call).
    FirstTouchWarm,
    /// Picks a random slot: frees its block if it holds one, else puts a new one there.
    RandomMixed,
    /// Allocates `slots` blocks, frees them in the same order, and again.
    Burst,
    /// Each thread replaces random ones of its chunks and hands them on to a new thread; after
    /// the program of that name.
    Larson,
    /// One thread allocates, another frees, through a ring of `slots` blocks.
    ProducerConsumer,
}

impl Workload {
    /// Every workload, in the order of a report.
    pub const ALL: [Self; 6] = [
        Self::FirstTouch,
        Self::FirstTouchWarm,
        Self::RandomMixed,
        Self::Burst,
        Self::Larson,
        Self::ProducerConsumer,
    ];

    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstTouch => "first-touch",
            Self::FirstTouchWarm => "first-touch-warm",
            Self::RandomMixed => "random-mixed",
            Self::Burst => "burst",
            Self::Larson => "larson",
            Self::ProducerConsumer => "producer-consumer",
        }
    }

    /// The parameters of a full run.
    pub fn defaults(self) -> Params {
        let (min, max, slots, ops) = match self {
            Self::FirstTouch | Self::FirstTouchWarm => (64, 128 << 10, 1, 1),
            Self::RandomMixed => (16, 1024, 8192, 20_000_000),
            Self::Burst => (64, 64, 1024, 20_000_000),
            Self::Larson => (1, 1000, 100, 20_000_000),
            Self::ProducerConsumer => (64, 64, 1024, 10_000_000),
        };
        Params {
            ops,
            sizes: Sizes::new(min, max).expect("the ranges above hold neither 0 nor a huge size"),
            slots,
            bytes: 512 << 20,
            threads: 1,
            rounds: 10_000,
            seed: 42,
            cpus: Vec::new(),
        }
    }

    /// The most bytes of blocks that a run with `params` holds at once.
    pub fn footprint(self, params: &Params) -> usize {
        match self {
            Self::FirstTouch | Self::FirstTouchWarm => params.bytes,
            Self::RandomMixed | Self::Burst | Self::ProducerConsumer => {
                params.slots.saturating_mul(params.sizes.max())
            }
            Self::Larson => params
                .slots
                .saturating_mul(params.sizes.max())
                .saturating_mul(params.threads),
        }
    }

    /// Runs the workload on `a`, having it prove its memory before and after the measured part.
    ///
    /// # Errors
    /// Fails if a proof fails, memory runs out, or `params` cannot be carried out.
    pub fn run<A: Contender>(self, a: &A, params: &Params) -> Result<Outcome, Error> {
        params.check()?;
        params.pin(0)?;
        proof::prove(a)?;
        let outcome = match self {
            Self::FirstTouch => first_touch::run(a, params, false),
            Self::FirstTouchWarm => first_touch::run(a, params, true),
            Self::RandomMixed => random_mixed::run(a, params),
            Self::Burst => burst::run(a, params),
            Self::Larson => larson::run(a, params),
            Self::ProducerConsumer => producer_consumer::run(a, params),
        }?;
        proof::prove(a)?;
        Ok(outcome)
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
