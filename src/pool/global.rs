//! The process's arena: the one that all entry points share. Tests make others beside it.
#![allow(unsafe_code)] // Keeps the arena as a pointer.

use super::Arena;
use crate::config::Config;
use crate::messages;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use theap_platform::{Mutex, Os, Rank};

/// The arena, or null before the first use of the heap. Written once, by the thread that holds
/// `INIT`.
static GLOBAL: AtomicPtr<Arena> = AtomicPtr::new(core::ptr::null_mut());
/// The thread that holds this lock makes the arena; others wait for it.
static INIT: Mutex<()> = Mutex::new(Rank::Unranked, ());
/// The failure to make the arena was reported: that is done once a process.
static INIT_FAILED: AtomicBool = AtomicBool::new(false);

/// The process's arena, if there is one.
#[inline]
pub fn existing_arena() -> Option<&'static Arena> {
    let arena = GLOBAL.load(Ordering::Acquire);
    // SAFETY: the pointer is null or was made of a `&'static Arena` in `arena`.
    unsafe { arena.as_ref() }
}

/// The process's arena, made with `config` and the environment if this is the first use, and
/// whether this call has made it. `heap_bytes` is what the memory of a thread's heap takes. `None`
/// if the system refuses; the next call tries again.
pub fn arena(config: &Config, heap_bytes: usize) -> Option<(&'static Arena, bool)> {
    match existing_arena() {
        Some(arena) => Some((arena, false)),
        None => first(config, heap_bytes),
    }
}

/// The arena, which this thread or another one makes now.
#[cold]
#[inline(never)]
fn first(config: &Config, heap_bytes: usize) -> Option<(&'static Arena, bool)> {
    let _init = INIT.lock();
    if let Some(arena) = existing_arena() {
        return Some((arena, false));
    }
    let os = Os::LINUX;
    os.note_stderr();
    let config = config.with_environment(os);
    match Arena::create(os, config, heap_bytes) {
        Ok(arena) => {
            GLOBAL.store(core::ptr::from_ref(arena).cast_mut(), Ordering::Release);
            Some((arena, true))
        }
        Err(error) => {
            if !INIT_FAILED.swap(true, Ordering::Relaxed) {
                messages::no_arena(os, error);
            }
            None
        }
    }
}
