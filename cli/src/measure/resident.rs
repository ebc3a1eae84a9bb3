//! The resident memory of a child over time. This program samples it from outside, so neither the
//! measured thread nor its process does anything for it. The kernel serves `/proc/PID/status`
//! without the lock that page faults take.

use std::io;
use std::process::{Child, Output};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use procfs::process::Process;
use serde::Serialize;

/// The time between two samples.
const PERIOD: Duration = Duration::from_millis(10);

/// Samples: milliseconds since the process was started, and its resident bytes then, hugetlb pages
/// included.
#[derive(Clone, Default, Serialize)]
pub struct Resident {
    pub memory: Vec<(f64, u64)>,
}

/// Waits for the child as [`Child::wait_with_output`] does, and samples its memory meanwhile.
pub fn sample(child: Child) -> (io::Result<Output>, Resident) {
    let start = Instant::now();
    let process = Process::new(child.id() as i32);
    let (ended, end) = channel();
    thread::spawn(move || ended.send(child.wait_with_output()));
    let mut memory = Resident::default();
    loop {
        match end.recv_timeout(PERIOD) {
            Ok(output) => return (output, memory),
            Err(RecvTimeoutError::Timeout) => {
                let bytes = process.as_ref().ok().and_then(resident);
                let time = start.elapsed().as_secs_f64() * 1e3;
                memory.memory.extend(bytes.map(|bytes| (time, bytes)));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let lost = io::Error::other("the thread that waited for the child is gone");
                return (Err(lost), memory);
            }
        }
    }
}

/// The resident bytes of a process; nothing once it has ended.
fn resident(process: &Process) -> Option<u64> {
    let status = process.status().ok()?;
    let kib = status.vmrss? + status.hugetlbpages.unwrap_or(0);
    Some(kib * 1024)
}
