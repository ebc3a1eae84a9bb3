//! The probe that every run must pass before its figures count.

use std::ptr::NonNull;

use crate::block::Block;
use crate::{Contender, Error};

/// Small blocks of the probe, in bytes.
const SMALL: [usize; 4] = [1, 64, 200, 1024];

/// Blocks of the probe that no thread cache keeps, in bytes: glibc counts a block in its thread
/// cache as in use, so only these must show in the count. Together the probe stays below 200 KiB,
/// so that it prepares nothing worth mentioning for the measured part.
const COUNTED: [usize; 2] = [5_000, 40_000];

/// Blocks of each size.
const EACH: usize = 4;

/// Allocates a probe from `a`, has every block proved, and frees it again.
pub(crate) fn prove<A: Contender>(a: &A) -> Result<(), Error> {
    let mut blocks = Vec::with_capacity(EACH * (SMALL.len() + COUNTED.len()));
    let before = a.bytes_counted();
    for size in SMALL.into_iter().chain(COUNTED) {
        for mark in 0..EACH {
            blocks.push(Block::take(a, size, mark as u8)?);
        }
    }
    let after = a.bytes_counted();
    if let (Some(before), Some(after)) = (before, after) {
        let expected = (EACH * COUNTED.iter().sum::<usize>()) as u64;
        let rise = after.saturating_sub(before);
        if rise < expected {
            let found = format!(
                "its count of bytes rose by {rise} while at least {expected} were allocated"
            );
            return Err(Error::Foreign {
                allocator: A::NAME,
                found,
            });
        }
    }
    for block in &blocks {
        block.prove(a)?;
    }
    for block in blocks {
        block.give(a);
    }
    Ok(())
}

/// Fails unless what this process's Rust code allocates comes from `a`.
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
