//! Larson's server: every thread has `slots` chunks and replaces random ones; after `rounds` times
//! `slots` replacements it hands all of them to a new thread and exits, so blocks are freed by
//! threads that did not allocate them, and threads come and go. The main thread makes the first
//! chunks. A run ends after a fixed number of operations, not of seconds: every contender does
//! the same work.

use std::sync::{Barrier, Mutex, PoisonError};
use std::thread::{self, Scope};

use crate::block::Block;
use crate::meter::Meter;
use crate::tape::Tape;
use crate::{Contender, Error, Outcome, Params};

/// What one thread hands to the next.
struct Lane<A> {
    chunks: Vec<Option<Block<A>>>,
    /// Replacements done: the position on the tape.
    done: u64,
    /// Which of the threads at once this is.
    nth: usize,
}

/// What all threads share.
struct Server<'a, A> {
    a: &'a A,
    params: &'a Params,
    tape: Tape,
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
        tape: Tape::new(params),
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
        let chunks = lane?.chunks;
        chunks
            .iter()
            .flatten()
            .try_for_each(|chunk| chunk.prove(a))?;
        chunks.into_iter().flatten().for_each(|chunk| chunk.give(a));
    }
    Ok(outcome)
}

impl<A: Contender> Server<'_, A> {
    /// A lane with its first chunks. Lanes start at different places of the tape.
    fn lane(&self, nth: usize) -> Result<Lane<A>, Error> {
        let from = nth as u64 * 7919;
        let chunks = self
            .tape
            .steps(from, self.params.slots as u64)
            .map(|step| Block::take(self.a, step.size as usize, 1).map(Some))
            .collect::<Result<_, _>>()?;
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
        if let Err(error) = self.replace(&mut lane, count) {
            return self.end(Err(error));
        }
        lane.done += count;
        if lane.done == self.goal {
            self.end(Ok(lane));
        } else {
            scope.spawn(move || self.serve(scope, lane));
        }
    }

    #[inline(never)]
    fn replace(&self, lane: &mut Lane<A>, count: u64) -> Result<(), Error> {
        let from = lane.done + lane.nth as u64 * 7919;
        for step in self.tape.steps(from, count) {
            // Freed before the new one is made, as in the original, which may so get it back.
            let chunk = &mut lane.chunks[step.slot as usize];
            if let Some(old) = chunk.take() {
                old.give(self.a);
            }
            *chunk = Some(Block::take(self.a, step.size as usize, 1)?);
        }
        Ok(())
    }

    fn end(&self, result: Result<Lane<A>, Error>) {
        self.ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(result);
    }
}
