//! A row like the executor of asynchronous tasks: a pool of threads runs tasks that own blocks and
//! move from thread to thread, so that a thread frees what another one allocated.
//!
//! A thread runs the tasks of its own queue in turn, each for a moment. After some moments a task
//! goes on to the next thread, as one that another thread has woken, in batches through a ring
//! without a lock. Queues and rings have room for every task: nothing in the measured part
//! allocates but the tasks.

use std::collections::VecDeque;
use std::thread;

use rtrb::{Consumer, Producer, RingBuffer};

use super::Budget;
use crate::block::{Slot, empty_slots, free_proved};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::Metric;
use crate::pattern::burst::fill;
use crate::pattern::turnover::replace;
use crate::steps::{Circle, Sizes, for_row};

/// Tasks for each thread.
const TASKS: usize = 256;

/// Blocks of a task.
const BLOCKS: usize = 8;

/// Blocks that a task replaces each time that it runs.
const REPLACED: usize = 4;

/// Times that a task runs on a thread before it goes on to the next.
const RUNS: usize = 4;

/// Tasks that go on to the next thread at once.
const BATCH: usize = 16;

/// Tasks that a thread runs before it looks at the clock.
const TURN: usize = 64;

struct Task<'a, A> {
    slots: Vec<Slot<A>>,
    circle: Circle<'a>,
    /// Times that the task has run on its present thread.
    runs: usize,
}

/// A thread of the pool.
struct Worker<'a, A> {
    queue: VecDeque<Task<'a, A>>,
    /// Tasks on their way to the next thread, until they are a batch.
    leaving: Vec<Task<'a, A>>,
    next: Producer<Task<'a, A>>,
    previous: Consumer<Task<'a, A>>,
}

/// Threads that run tasks and hand them on, each to the next.
pub(super) fn pool<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
    sizes: Sizes,
) -> Result<Vec<Metric>, Error> {
    let steps = for_row(BLOCKS, sizes);
    let all = TASKS * threads;
    let (producers, mut consumers): (Vec<_>, Vec<_>) =
        (0..threads).map(|_| RingBuffer::new(all)).unzip();
    consumers.rotate_right(1);
    let ends = producers.into_iter().zip(consumers).enumerate();
    let make = |(nth, (next, previous))| {
        let mut queue = VecDeque::with_capacity(all);
        for task in 0..TASKS {
            queue.push_back(Task::new(a, Circle::of_thread(&steps, TASKS * nth + task))?);
        }
        let leaving = Vec::with_capacity(BATCH);
        Ok(Worker {
            queue,
            leaving,
            next,
            previous,
        })
    };
    budget.crew(
        ends.collect(),
        make,
        |worker| worker.turn(a),
        |worker| worker.end(a),
    )
}

impl<'a, A: Contender> Task<'a, A> {
    fn new(a: &A, mut circle: Circle<'a>) -> Result<Self, Error> {
        let mut slots = empty_slots(BLOCKS);
        // A slice is shorter where the circle closes, and then some slots stay empty at first.
        fill(a, circle.next(BLOCKS).iter(), &mut slots)?;
        Ok(Self {
            slots,
            circle,
            runs: 0,
        })
    }
}

impl<'a, A: Contender> Worker<'a, A> {
    /// Takes in the tasks that have come, and runs some. Yields the CPU if there is none. Tasks
    /// that are no batch yet wait: there are more tasks than all threads together can hold so.
    fn turn(&mut self, a: &A) -> Result<u64, Error> {
        let come = self.previous.slots();
        if let Ok(come) = self.previous.read_chunk(come) {
            self.queue.extend(come);
        }
        let mut ops = 0;
        for _ in 0..TURN {
            let Some(mut task) = self.queue.pop_front() else {
                break;
            };
            let steps = task.circle.next(REPLACED);
            replace(a, steps.iter(), &mut task.slots)?;
            ops += 2 * steps.len() as u64;
            task.runs += 1;
            if task.runs == RUNS {
                task.runs = 0;
                self.leave(task);
            } else {
                self.queue.push_back(task);
            }
        }
        if ops == 0 {
            thread::yield_now();
        }
        Ok(ops)
    }

    fn leave(&mut self, task: Task<'a, A>) {
        self.leaving.push(task);
        if self.leaving.len() == BATCH {
            let room = self.next.write_chunk_uninit(BATCH);
            let room = room.expect("a ring has room for every task");
            room.fill_from_iter(self.leaving.drain(..));
        }
    }

    fn end(mut self, a: &A) -> Result<(), Error> {
        let come = std::iter::from_fn(|| self.previous.pop().ok());
        let mut tasks = self.queue.into_iter().chain(self.leaving).chain(come);
        tasks.try_for_each(|task| free_proved(a, task.slots))
    }
}
