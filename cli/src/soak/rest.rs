//! The threads of a life that rest. Each allocates a burst, frees most of it, gives some blocks to
//! the threads that work, which free them, and keeps some whose contents it checks at the end. It
//! rests as long as the others work, so that the heap may take from it what it does not use. Then
//! it works again for a moment, as somebody who comes back.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Chance;
use super::life::{Report, Shared, ThreadLife};

/// The most blocks of a burst.
const BURST: usize = 3000;
/// Operations of a thread that has rested.
const AGAIN: usize = 2000;

/// What resting threads wait for.
#[derive(Default)]
pub struct Rest {
    /// The number of threads that rest, and whether the rest is over.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Rest {
    fn state(&self) -> MutexGuard<'_, (usize, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many threads rest.
    pub fn await_resting(&self, threads: usize) {
        let resting = |state: &mut (usize, bool)| state.0 < threads;
        drop(self.changed.wait_while(self.state(), resting));
    }

    fn rest(&self) {
        let mut state = self.state();
        state.0 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(_, over)| !*over));
    }
}

/// Ends the rest when it is dropped, so that no thread rests for ever after a panic.
pub struct Waker<'a>(pub &'a Rest);

impl Drop for Waker<'_> {
    fn drop(&mut self) {
        self.0.state().1 = true;
        self.0.changed.notify_all();
    }
}

/// Lives as a thread that rests.
pub fn live(shared: &Shared, rest: &Rest, seed: u64) -> Report {
    let mut life = ThreadLife::new(shared, Chance(seed));
    burst(&mut life);
    rest.rest();
    for block in &life.blocks {
        block.check();
    }
    for _ in 0..life.chance.below(AGAIN) {
        life.report.operations += 1;
        life.operation();
    }
    life.report.resting = 1;
    life.end()
}

/// Allocates, frees most of it, gives some to others and keeps the rest.
fn burst(life: &mut ThreadLife<'_>) {
    for _ in 0..life.chance.below(BURST) {
        life.report.operations += 1;
        life.allocate();
    }
    let kept = life.blocks.len() / 8;
    while life.blocks.len() > kept {
        life.report.operations += 1;
        match life.chance.below(8) {
            0 => life.give(),
            _ => life.free(),
        }
    }
}
