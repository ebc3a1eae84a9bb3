//! Rows on the allocator that does nothing.

use std::process::ExitCode;

use theap_bench::Null;

static NULL: Null = Null::new();

fn main() -> ExitCode {
    theap_bench::answer(&NULL)
}
