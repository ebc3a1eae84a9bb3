//! Locks on a futex.
//!
//! [`RawMutex`] is one word with three states: FREE, LOCKED (nobody waits) and CONTENDED (somebody
//! may wait). A thread that has to wait marks the word CONTENDED and keeps that mark when it gets
//! the lock, as it cannot know whether others wait; so an unlock that finds LOCKED needs no system
//! call.
//!
//! [`Mutex`] adds the data and, in debug builds, a [`Rank`].
//!
//! Invariant: only the thread that moved the word away from FREE accesses the data, until that
//! thread moves the word back. All-zero memory is a valid unlocked mutex (without a rank).
#![allow(unsafe_code)] // The lock hands out exclusive access.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32};

use super::Rank;
#[cfg(feature = "lock-stats")]
use super::contention;
#[cfg(debug_assertions)]
use super::rank::held;
use crate::system::futex;
use crate::system::process::now;

const FREE: u32 = 0;
const LOCKED: u32 = 1;
const CONTENDED: u32 = 2;

/// Rounds that a waiting thread spins before it sleeps. A thread holds a lock for tens of
/// instructions, which this covers, or for a system call.
const SPINS: u64 = 100;

/// Whether waiting threads spin instead of sleeping.
static SPIN_ONLY: AtomicBool = AtomicBool::new(false);
/// Nanoseconds for which a thread spins before it gives its CPU away after all, and those for which
/// it does so each time.
const PATIENCE: u64 = 1_000_000;
const NAP: u64 = 50_000;
/// Rounds of spinning between two looks at the clock.
const ROUNDS: u64 = 64;

/// From now on threads that wait for a lock spin (`true`) or sleep in the kernel (`false`): for a
/// process that wants no system call at all. A thread that sleeps already still needs its wake-up.
///
/// Spinning has an end, however: the holder may be waiting for this very CPU, with a lower
/// real-time priority, and would never get it. A thread that has spun for a millisecond, which is
/// far longer than a holder that runs keeps a lock, takes naps of 50 µs between its looks at the
/// lock, in which the holder runs. Yielding would not do, as it gives the CPU to threads of the
/// same priority only. Inheritance of priority by the kernel's futexes would need a system call of
/// each holder that others wait for; this one needs none of the holder, which does not learn that
/// somebody waits.
pub fn spin_only(on: bool) {
    SPIN_ONLY.store(on, Relaxed);
}

/// A lock of one word. Its user says what it guards. It is not re-entrant.
pub struct RawMutex {
    state: AtomicU32,
}

impl RawMutex {
    /// An unlocked mutex.
    pub const fn new() -> Self {
        RawMutex {
            state: AtomicU32::new(FREE),
        }
    }

    /// Takes the lock, and waits for it if another thread has it.
    #[inline]
    pub fn lock(&self) {
        if !self.try_lock() {
            self.lock_slow();
        }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> bool {
        self.state
            .compare_exchange(FREE, LOCKED, Acquire, Relaxed)
            .is_ok()
    }

    /// Gives the lock back.
    ///
    /// # Safety
    /// The caller holds the lock: this thread (in the child of a fork: the thread that forked) took
    /// it, and has not given it back since. Otherwise two threads could be in what the lock guards.
    #[inline]
    pub unsafe fn unlock(&self) {
        if self.state.swap(FREE, Release) == CONTENDED {
            self.wake();
        }
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self) {
        let mut spins = 0;
        let mut end = None;
        while spins < SPINS || SPIN_ONLY.load(Relaxed) {
            spins += 1;
            match self.state.load(Relaxed) {
                FREE if self.try_lock() => return,
                // Others sleep already: spinning past them would only delay them.
                CONTENDED if !SPIN_ONLY.load(Relaxed) => break,
                _ if SPIN_ONLY.load(Relaxed) && spins % ROUNDS == 0 => {
                    let now = now();
                    if now >= *end.get_or_insert(now + PATIENCE) {
                        nap();
                    }
                }
                _ => core::hint::spin_loop(),
            }
        }
        while self.state.swap(CONTENDED, Acquire) != FREE {
            futex::wait(&self.state, CONTENDED, None);
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(&self) {
        futex::wake(&self.state);
    }
}

/// Sleeps for a while. A word that nobody wakes: a wake-up for the lock is for those that sleep
/// there.
fn nap() {
    futex::wait(&AtomicU32::new(0), 0, Some(NAP));
}

impl Default for RawMutex {
    fn default() -> Self {
        RawMutex::new()
    }
}

/// Data and the lock that guards it.
pub struct Mutex<T> {
    raw: RawMutex,
    #[cfg(any(debug_assertions, feature = "lock-stats"))]
    rank: Rank,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives the value to one thread at a time, so sharing the mutex sends the value.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// An unlocked mutex.
    pub const fn new(rank: Rank, value: T) -> Self {
        // Release builds without figures of locks do not keep the rank.
        let _ = rank;
        Mutex {
            raw: RawMutex::new(),
            #[cfg(any(debug_assertions, feature = "lock-stats"))]
            rank,
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock, and waits for it if another thread has it. In debug builds, ends the process
    /// with a message if this thread holds a lock of the same or a higher rank.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        #[cfg(debug_assertions)]
        held::enter(self.rank);
        #[cfg(feature = "lock-stats")]
        if !self.raw.try_lock() {
            contention::counted(self.rank, || self.raw.lock());
        }
        #[cfg(not(feature = "lock-stats"))]
        self.raw.lock();
        Guard { mutex: self }
    }

    /// Takes the lock if it is free. This does not check the order of ranks, as it never waits.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        if !self.raw.try_lock() {
            return None;
        }
        #[cfg(debug_assertions)]
        held::note(self.rank);
        Some(Guard { mutex: self })
    }

    /// Takes the lock if it is free at one of `tries` tries.
    pub fn try_lock_often(&self, tries: usize) -> Option<Guard<'_, T>> {
        let wait = || {
            (1..tries).find_map(|_| {
                core::hint::spin_loop();
                self.try_lock()
            })
        };
        let first = self.try_lock();
        if first.is_some() {
            return first;
        }
        #[cfg(feature = "lock-stats")]
        return contention::counted(self.rank, wait);
        #[cfg(not(feature = "lock-stats"))]
        wait()
    }

    /// Takes the lock across a `fork`: without a guard and outside the order of ranks, as fork
    /// handlers take several locks of one rank. [`Mutex::force_unlock`] gives it back, in parent
    /// and child.
    pub fn lock_for_fork(&self) {
        self.raw.lock();
    }

    /// The data, for a thread that holds the lock without a guard.
    ///
    /// # Safety
    /// The caller holds the lock as [`Mutex::force_unlock`] asks for, has no guard, and does not
    /// unlock while it uses the reference.
    pub unsafe fn held(&self) -> &T {
        // SAFETY: the caller holds the lock and has no guard (`# Safety`), so nobody changes the
        // data.
        unsafe { &*self.value.get() }
    }

    /// Unlocks without a guard.
    ///
    /// # Safety
    /// The caller holds the lock: this thread (in the child of a fork: the thread that forked) took
    /// it, and has forgotten the guard or had none.
    pub unsafe fn force_unlock(&self) {
        #[cfg(debug_assertions)]
        held::leave(self.rank);
        // SAFETY: the caller holds the lock, as it promises in `# Safety`.
        unsafe { self.raw.unlock() };
    }
}

/// Exclusive access to the data of a locked [`Mutex`]; dropping it unlocks.
#[must_use = "dropping the guard unlocks at once"]
pub struct Guard<'a, T> {
    mutex: &'a Mutex<T>,
}

// SAFETY: a shared guard only gives out `&T`.
unsafe impl<T: Sync> Sync for Guard<'_, T> {}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists only while its thread holds the lock.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists only while its thread holds the lock, and `&mut self` excludes
        // other uses of this guard.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        held::leave(self.mutex.rank);
        // SAFETY: the guard exists only while its thread holds the lock, and it is the only one.
        unsafe { self.mutex.raw.unlock() };
    }
}
