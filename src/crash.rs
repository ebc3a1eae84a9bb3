//! The crash reporter: on SIGSEGV, SIGBUS and SIGABRT one line that says what the address is to the heap.
//!
//! It runs in the signal's handler, on whatever state the heap is in: it reads tables that are always mapped, takes no
//! lock, allocates nothing, and writes one line. It makes do with a small stack (a thread's signal stack has 8 KiB): one
//! line is filled in place. If the tables are so broken that reading them faults, the process
//! ends as it would have without.

use crate::classes::CLASSES;
use crate::heap::ownership::{FIRST_HEAP, FREE, NOBODY, POOL, RUN};
use crate::pool::describe::{Block, Part};
use crate::{fatal, front};
use core::fmt::{self, Write};
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
    // SAFETY: `report` runs on the signal's stack, takes no lock, and allocates nothing.
    unsafe { crash::install(report) }
}

fn report(crash: Crash) {
    let mut line = Text::sized();
    // A line takes everything, and cuts off what is too much.
    let _ = fill(&mut line, crash);
    line.send(Os::LINUX);
}

fn fill(line: &mut Text, crash: Crash) -> fmt::Result {
    let (name, address) = match crash {
        Crash::Segv(address) => ("SIGSEGV", address),
        Crash::Bus(address) => ("SIGBUS", address),
        Crash::Abort => ("SIGABRT", fatal::misused()),
    };
    write!(line, "theap: {name}")?;
    match (address, crash) {
        (Some(address), _) => {
            write!(line, " at {address:#x}: ")?;
            describe(line, address)
        }
        (None, Crash::Abort) => line.write_str(", not for a wrong free that the heap noticed"),
        (None, _) => line.write_str(", sent by a process or at an address that is none"),
    }
}

fn describe(line: &mut Text, address: usize) -> fmt::Result {
    let found = front::existing_arena().and_then(|arena| arena.describe(address));
    let Some(place) = found else {
        return line.write_str("not in the heap");
    };
    let (node, pages, state) = (place.node, place.pages, place.state);
    write!(
        line,
        "in the heap, node {node}, pages {pages}, slot {state}"
    )?;
    match place.part {
        Part::Nothing => line.write_str("; no block: never used, or freed and given back"),
        Part::Rest => line.write_str("; behind the last block of a span"),
        Part::Run(None) => line.write_str("; far inside a huge run"),
        Part::Run(Some(start)) => write!(line, "; a run at {start:#x} + {}", address - start),
        Part::Block(block) => describe_block(line, &block, address),
    }
}

/// Whether a block is in a quarantine, or at hand.
fn waits(block: usize) -> bool {
    #[cfg(feature = "hardened")]
    return front::existing_arena()
        .and_then(|arena| Some(!arena.is_live(arena.place(block)?)))
        .unwrap_or(false);
    #[cfg(not(feature = "hardened"))]
    {
        let _ = block;
        false
    }
}

fn describe_block(line: &mut Text, block: &Block, address: usize) -> fmt::Result {
    let (size, start) = (CLASSES[block.class].size, block.start);
    write!(
        line,
        "; block of {size} bytes at {start:#x} + {}",
        address - start
    )?;
    let cached = front::cached_by(block.class, block.start);
    match (block.free || waits(block.start), block.remote, cached) {
        (true, ..) => line.write_str(", free"),
        (_, true, _) => line.write_str(", freed by another thread than its span's"),
        (_, _, Some(heap)) => write!(line, ", free, cached by heap {heap}"),
        _ => line.write_str(", live"),
    }?;
    line.write_str("; span of ")?;
    match block.owner {
        FREE | RUN => line.write_str("no known owner"),
        NOBODY => line.write_str("nobody (full)"),
        POOL => line.write_str("the pool"),
        heap => write!(line, "heap {}", heap.wrapping_sub(FIRST_HEAP)),
    }
}
