//! Rows on the null allocator, which does nothing but hand out pointers.
#![allow(unsafe_code)] // the null allocator wants one thread

use std::process::ExitCode;

use theap_bench::Null;

// SAFETY: this program's only thread is the main thread: `answer` refuses rows that have others
// (`Contender::ONE_THREAD`).
static NULL: Null = unsafe { Null::new() };

fn main() -> ExitCode {
    theap_bench::answer(&NULL)
}
