//! A pinned thread that serves requests, one every 1/`request_rate` seconds by the schedule.
//!
//! A request allocates 1 to 8 blocks and writes every page of them. Half of the blocks live as long
//! as the request; three tenths replace a random one of the `slots` blocks that live on; a fifth go
//! to a second thread on another CPU, which frees each, allocates one of the same size and hands
//! that back to be freed by the server. So the live set grows until all slots are filled, then
//! stays.
//!
//! The server waits for a request's time on its CPU. The **response** time counts from the
//! scheduled moment: a stall shows in every request that was due meanwhile, not only in the one
//! that it hit (no coordinated omission). The **service** time counts from the moment the server
//! took the request.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::{Outcome, Params, prepare};
use crate::block::{Block, Slot, empty_slots};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::{Idler, Latency, Meter, Reading, ThreadUsage, Tsc};
use crate::steps::Random;
use crate::thread::{joined, wait};

/// Most blocks of a request, and most that a request takes back from the second thread.
const MOST: usize = 8;

/// Blocks that a ring between the threads holds.
const RING: usize = 1024;

/// Requests until the same ones come again.
const REQUESTS: usize = 1 << 15;

/// Blocks of requests until the same ones come again.
const BLOCKS: usize = 1 << 18;

/// Time between the start of both threads and the first request.
const LEAD: Duration = Duration::from_millis(1);

/// The life of a block: as long as its request, until another one takes its slot, or until the
/// second thread frees it.
#[derive(Clone, Copy)]
enum Fate {
    Request,
    Slot(u32),
    HandOver,
}

/// The blocks that requests ask for, chosen before the measured part.
struct Plan {
    /// Blocks of each request.
    counts: Box<[u8]>,
    /// Size in bytes and fate of each block.
    blocks: Box<[(u32, Fate)]>,
}

/// The thread that serves requests.
struct Server<'a, A> {
    a: &'a A,
    /// The blocks that live on.
    live: &'a mut [Slot<A>],
    /// The ring to the second thread.
    out: Producer<Block<A>>,
    /// The ring from the second thread.
    back: &'a mut Consumer<Block<A>>,
    /// Calls of the allocator so far.
    ops: u64,
}

/// The times of all requests, and the faults and switches meanwhile.
struct Times {
    response: Latency,
    service: Latency,
    idle: Latency,
    reading: Reading,
    usage: ThreadUsage,
    ops: u64,
}

/// Bytes of memory of which a part is in use, of both threads together.
const BEGUN: usize = 16 << 20;

/// Bytes of blocks in a full live set and full rings, with a tenth for chance.
pub(super) fn footprint(params: &Params) -> usize {
    let (min, max) = (params.sizes.min() as f64, params.sizes.max() as f64 + 1.0);
    let mean = (max - min) / (max / min).ln();
    let blocks = params.slots.saturating_add(2 * RING + MOST) as f64;
    (1.1 * mean * blocks) as usize
}

pub(super) fn run<A: Contender>(a: &A, params: &Params, warm: bool) -> Result<Outcome, Error> {
    let plan = Plan::new(params);
    let tsc = Tsc::calibrate()?;
    let mut live = empty_slots(params.slots);
    let preparation = if warm {
        // A quarter more covers the classes, and the rest the spans that each thread begins.
        prepare(a, footprint(params) / 4 * 5 + BEGUN)?
    } else {
        None
    };
    let (out, incoming) = RingBuffer::new(RING);
    let (outgoing, mut back) = RingBuffer::new(RING);
    let start = Barrier::new(2);
    let times = thread::scope(|scope| {
        let second = scope.spawn(|| {
            let ready = params.pin(1).and_then(|()| {
                // The thread's own part of the heap comes to be before the measured part.
                Block::take(a, params.sizes.min(), 1).map(|block| block.give(a))
            });
            start.wait();
            ready.and_then(|()| swap_blocks(a, incoming, outgoing))
        });
        let mut server = Server {
            a,
            live: &mut live,
            out,
            back: &mut back,
            ops: 0,
        };
        start.wait();
        let times = server.serve(&plan, tsc, params);
        drop(server); // The second thread ends when nobody can hand it blocks any more.
        joined(second)?;
        times
    })?;

    let outcome = Outcome::new(times.ops, times.reading)?
        .with_latency(times.response)
        .with_latency(times.service)
        .with_latency(times.idle)
        .with_thread(times.usage)
        .with_preparation(preparation);
    let rest = std::iter::from_fn(|| back.pop().ok());
    for block in live.into_iter().flatten().chain(rest) {
        block.prove(a)?;
        block.give(a);
    }
    Ok(outcome)
}

impl Plan {
    fn new(params: &Params) -> Self {
        let mut random = Random::new(params.seed);
        let counts = (0..REQUESTS).map(|_| 1 + random.below(MOST as u64) as u8);
        let counts = counts.collect();
        let block = |_| {
            let fate = match random.below(10) {
                0..5 => Fate::Request,
                5..8 => Fate::Slot(random.below(params.slots as u64) as u32),
                _ => Fate::HandOver,
            };
            (random.log_size(params.sizes), fate)
        };
        let blocks = (0..BLOCKS).map(block).collect();
        Self { counts, blocks }
    }
}

impl<A: Contender> Server<'_, A> {
    #[inline(never)]
    fn serve(&mut self, plan: &Plan, tsc: Tsc, params: &Params) -> Result<Times, Error> {
        let period = tsc.ticks(1e9 / params.request_rate as f64);
        let mut response = Latency::new("response");
        let mut service = Latency::new("service");
        let mut idler = Idler::new(tsc);
        let mut blocks = plan.blocks.iter().cycle();
        let before = ThreadUsage::now();
        let meter = Meter::start();
        let start = tsc.start() + tsc.ticks(LEAD.as_nanos() as f64) as u64;
        for nth in 0..params.requests {
            let due = start + (nth as f64 * period) as u64;
            let began = idler.wait_until(due);
            let count = usize::from(plan.counts[nth as usize % REQUESTS]);
            self.request(blocks.by_ref().take(count))?;
            let end = tsc.stop();
            response.record(tsc.nanos(end.wrapping_sub(due)));
            service.record(tsc.nanos(end.wrapping_sub(began)));
        }
        Ok(Times {
            response,
            service,
            idle: idler.latency(),
            reading: meter.stop(),
            usage: before.until_now(),
            ops: self.ops,
        })
    }

    #[inline(always)]
    fn request<'p>(&mut self, blocks: impl Iterator<Item = &'p (u32, Fate)>) -> Result<(), Error> {
        let mut own = [const { None }; MOST];
        for (place, &(size, fate)) in own.iter_mut().zip(blocks) {
            let mut block = Block::take(self.a, size as usize, 1)?;
            block.touch_pages(1);
            self.ops += 1;
            match fate {
                Fate::Request => *place = Some(block),
                Fate::Slot(slot) => {
                    let old = self.live[slot as usize].replace(block);
                    self.free(old);
                }
                Fate::HandOver => {
                    // A full ring: the second thread does not keep up, and the server must not
                    // wait.
                    if let Err(PushError::Full(block)) = self.out.push(block) {
                        self.free(Some(block));
                    }
                }
            }
        }
        for _ in 0..MOST {
            let Ok(block) = self.back.pop() else { break };
            block.mark();
            self.free(Some(block));
        }
        own.into_iter().for_each(|block| self.free(block));
        Ok(())
    }

    #[inline(always)]
    fn free(&mut self, block: Option<Block<A>>) {
        if let Some(block) = block {
            block.give(self.a);
            self.ops += 1;
        }
    }
}

/// The second thread: frees each block that it gets and hands back one of the same size.
fn swap_blocks<A: Contender>(
    a: &A,
    mut incoming: Consumer<Block<A>>,
    mut outgoing: Producer<Block<A>>,
) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        let Ok(block) = incoming.pop() else {
            // The server may have pushed its last block between the two looks.
            if incoming.is_abandoned() && incoming.is_empty() {
                return Ok(());
            }
            wait(&mut tries);
            continue;
        };
        tries = 0;
        let size = block.size();
        block.mark();
        block.give(a);
        let mut block = Block::take(a, size, 1)?;
        block.touch_pages(1);
        if let Err(PushError::Full(block)) = outgoing.push(block) {
            block.give(a);
        }
    }
}
