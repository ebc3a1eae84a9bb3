//! Threads that do the same at the same time, for the time of a budget, each on a CPU that its number chooses, so that no
//! contender is luckier than another with the scheduler.

use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::Instant;

use super::super::{Budget, throughput};
use crate::{Error, Metric};

/// Has one thread for each of the `inputs` make its state, take a turn that does not count, and then turn after turn
/// until the time is over, at least one. When all have stopped, each thread ends its state. `turn` says how many operations it did,
/// and must not wait for another thread for long: that one may have stopped.
pub(super) fn crew<I: Send, S>(
    budget: Budget,
    inputs: Vec<I>,
    make: impl Fn(I) -> Result<S, Error> + Sync,
    turn: impl Fn(&mut S) -> Result<u64, Error> + Sync,
    end: impl Fn(S) -> Result<(), Error> + Sync,
) -> Result<Vec<Metric>, Error> {
    let gate = Barrier::new(inputs.len() + 1);
    let deadline = OnceLock::new();
    let member = |nth: usize, input: I| {
        // Whoever fails still meets the others at the gate.
        let ready = pin(nth)
            .and_then(|()| make(input))
            .and_then(|mut state| turn(&mut state).map(|_| state));
        gate.wait(); // Everybody is ready;
        gate.wait(); // the clock runs.
        let deadline = *deadline.get().expect("set between the two waits");
        let done = ready.and_then(|mut state| Ok((turns(&mut state, deadline, &turn)?, state)));
        gate.wait(); // Everybody has stopped.
        let (ops, state) = done?;
        end(state)?;
        Ok::<_, Error>(ops)
    };
    thread::scope(|scope| {
        let member = &member;
        let threads: Vec<_> = inputs
            .into_iter()
            .enumerate()
            .map(|(nth, input)| scope.spawn(move || member(nth, input)))
            .collect();
        gate.wait();
        let start = Instant::now();
        deadline.get_or_init(|| start + budget.0);
        gate.wait();
        gate.wait();
        let wall = start.elapsed();
        let mut ops = 0;
        for thread in threads {
            ops += thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(vec![throughput(ops, wall)])
    })
}

/// Keeps the calling thread, and those that it starts, on one CPU: the next for each `nth`, and again from the first.
pub(super) fn pin(nth: usize) -> Result<(), Error> {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let cpu = cpus.get(nth % cpus.len().max(1));
    match cpu {
        Some(&cpu) if core_affinity::set_for_current(cpu) => Ok(()),
        _ => Err(Error::Setup(format!("cannot keep thread {nth} on one CPU"))),
    }
}

fn turns<S>(
    state: &mut S,
    deadline: Instant,
    turn: impl Fn(&mut S) -> Result<u64, Error>,
) -> Result<u64, Error> {
    let mut ops = turn(state)?;
    while Instant::now() < deadline {
        ops += turn(state)?;
    }
    Ok(ops)
}
