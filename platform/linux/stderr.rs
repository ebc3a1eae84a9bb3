//! Standard error: writing to descriptor 2, and whether the program still has there what it had at
//! start.
//!
//! A daemon closes its descriptors, and the next file that it opens, perhaps a data file, may get
//! the number 2. A message would then end up inside of the data. So the process notes once, early,
//! which file descriptor 2 refers to, and a message that can be left out is written only while the
//! descriptor refers to the same file. The comparison is one `fstat`, at the time of the message.

#![allow(unsafe_code)] // Names descriptor 2, which the program may have closed.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::io::Errno;

/// [`FILE`] is empty.
const UNKNOWN: u32 = 0;
/// A thread is writing [`FILE`].
const WRITING: u32 = 1;
/// [`FILE`] is written for good: the file is known.
const OPEN: u32 = 2;
/// Descriptor 2 was closed: it refers to no file that anybody could write messages to.
const CLOSED: u32 = 3;

/// What is known of the file. The thread that moves it from [`UNKNOWN`] to [`WRITING`] writes
/// [`FILE`].
static STATE: AtomicU32 = AtomicU32::new(UNKNOWN);
/// The file's device, inode and, if it is a device itself, number.
static FILE: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// The file to which descriptor 2 refers now; `None` if the descriptor is closed.
fn file() -> Option<[u64; 3]> {
    let stat = rustix::fs::fstat(descriptor()).ok()?;
    Some([stat.st_dev, stat.st_ino, stat.st_rdev])
}

fn descriptor() -> rustix::fd::BorrowedFd<'static> {
    // Another crate of the program may turn rustix's `std` on, which makes the function safe.
    #[allow(unused_unsafe)]
    // SAFETY: the descriptor is only written to and asked for its file; if the program has closed
    // it, those calls fail.
    unsafe {
        rustix::stdio::stderr()
    }
}

/// See [`crate::Os::note_stderr`].
pub fn note() {
    if STATE
        .compare_exchange(UNKNOWN, WRITING, Ordering::Relaxed, Ordering::Relaxed)
        .is_err()
    {
        return;
    }
    let state = match file() {
        Some(file) => {
            for (place, number) in FILE.iter().zip(file) {
                place.store(number, Ordering::Relaxed);
            }
            OPEN
        }
        None => CLOSED,
    };
    STATE.store(state, Ordering::Release);
}

/// Whether descriptor 2 refers to the file that [`note`] found there.
fn is_as_noted() -> bool {
    note();
    STATE.load(Ordering::Acquire) == OPEN
        && file() == Some([0, 1, 2].map(|i: usize| FILE[i].load(Ordering::Relaxed)))
}

/// See [`crate::Os::remark`].
pub fn remark(bytes: &[u8]) {
    if is_as_noted() {
        write(bytes);
    }
}

/// See [`crate::Os::stderr`].
pub fn write(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(descriptor(), bytes) {
            Ok(0) => return,
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
