//! Larson's server: every thread has `slots` chunks and replaces random ones; after `rounds` times
//! `slots` replacements it hands all of them to a new thread and exits, so blocks are freed by
//! threads that did not allocate them, and threads come and go. The main thread makes the first
//! chunks. A run ends after a fixed number of operations, not of seconds: every contender does the
//! same work. In the row of that name the clock ends the run, and a thread is started by the thread
//! that waits for it (`row/threads.rs`).

use std::sync::{Barrier, Mutex, PoisonError};
use std::thread::{self, Scope};

use super::{Outcome, Params};
use crate::block::{Slot, empty_slots, free_proved};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::Meter;
use crate::pattern::burst::fill;
use crate::pattern::turnover::replace;
use crate::steps::{Steps, first_of_thread};

/// The chunks that one thread hands to the next, with the place where they are in the work.
struct Lane<A> {
    chunks: Vec<Slot<A>>,
    /// Replacements done so far.
    done: u64,
    /// The number of the lane among those that run at once.
    nth: usize,
}

/// The state that all threads share.
struct Server<'a, A> {
    a: &'a A,
    params: &'a Params,
    steps: Steps,
    /// Replacements that each lane does.
    goal: u64,
    start: Barrier,
    ended: Mutex<Vec<Result<Lane<A>, Error>>>,
}

pub(super) fn run<A: Contender>(a: &A, params: &Params) -> Result<Outcome, Error> {
    let threads = params.threads as u64;
    let server = Server {
        a,
        params,
        steps: Steps::new(params.seed, params.slots, params.sizes),
        goal: params.ops.div_ceil(2 * threads),
        start: Barrier::new(params.threads + 1),
        ended: Mutex::new(Vec::with_capacity(params.threads)),
    };
    let lanes = (0..params.threads)
        .map(|nth| server.lane(nth))
        .collect::<Result<Vec<_>, _>>()?;

    let mut meter = None;
    thread::scope(|scope| {
        for lane in lanes {
            let server = &server;
            scope.spawn(move || {
                let pinned = server.params.pin(lane.nth);
                server.start.wait();
                match pinned {
                    Ok(()) => server.serve(scope, lane),
                    Err(error) => server.end(Err(error)),
                }
            });
        }
        server.start.wait();
        meter = Some(Meter::start());
    });
    let reading = meter.expect("the scope above ran").stop();

    let outcome = Outcome::new(2 * server.goal * threads, reading)?;
    for lane in server
        .ended
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        free_proved(a, lane?.chunks)?;
    }
    Ok(outcome)
}

impl<A: Contender> Server<'_, A> {
    /// A lane with its first chunks. Each lane starts at a step of its own.
    fn lane(&self, nth: usize) -> Result<Lane<A>, Error> {
        let from = first_of_thread(nth) as u64;
        let count = self.params.slots;
        let mut chunks = empty_slots(count);
        fill(
            self.a,
            self.steps.iter_from(from, count as u64),
            &mut chunks,
        )?;
        Ok(Lane {
            chunks,
            done: 0,
            nth,
        })
    }

    /// One thread's life, and the start of its successor's.
    fn serve<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, mut lane: Lane<A>) {
        let life = self.params.rounds.saturating_mul(self.params.slots as u64);
        let count = life.min(self.goal - lane.done);
        let from = lane.done + first_of_thread(lane.nth) as u64;
        let steps = self.steps.iter_from(from, count);
        if let Err(error) = replace(self.a, steps, &mut lane.chunks) {
            return self.end(Err(error));
        }
        lane.done += count;
        if lane.done == self.goal {
            self.end(Ok(lane));
        } else {
            scope.spawn(move || self.serve(scope, lane));
        }
    }

    /// Keeps the result of a lane whose work is done or has failed.
    fn end(&self, result: Result<Lane<A>, Error>) {
        self.ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(result);
    }
}
