//! A service that must answer without delays: `cargo run --release --example pinned_service`.
//!
//! It takes five steps: make theap the global allocator, pin the thread, have the memory ready
//! before the first request, forbid the allocator every system call from then on, and have the code
//! that must not allocate promise that it does not. The rest of the program measures that the steps
//! helped.

use std::collections::VecDeque;
use std::error::Error;
use std::time::Instant;

use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use theap::{Breach, Config, Contract, Pages, Theap};

// 1. theap takes hugepages of the host's pool if there are any, else transparent hugepages, else
//    pages of 4 KiB.
#[global_allocator]
static HEAP: Theap = Theap::with(Config::new().pages(Pages::Auto));

/// Bytes to have ready: more than the service ever holds at once.
const MEMORY: usize = 128 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    // 2. The thread stays on one CPU: after a move it would miss in all of that CPU's caches.
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let cpu = cpus.last().ok_or("no CPU is allowed")?;
    core_affinity::set_for_current(*cpu);

    // 3. theap faults this much memory in now, so that its first use takes no page fault later.
    theap::warm_up(MEMORY)?;

    let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    let mut service = Service::default();
    service.run(20_000, &mut times); // a rehearsal, which also faults in the code and the stack
    times.reset();

    // 4. From here on theap refuses a request for memory that is not ready, and never waits for the
    //    kernel.
    theap::seal();

    let before = getrusage(UsageWho::RUSAGE_THREAD)?;
    let hot = theap::hot(Contract::NoSlowPath, Breach::Count);
    service.run(200_000, &mut times);
    let after = getrusage(UsageWho::RUSAGE_THREAD)?;
    let slow = hot.breaches();
    drop(hot);
    theap::unseal();

    for quantile in [0.5, 0.99, 0.999, 0.9999, 1.0] {
        let nanos = times.value_at_quantile(quantile);
        println!("{:>6} % within {nanos} ns", quantile * 100.0);
    }
    println!("allocations and frees that left the hit path: {slow} of 800000");
    let preempted = after.involuntary_context_switches() - before.involuntary_context_switches();
    println!("involuntary context switches: {preempted}");
    let faults = after.minor_page_faults() - before.minor_page_faults();
    assert_eq!(faults, 0, "page faults of the service thread");
    assert_eq!(theap::stats().refusals, 0, "warm up more");
    Ok(())
}

/// Answers requests and remembers the last ten thousand.
#[derive(Default)]
struct Service {
    recent: VecDeque<(String, Vec<u8>)>,
    sum: u64,
}

impl Service {
    fn run(&mut self, requests: usize, times: &mut Histogram<u64>) {
        for number in 0..requests {
            let start = Instant::now();
            self.serve(number);
            times.saturating_record(start.elapsed().as_nanos() as u64);
        }
    }

    fn serve(&mut self, number: usize) {
        let name = format!("request {number}");
        let body = vec![number as u8; 64 + number % 4000];

        // 5. An allocation in this scope would end the process, with the stack that it came from.
        let hot = theap::hot(Contract::NoAllocation, Breach::Abort);
        self.sum = checksum(self.sum, &body);
        drop(hot);

        self.recent.push_back((name, body));
        if self.recent.len() > 10_000 {
            self.recent.pop_front();
        }
    }
}

fn checksum(sum: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(sum, |sum, &byte| sum.rotate_left(5) ^ u64::from(byte))
}
