//! Threads that do the same work at the same time, for a given time. Each is kept on a CPU that its
//! number chooses, so that no contender is luckier than another with the scheduler.

use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use super::{joined, pin_by_turn};
use crate::error::Error;

/// Starts one thread for each of the `inputs`, and returns the operations of all threads and the
/// time that these took. Each thread
/// 1. makes its state and takes a turn that does not count,
/// 2. waits for the others, and then takes turn after turn until the time `limit` is over, at least
///    one,
/// 3. waits until all have stopped, and ends its state.
///
/// `turn` returns the number of operations that it did. It must not wait for another thread for
/// long: that one may have stopped.
///
/// # Errors
/// Fails if a thread cannot be pinned or any of the three functions fails.
pub(crate) fn crew<I: Send, S>(
    limit: Duration,
    inputs: Vec<I>,
    make: impl Fn(I) -> Result<S, Error> + Sync,
    turn: impl Fn(&mut S) -> Result<u64, Error> + Sync,
    end: impl Fn(S) -> Result<(), Error> + Sync,
) -> Result<(u64, Duration), Error> {
    let gate = Barrier::new(inputs.len() + 1);
    let deadline = OnceLock::new();
    let member = |nth: usize, input: I| {
        // A thread that fails still meets the others at the gate.
        let ready = pin_by_turn(nth)
            .and_then(|()| make(input))
            .and_then(|mut state| turn(&mut state).map(|_| state));
        gate.wait(); // All threads are ready;
        gate.wait(); // the clock runs.
        let deadline = *deadline.get().expect("set between the two waits");
        let done = ready.and_then(|mut state| Ok((turns(&mut state, deadline, &turn)?, state)));
        gate.wait(); // All threads have stopped.
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
        deadline.get_or_init(|| start + limit);
        gate.wait();
        gate.wait();
        let wall = start.elapsed();
        let ops = threads
            .into_iter()
            .map(joined)
            .sum::<Result<u64, Error>>()?;
        Ok((ops, wall))
    })
}

/// Takes turns until the deadline, at least one, and returns their operations.
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
