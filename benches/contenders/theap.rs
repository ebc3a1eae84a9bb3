//! Rows on theap.

use std::process::ExitCode;

use theap::Theap;

#[global_allocator]
static GLOBAL: Theap = Theap::new();

fn main() -> ExitCode {
    theap_bench::answer(&GLOBAL)
}
