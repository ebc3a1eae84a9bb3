//! The limits of the heap, at the end of a slow path: allocations that got nothing are counted, and
//! where the heap has grown beyond `soft_limit` it gives back what it can and calls the function
//! that the program has registered.
//!
//! The pool only notes that the limit was crossed, as its caller may hold locks and has lent the
//! thread's cache. The note is acted on here, by the thread that leaves the slow path next, with
//! neither. The function may allocate and free; while it runs, no thread calls it again, and a
//! crossing meanwhile is acted on afterwards.
//!
//! A program that wants no thread to wait for that gives a thread of its own ([`serve`]), which
//! looks for a note now and then. For as long as it does, it counts as the one that acts, so that
//! the others leave the note to it, without a system call. It cannot be the warmer, which has none
//! of the C library's thread-local variables: a function there could not even allocate.
#![allow(unsafe_code)] // Reads a function back from a pointer.

use super::free::discard;
use super::handle::Handle;
use super::head::identity;
use super::setup::{Setup, arena};
use crate::geometry::SUPER;
use crate::pool::Arena;
use crate::pool::global::{existing_arena, forks};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// A function that a program registers; it is told the bytes that the heap has mapped.
type OnSoftLimit = fn(usize);

/// The function that the program has registered, or null.
static REGISTERED: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// The head of the thread that acts on a crossing, or null.
static ACTING: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// A thread serves the limit.
static SERVED: AtomicBool = AtomicBool::new(false);

/// Nanoseconds between two looks of the thread that serves the limit.
const LOOK: u64 = 10_000_000;

/// Registers the function that is called when the heap has reached `soft_limit`, or none.
pub fn on_soft_limit(function: Option<OnSoftLimit>) {
    let pointer = function.map_or(ptr::null_mut(), |function| function as *mut ());
    REGISTERED.store(pointer, Ordering::Release);
}

fn registered() -> Option<OnSoftLimit> {
    let pointer = REGISTERED.load(Ordering::Acquire);
    // SAFETY: `on_soft_limit` has stored null or a function of this type.
    (!pointer.is_null()).then(|| unsafe { core::mem::transmute::<*mut (), OnSoftLimit>(pointer) })
}

/// Ends a slow path that was asked for `bytes` (0: for a block of some class) and answers `block`.
/// The caller holds no lock and has not lent the thread's cache.
#[inline]
pub fn leave(block: *mut u8, bytes: usize) -> *mut u8 {
    if let Some(arena) = existing_arena()
        && arena.policy().limit().is_set()
    {
        heed(arena, block.is_null().then_some(bytes));
    }
    block
}

/// Ends a step by which the heap may have grown beside any allocation, as `leave` does.
pub fn heed_growth() {
    leave(ptr::NonNull::dangling().as_ptr(), 0);
}

/// Acts on what the limits have noted. `refused` are the bytes that an allocation did not get.
#[cold]
#[inline(never)]
fn heed(arena: &'static Arena, refused: Option<usize>) {
    let limit = arena.policy().limit();
    if let Some(bytes) = refused.filter(|_| !arena.policy().is_sealed()) {
        limit.count_null(bytes.max(SUPER));
    }
    let is_free = ACTING.load(Ordering::Relaxed).is_null();
    if limit.is_due() && is_free && !arena.policy().is_sealed() && !forks() {
        act(arena);
    }
}

/// The right to act on notes, which one thread has.
struct Turn;

impl Turn {
    /// The right, unless another thread has it.
    fn take() -> Option<Self> {
        let (nobody, me) = (ptr::null_mut(), identity().cast());
        let taken = ACTING.compare_exchange(nobody, me, Ordering::Acquire, Ordering::Relaxed);
        taken.is_ok().then_some(Self)
    }

    /// Gives memory back if there is a note, and returns the bytes that are mapped then.
    fn act(&self, arena: &'static Arena) -> Option<usize> {
        let limit = arena.policy().limit();
        limit.take_due().then(|| {
            discard();
            arena.shrink();
            limit.mapped()
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        ACTING.store(ptr::null_mut(), Ordering::Release);
    }
}

/// Gives memory back and calls the program's function, unless a thread is at that.
fn act(arena: &'static Arena) {
    if let Some(turn) = Turn::take()
        && let Some(mapped) = turn.act(arena)
    {
        call(mapped);
    }
}

/// Has the calling thread act on notes until `function` answers false; see
/// [`crate::serve_soft_limit`].
pub fn serve(function: &mut dyn FnMut(usize) -> bool, setup: &Setup) -> bool {
    // The thread's own cache tells it from others.
    let Some(arena) = Handle::mine(setup).and_then(|_| arena(setup)) else {
        return false;
    };
    let (policy, nobody) = (arena.policy(), AtomicU32::new(0));
    if policy.config().soft_limit == 0 || SERVED.swap(true, Ordering::Relaxed) {
        return false;
    }
    let _served = Served;
    let sleep = || arena.os().sleep(&nobody, 0, LOOK);
    let turn = loop {
        match Turn::take() {
            Some(turn) => break turn,
            None => sleep(),
        }
    };
    loop {
        let heeds = !policy.is_sealed() && !forks();
        match heeds.then(|| turn.act(arena)).flatten() {
            Some(mapped) if !function(mapped) => return true,
            Some(_) => {}
            None => sleep(),
        }
    }
}

/// A thread serves the limit for as long as it has this.
struct Served;

impl Drop for Served {
    fn drop(&mut self) {
        SERVED.store(false, Ordering::Relaxed);
    }
}

/// Calls the program's function, if there is one. A panic ends the process here: it must not unwind
/// through an allocation.
extern "C" fn call(mapped: usize) {
    if let Some(function) = registered() {
        function(mapped);
    }
}

/// In a forked child: lets its thread act, if the thread that did so was another one of the
/// parent's.
pub fn forget_others() {
    if let Some(arena) = existing_arena() {
        let own = Handle::existing().map(Handle::index);
        // SAFETY: the handler of a fork holds the locks.
        unsafe { arena.heaps().forget_others(own) };
    }
    if ACTING.load(Ordering::Relaxed) != identity().cast() {
        ACTING.store(ptr::null_mut(), Ordering::Relaxed);
        SERVED.store(false, Ordering::Relaxed);
    }
}
