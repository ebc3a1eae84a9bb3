//! The process's arena: the one that all entry points share. Tests make others beside it.
//!
//! Fork takes `INIT` first of all, so that no other thread can make the arena between fork's
//! handlers: what is locked before a fork is what is freed after it, and a child never finds `INIT`
//! held by a thread that it does not have. The thread that forks notes in its [`forking`] slot
//! which arena it has locked. It may still make the arena itself meanwhile, if code of others
//! allocates in a handler of its own: it has `INIT` already. Such an arena is not locked, and it is
//! that thread's alone (`MADE_IN_FORK`), without warmers, until fork's last handler makes it the
//! process's: so no other thread is inside of it when the child comes to be. It is not published.
#![allow(unsafe_code)] // Keeps the arena as a pointer, and frees a lock by force, after fork.

use super::{Arena, HeapBytes};
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

/// The arena that a thread between the handlers of its own fork has made, or null. Only a thread
/// that forks, and so has `INIT`, reads or writes it.
static MADE_IN_FORK: AtomicPtr<Arena> = AtomicPtr::new(core::ptr::null_mut());
/// The handlers are registered.
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// What the slot of a thread leads to that does not fork, and of one that registers the handlers.
static NOT_FORKING: u64 = 0;
static REGISTERING: u64 = 1;

theap_arch::thread_slot! {
    /// While this thread forks: the arena that it has locked for that, or null if there was none.
    mod forking: Arena = NOT_FORKING;
}

/// Whether this thread's slot leads there.
fn slot_is(place: &'static u64) -> bool {
    core::ptr::eq(forking::get(), core::ptr::from_ref(place).cast())
}

fn set_slot(place: &'static u64) {
    forking::set(core::ptr::from_ref(place).cast_mut().cast());
}

/// Whether this thread is between the handlers of a fork, and so has `INIT` and all locks of the
/// arena.
pub fn forks() -> bool {
    !slot_is(&NOT_FORKING) && !slot_is(&REGISTERING)
}

/// Calls `register`, which registers the handlers around fork, unless that was done. It may
/// allocate. Threads that come at the same moment all register: none goes on without handlers, and
/// handlers that run twice do nothing the second time.
pub fn register_once(register: impl FnOnce()) {
    if REGISTERED.load(Ordering::Acquire) || !slot_is(&NOT_FORKING) {
        return;
    }
    set_slot(&REGISTERING);
    register();
    set_slot(&NOT_FORKING);
    REGISTERED.store(true, Ordering::Release);
}

/// The process's arena, if there is one.
#[inline]
pub fn existing_arena() -> Option<&'static Arena> {
    let arena = GLOBAL.load(Ordering::Acquire);
    // SAFETY: the pointer is null or was made of a `&'static Arena` in `make`.
    unsafe { arena.as_ref() }.or_else(made_in_fork)
}

/// The arena that this thread has made in the middle of its fork.
#[cold]
fn made_in_fork() -> Option<&'static Arena> {
    if !forks() {
        return None;
    }
    // SAFETY: as in `existing_arena`.
    unsafe { MADE_IN_FORK.load(Ordering::Relaxed).as_ref() }
}

/// The process's arena, made with `config` and the environment if this is the first use, and
/// whether this call has made it. `heap_bytes` is what the memory of a thread's heap takes. `None`
/// if the system refuses; the next call tries again.
pub fn arena(config: &Config, heap_bytes: HeapBytes) -> Option<(&'static Arena, bool)> {
    match existing_arena() {
        Some(arena) => Some((arena, false)),
        None => first(config, heap_bytes),
    }
}

/// The arena, which this thread or another one makes now.
#[cold]
#[inline(never)]
fn first(config: &Config, heap_bytes: HeapBytes) -> Option<(&'static Arena, bool)> {
    let _init = (!forks()).then(|| INIT.lock());
    if let Some(arena) = existing_arena() {
        return Some((arena, false));
    }
    make(config, heap_bytes).map(|arena| (arena, true))
}

/// Makes the arena. The caller has `INIT`, and there is no arena.
fn make(config: &Config, heap_bytes: HeapBytes) -> Option<&'static Arena> {
    let os = Os::LINUX;
    os.note_stderr();
    // rustix looks for the kernel's functions in user space at the first use, and threads that come
    // meanwhile make system calls instead, which a sandbox may forbid.
    os.recently();
    let mut config = config.with_environment(os);
    // Parent and child would share the board until the child's handler runs.
    config.publish &= !forks();
    match Arena::create(os, config, heap_bytes) {
        Ok(arena) => {
            let place = core::ptr::from_ref(arena).cast_mut();
            if forks() {
                arena.park_warmers();
                MADE_IN_FORK.store(place, Ordering::Relaxed);
            } else {
                GLOBAL.store(place, Ordering::Release);
            }
            Some(arena)
        }
        Err(error) => {
            if !INIT_FAILED.swap(true, Ordering::Relaxed) {
                messages::no_arena(os, error);
            }
            None
        }
    }
}

/// Before fork: waits for a thread that makes the arena, and keeps others from making one; then
/// takes the arena's locks, if there is one.
pub fn before_fork() {
    if forks() {
        return; // The handlers are registered twice.
    }
    INIT.lock_for_fork();
    forking::set(GLOBAL.load(Ordering::Acquire));
    if let Some(arena) = existing_arena() {
        arena.before_fork();
    }
}

/// After fork, in the parent and in the child: frees what `before_fork` took on this thread.
pub fn after_fork() {
    if !forks() {
        return;
    }
    let made = MADE_IN_FORK.swap(core::ptr::null_mut(), Ordering::Relaxed);
    // SAFETY: the pointers are null or those of arenas.
    let (locked, made) = unsafe { (forking::get().as_ref(), made.as_ref()) };
    set_slot(&NOT_FORKING);
    if let Some(arena) = made {
        GLOBAL.store(core::ptr::from_ref(arena).cast_mut(), Ordering::Release);
        arena.unpark_warmers();
    }
    // SAFETY: this thread took the locks in `before_fork`, as its slot says, and frees them once.
    unsafe {
        if let Some(arena) = locked {
            arena.after_fork();
        }
        INIT.force_unlock();
    }
}

/// In a forked child, before `after_fork`: tells the arena that it is a child's now, whose one
/// thread has claimed so many bytes of the budget.
pub fn become_child(claimed: usize) {
    if !forks() {
        return;
    }
    // SAFETY: the pointer is null or that of the arena.
    if let Some(arena) = unsafe { forking::get().as_ref() } {
        // SAFETY: this thread took the arena's locks in `before_fork`, as its slot says.
        unsafe { arena.become_child(claimed) };
    } else if let Some(arena) = made_in_fork() {
        // The arena was this thread's alone: all its locks are free.
        arena.lock();
        // SAFETY: this thread took the locks just now, and frees them once.
        unsafe {
            arena.become_child(claimed);
            arena.after_fork();
        }
    }
}
