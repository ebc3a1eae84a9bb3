//! A child's memory over time, looked at from outside: nothing of it happens on the measured thread,
//! nor in its process. `/proc/PID/status` is read without the lock that page faults take.

use std::io;
use std::process::{Child, Output};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use procfs::process::Process;
use serde::Serialize;

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(10);

/// Resident bytes, hugetlb pages included, after so many milliseconds of the process.
#[derive(Clone, Default, Serialize)]
pub struct Memory {
    pub memory: Vec<(f64, u64)>,
}

/// Waits for the child as [`Child::wait_with_output`] does, and looks at its memory meanwhile.
pub fn watch(child: Child) -> (io::Result<Output>, Memory) {
    let start = Instant::now();
    let process = Process::new(child.id() as i32);
    let (ended, end) = channel();
    thread::spawn(move || ended.send(child.wait_with_output()));
    let mut memory = Memory::default();
    loop {
        match end.recv_timeout(PERIOD) {
            Ok(output) => return (output, memory),
            Err(RecvTimeoutError::Timeout) => {
                let bytes = process.as_ref().ok().and_then(resident);
                let time = start.elapsed().as_secs_f64() * 1e3;
                memory.memory.extend(bytes.map(|bytes| (time, bytes)));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let lost = io::Error::other("the thread that waited for it is gone");
                return (Err(lost), memory);
            }
        }
    }
}

/// Nothing once the process has ended.
fn resident(process: &Process) -> Option<u64> {
    let status = process.status().ok()?;
    let kib = status.vmrss? + status.hugetlbpages.unwrap_or(0);
    Some(kib * 1024)
}
