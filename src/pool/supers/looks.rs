//! The words of bitmaps that this thread has looked at, for tests of how far a search goes.

use core::cell::Cell;

std::thread_local! {
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

/// Counts a word.
pub fn count() {
    LOOKS.set(LOOKS.get() + 1);
}

/// The words since the last call.
pub fn take() -> usize {
    LOOKS.replace(0)
}
