//! The crash reporter: on SIGSEGV, SIGBUS and SIGABRT one line that says what the address is to the heap.
//!
//! It runs in the signal's handler, on whatever state the heap is in: it reads tables that are always mapped, takes no
//! lock, allocates nothing, and writes one line. If the tables are so broken that reading them faults, the process
//! ends as it would have without.

use crate::classes::CLASSES;
use crate::heap::ownership::{FIRST_HEAP, FREE, NOBODY, POOL, RUN};
use crate::pool::describe::{Block, Part};
use crate::{fatal, front};
use theap_platform::crash::{self, Crash};
use theap_platform::{Error, Line, Os};

type Text = Line<512>;

/// From now on the first SIGSEGV, SIGBUS or SIGABRT of the process is reported in one line on stderr; then what handled
/// the signal before does. As the option `crash_report`, but after the program's own handlers are there. A handler that
/// is set later replaces this one.
///
/// # Errors
/// What the system answered when it refused.
pub fn report_crashes() -> Result<(), Error> {
    crash::install(report)
}

fn report(crash: Crash) {
    let (name, address) = match crash {
        Crash::Segv(address) => ("SIGSEGV", address),
        Crash::Bus(address) => ("SIGBUS", address),
        Crash::Abort => ("SIGABRT", fatal::misused()),
    };
    let line = Text::sized().str("theap: ").str(name);
    match (address, crash) {
        (Some(address), _) => describe(line.str(" at ").hex(address as u64).str(": "), address),
        (None, Crash::Abort) => line.str(", not for a wrong free that the heap noticed"),
        (None, _) => line.str(", sent by a process or at an address that is none"),
    }
    .send(Os::LINUX);
}

fn describe(line: Text, address: usize) -> Text {
    let found = front::existing_arena().and_then(|arena| arena.describe(address));
    let Some(place) = found else {
        return line.str("not in the heap");
    };
    let line = line
        .str("in the heap, node ")
        .dec(place.node as u64)
        .str(", pages ")
        .str(place.pages)
        .str(", slot ")
        .str(place.state);
    match place.part {
        Part::Nothing => line.str("; no block: never used, or freed and given back"),
        Part::Rest => line.str("; behind the last block of a span"),
        Part::Run(None) => line.str("; far inside a huge run"),
        Part::Run(Some(start)) => at(line.str("; a run"), start, address),
        Part::Block(block) => describe_block(line, &block, address),
    }
}

fn at(line: Text, start: usize, address: usize) -> Text {
    line.str(" at ")
        .hex(start as u64)
        .str(" + ")
        .dec((address - start) as u64)
}

fn describe_block(line: Text, block: &Block, address: usize) -> Text {
    let line = line
        .str("; block of ")
        .dec(u64::from(CLASSES[block.class].size))
        .str(" bytes");
    let line = at(line, block.start, address);
    let cached = front::cached_by(block.class, block.start);
    let line = match (block.free, block.remote, cached) {
        (true, ..) => line.str(", free"),
        (_, true, _) => line.str(", freed by another thread than its span's"),
        (_, _, Some(heap)) => line.str(", free, cached by heap ").dec(heap as u64),
        _ => line.str(", live"),
    };
    let line = line.str("; span of ");
    match block.owner {
        FREE | RUN => line.str("no known owner"),
        NOBODY => line.str("nobody (full)"),
        POOL => line.str("the pool"),
        heap => line.str("heap ").dec(heap.wrapping_sub(FIRST_HEAP)),
    }
}
