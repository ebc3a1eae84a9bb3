//! The memory that the kernel has for the heap of this process.

use crate::pool::Arena;
use crate::stats::Resident;
use theap_platform::Error;

/// Asks the kernel about every mapping of the process.
///
/// # Errors
/// [`Error::NoMemory`] while the heap is sealed, else the system's error.
pub fn ask(arena: &Arena) -> Result<Resident, Error> {
    if arena.policy().refuses() {
        return Err(Error::NoMemory);
    }
    let mut resident = Resident::default();
    let extent = arena.figures().extent();
    arena.os().each_mapping(&mut |mapping| {
        let outside = arena.runs().outside();
        let outside = outside.bytes_between(mapping.start, mapping.end);
        resident.add(&extent, mapping, outside);
    })?;
    Ok(resident)
}
