//! Keeps the addresses of tests' arenas apart, as the end of one unmaps all of its own.

use core::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

fn claimed() -> MutexGuard<'static, Vec<Range<usize>>> {
    static CLAIMED: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Claims addresses, unless another arena has some of them.
pub fn claim(range: Range<usize>) -> bool {
    let mut all = claimed();
    let free = (all.iter()).all(|other| other.end <= range.start || range.end <= other.start);
    if free {
        all.push(range);
    }
    free
}

/// Gives up the addresses that begin there.
pub fn release(start: usize) {
    claimed().retain(|range| range.start != start);
}
