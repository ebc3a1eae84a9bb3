//! The probe that every run must pass before its figures count.

use std::ptr::NonNull;
use std::thread;
use std::time::Duration;

use super::Block;
use crate::contender::Contender;
use crate::error::Error;

/// Sizes of the probe's small blocks in bytes.
const SMALL: [usize; 4] = [1, 64, 200, 1024];

/// Sizes of the probe's large blocks in bytes. No thread cache keeps such blocks: glibc counts a
/// block in its thread cache as in use, so only these must show in the count. The whole probe stays
/// below 200 KiB, so that it prepares next to nothing for the measured part.
const COUNTED: [usize; 2] = [5_000, 40_000];

/// Blocks of each size.
const EACH: usize = 4;

/// Probes that may fail before the failure counts: a thread that has been joined may still be about
/// to return what the C library cached for it, which lowers a count in the middle of a probe.
const TRIES: usize = 10;

/// Allocates a few blocks from `a`, has `a` prove every one of them, and frees them again.
///
/// # Errors
/// Fails if a block is not `a`'s or memory runs out.
pub(crate) fn prove<A: Contender>(a: &A) -> Result<(), Error> {
    let mut result = probe(a);
    for _ in 1..TRIES {
        if result.is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(1));
        result = probe(a);
    }
    result
}

fn probe<A: Contender>(a: &A) -> Result<(), Error> {
    let mut blocks = Vec::with_capacity(EACH * (SMALL.len() + COUNTED.len()));
    let before = a.bytes_counted();
    for size in SMALL.into_iter().chain(COUNTED) {
        for mark in 0..EACH {
            blocks.push(Block::take(a, size, mark as u8)?);
        }
    }
    let after = a.bytes_counted();
    let counted = before
        .zip(after)
        .map_or(Ok(()), |(before, after)| rose::<A>(before, after));
    let proved = counted.and_then(|()| blocks.iter().try_for_each(|block| block.prove(a)));
    blocks.into_iter().for_each(|block| block.give(a));
    proved
}

/// Fails unless the count rose by what the probe allocated.
fn rose<A: Contender>(before: u64, after: u64) -> Result<(), Error> {
    let expected = (EACH * COUNTED.iter().sum::<usize>()) as u64;
    let rise = after.saturating_sub(before);
    if rise >= expected {
        return Ok(());
    }
    Err(Error::Foreign {
        allocator: A::NAME,
        found: format!(
            "its count of bytes rose by {rise} while at least {expected} were allocated"
        ),
    })
}

/// Fails unless `a` is the global allocator of this process's Rust code.
pub(crate) fn prove_global<A: Contender>(a: &A) -> Result<(), Error> {
    let block = vec![1u8; 5_000];
    if a.owns(NonNull::from(&block[0]), block.len()) {
        return Ok(());
    }
    Err(Error::Foreign {
        allocator: A::NAME,
        found: "it is not the global allocator of this program".into(),
    })
}
