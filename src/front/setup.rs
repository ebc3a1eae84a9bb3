//! The setup that every entry point passes down, in case its call is the first one of the process.

use super::cache::CACHE_BYTES;
use super::foreign::Elsewhere;
use crate::config::Config;
use crate::pool::{Arena, global};

/// The options of the arena, and what is to be done once it exists. The hit paths only pass the
/// pointer on.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The options; the environment's come on top.
    pub config: Config,
    /// Called before the process's arena is made, by each thread that finds none: registers the
    /// handlers around fork, as a fork must not come in the middle of that. The function may
    /// allocate.
    pub starting: fn(),
    /// Called once by the thread that has made the process's arena. The thread has no cache yet and
    /// holds no lock; the function may allocate.
    pub started: fn(&'static Arena),
    /// The other allocator of the process, if blocks that it knows are to be handed over to it.
    pub elsewhere: fn() -> Option<&'static Elsewhere>,
}

/// Makes the process's arena, if there is none.
pub fn start(setup: &Setup) {
    let _ = arena(setup);
}

/// The process's arena, made now if this is the first use. `None` if the system refuses; the next
/// call tries again.
pub fn arena(setup: &Setup) -> Option<&'static Arena> {
    if global::existing_arena().is_none() {
        (setup.starting)();
    }
    let (arena, is_new) = global::arena(&setup.config, CACHE_BYTES)?;
    if is_new {
        (setup.started)(arena);
    }
    Some(arena)
}
