//! The crash report: on SIGSEGV, SIGBUS and SIGABRT theap writes one line that says what the
//! address is to the heap.
//!
//! The report is made in the signal's handler, whatever state the heap is in. It reads tables that
//! are always mapped, takes no lock, allocates nothing, and writes one line, which is filled in
//! place: a thread's signal stack may have no more than 8 KiB. If the tables are so broken that
//! reading them faults, the process ends as it would have without the report.
#![allow(unsafe_code)] // Installs a signal handler.

use crate::classes::CLASSES;
use crate::pool::describe::{Block, Part};
use crate::pool::global::existing_arena;
use crate::pool::metadata::ownership::{FIRST_HEAP, FREE, NOBODY, POOL, RUN};
use crate::{front, messages};
use core::fmt::{self, Write};
use theap_platform::crash::{self, Crash};
use theap_platform::{Error, Line, Os};

type Text = Line<512>;

/// From now on theap reports the first SIGSEGV, SIGBUS or SIGABRT of the process in one line on
/// stderr, and then calls the handler that the signal had before. This does what the option
/// `crash_report` does, but a program can call it after it has set its own handlers. A handler that
/// the program sets later replaces theap's.
///
/// # Errors
/// The system's error if it refuses to set a handler.
pub fn report_crashes() -> Result<(), Error> {
    // SAFETY: `report` runs on the signal's stack, takes no lock, and allocates nothing.
    unsafe { crash::install(report) }
}

/// Writes the report.
fn report(crash: Crash) {
    let mut line = Text::sized();
    // A line takes everything, and cuts off what is too much.
    let _ = fill(&mut line, crash);
    line.send(Os::LINUX);
}

/// Fills in the report's line.
fn fill(line: &mut Text, crash: Crash) -> fmt::Result {
    let (name, address) = match crash {
        Crash::Segv(address) => ("SIGSEGV", address),
        Crash::Bus(address) => ("SIGBUS", address),
        Crash::Abort => ("SIGABRT", messages::misused()),
    };
    write!(line, "theap: {name}")?;
    match (address, crash) {
        (Some(address), _) => {
            write!(line, " at {address:#x}: ")?;
            describe(line, address)
        }
        (None, Crash::Abort) => {
            line.write_str(": the program called abort(); the heap had found no misuse")
        }
        (None, _) => line.write_str(
            ": no address is known; a process sent the signal, or the address was not canonical",
        ),
    }
}

/// Says what an address is to the heap.
fn describe(line: &mut Text, address: usize) -> fmt::Result {
    let found = existing_arena().and_then(|arena| arena.describe(address));
    let Some(place) = found else {
        return line.write_str("not in the heap");
    };
    let (node, pages, state) = (place.node.0, place.pages, place.state);
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

/// Says what is known of a block.
fn describe_block(line: &mut Text, block: &Block, address: usize) -> fmt::Result {
    let (size, start) = (CLASSES[block.class.index()].size, block.start);
    write!(
        line,
        "; block of {size} bytes at {start:#x} + {}",
        address - start
    )?;
    let cached = front::cached_by(block.class, block.start);
    match (
        block.free || front::is_held_back(block.start),
        block.remote,
        cached,
    ) {
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
