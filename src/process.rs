//! The heap's duties in its process besides serving it: handlers around a fork, the report
//! of crashes, memory that is prepared at start, and the last checks at the end.
#![allow(unsafe_code)] // Keeps a reference as a pointer, and names the section of a static.

use crate::config::Config;
use crate::front::{self, Elsewhere, Setup};
use crate::pool::{Arena, global};
use crate::{crash, messages};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use theap_platform::fork;

/// The setup of callers that have no options of their own.
pub static DEFAULT: Setup = Setup {
    config: Config::new(),
    starting: handle_forks,
    started,
    elsewhere,
};

/// The setup with these options. Its callers have no other allocator: each of their blocks is the
/// heap's.
pub const fn setup(config: Config) -> Setup {
    Setup {
        config,
        starting: handle_forks,
        started: started_in_program,
        elsewhere: || None,
    }
}

/// The other allocator of the process, which [`set_elsewhere`] has named; null before.
static ELSEWHERE: AtomicPtr<Elsewhere> = AtomicPtr::new(ptr::null_mut());

/// Names the other allocator of the process.
pub fn set_elsewhere(elsewhere: &'static Elsewhere) {
    ELSEWHERE.store(ptr::from_ref(elsewhere).cast_mut(), Ordering::Release);
}

/// The other allocator of the process, if one was named.
fn elsewhere() -> Option<&'static Elsewhere> {
    // SAFETY: the pointer is null or was made of a `&'static Elsewhere` in `set_elsewhere`.
    unsafe { ELSEWHERE.load(Ordering::Acquire).as_ref() }
}

/// Keeps a library that has this heap for its Rust code loaded, and does what the options ask for.
/// `libtheap.so` is never unloaded as it is.
fn started_in_program(arena: &'static Arena) {
    arena.os().pin_library();
    started(arena);
}

/// Does what the options ask for when the process's arena has come to be. The calling thread holds
/// no lock.
pub fn started(arena: &'static Arena) {
    let config = &arena.policy().config();
    if config.crash_report {
        // A system that refuses leaves the process without reports.
        let _ = crash::report_crashes();
    }
    if config.reserve > 0
        && let Err((had, why)) = front::reserve(config.reserve, &DEFAULT)
        && config.messages
    {
        messages::reserved(arena.os(), config.reserve, had, why);
    }
}

/// The C library calls this at the process's end, after its handlers for that (`atexit`), on the
/// thread that ends it.
#[used]
#[cfg_attr(not(miri), unsafe(link_section = ".fini_array"))]
static AT_EXIT: extern "C" fn() = at_exit;

extern "C" fn at_exit() {
    front::end();
}

/// Registers the handlers around fork, once a process; before the first allocation too, and before
/// the C library has started. Code that registered earlier must not allocate in a handler: ours
/// hold the locks then.
pub fn handle_forks() {
    // Without the handlers only a fork of a busy process suffers.
    global::register_once(|| {
        let _ = fork::register(before_fork, after_fork, in_child);
    });
}

/// Takes all locks, and makes sure that the pages of parent and child can be copied.
extern "C" fn before_fork() {
    global::before_fork();
}

/// Frees the locks, in the parent and in the child.
extern "C" fn after_fork() {
    global::after_fork();
}

/// Tells the arena that it is a child's now: one thread is left, and other processes look at the
/// parent's figures.
extern "C" fn in_child() {
    front::forget_others();
    global::become_child(front::claimed());
    front::note_thread();
    global::after_fork();
}
