//! Rows on System: glibc.

use std::alloc::System;
use std::process::ExitCode;

#[global_allocator]
static GLOBAL: System = System;

fn main() -> ExitCode {
    theap_bench::answer(&GLOBAL)
}
