//! Child processes that are measured: a workload in a process of its own ([`child`]), a command
//! under ptrace ([`ptrace`]), and the proof of whose `malloc` a program calls ([`loader`]).

pub mod child;
pub mod loader;
pub mod progress;
pub mod ptrace;
mod resident;

pub use resident::Resident;
