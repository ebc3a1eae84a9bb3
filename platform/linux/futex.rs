//! Locks on a futex, with ranks.
//!
//! [`RawMutex`] is one word with three states: FREE, LOCKED (nobody waits) and CONTENDED (somebody may
//! wait). A thread that has to wait marks the word CONTENDED and keeps that mark when it gets the lock,
//! as it cannot know whether others wait; so an unlock that finds LOCKED needs no system call.
//!
//! [`Mutex`] adds the data and, in debug builds, a [`Rank`]: a thread may only take a lock whose rank
//! is above all ranks that it holds, so no cycle of waiting threads can form. The held ranks are a bit
//! mask in a thread-local variable without destructor, which never allocates.
//!
//! Invariant: the data is accessed only by the thread that moved the word away from FREE, until it
//! moves it back. All-zero memory is a valid unlocked mutex (without a rank).
#![allow(unsafe_code)] // The lock hands out exclusive access.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32};

use rustix::thread::futex;

const FREE: u32 = 0;
const LOCKED: u32 = 1;
const CONTENDED: u32 = 2;

/// Holders keep a lock for tens of instructions, or for a system call; this covers the former.
const SPINS: u32 = 100;

/// Whether waiting threads spin instead of sleeping.
static SPIN_ONLY: AtomicBool = AtomicBool::new(false);

/// From now on threads that wait for a lock spin (`true`) or sleep in the kernel: for a process that wants no system
/// call whatsoever. A thread that sleeps already still needs its wake-up.
pub fn spin_only(on: bool) {
    SPIN_ONLY.store(on, Relaxed);
}

/// A lock of one word that guards whatever its user says. It is not re-entrant.
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

    /// Takes the lock, waiting if need be.
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

    /// Gives back a lock that the caller took.
    #[inline]
    pub fn unlock(&self) {
        if self.state.swap(FREE, Release) == CONTENDED {
            self.wake();
        }
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self) {
        let mut spins = 0;
        while spins < SPINS || SPIN_ONLY.load(Relaxed) {
            spins += 1;
            match self.state.load(Relaxed) {
                FREE if self.try_lock() => return,
                // Others sleep already: spinning past them would only delay them.
                CONTENDED if !SPIN_ONLY.load(Relaxed) => break,
                _ => core::hint::spin_loop(),
            }
        }
        while self.state.swap(CONTENDED, Acquire) != FREE {
            // A signal, a spurious wake-up and a word that has changed all mean: look again.
            let _ = futex::wait(&self.state, futex::Flags::PRIVATE, CONTENDED, None);
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(&self) {
        // Fails only for an invalid address, which a reference is not.
        let _ = futex::wake(&self.state, futex::Flags::PRIVATE, 1);
    }
}

impl Default for RawMutex {
    fn default() -> Self {
        RawMutex::new()
    }
}

/// A lock's place in the order of locking: 1 (outermost) to 63. Rank 0 is outside the order and not
/// checked; it is what a mutex in zeroed memory has until [`Mutex::set_rank`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rank(pub u8);

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
        assert!(rank.0 < 64);
        Mutex {
            raw: RawMutex::new(),
            #[cfg(any(debug_assertions, feature = "lock-stats"))]
            rank,
            value: UnsafeCell::new(value),
        }
    }

    /// Gives a mutex that was born in zeroed memory its rank, before it is shared.
    pub fn set_rank(&mut self, rank: Rank) {
        assert!(rank.0 < 64);
        #[cfg(any(debug_assertions, feature = "lock-stats"))]
        {
            self.rank = rank;
        }
    }

    /// Takes the lock, waiting if need be. In debug builds, aborts with a message if this thread holds
    /// a lock of the same or a higher rank.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        #[cfg(debug_assertions)]
        order::enter(self.rank);
        #[cfg(feature = "lock-stats")]
        if !self.raw.try_lock() {
            super::contention::counted(self.rank, || self.raw.lock());
        }
        #[cfg(not(feature = "lock-stats"))]
        self.raw.lock();
        Guard { mutex: self }
    }

    /// Takes the lock if it is free. The order is not checked, as this never waits.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        if !self.raw.try_lock() {
            return None;
        }
        #[cfg(debug_assertions)]
        order::note(self.rank);
        Some(Guard { mutex: self })
    }

    /// Takes the lock if it is to be had in so many tries.
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
        return super::contention::counted(self.rank, wait);
        #[cfg(not(feature = "lock-stats"))]
        wait()
    }

    /// Takes the lock across a `fork`: without a guard and outside the order of ranks, as fork handlers
    /// take several locks of one rank. [`Mutex::force_unlock`] is the way back, in parent and child.
    pub fn lock_for_fork(&self) {
        self.raw.lock();
    }

    /// What the lock guards, for a thread that has it without a guard.
    ///
    /// # Safety
    /// As for [`Mutex::force_unlock`], and the thread has no guard and does not unlock while it uses the reference.
    pub unsafe fn held(&self) -> &T {
        // SAFETY: the caller's promise: nobody else has the lock.
        unsafe { &*self.value.get() }
    }

    /// Unlocks without a guard.
    ///
    /// # Safety
    /// This thread (in the child of a fork: the thread that forked) took the lock and has forgotten
    /// the guard or had none.
    pub unsafe fn force_unlock(&self) {
        #[cfg(debug_assertions)]
        order::leave(self.rank);
        self.raw.unlock();
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
        // SAFETY: as above, and `&mut self` excludes other uses of this guard.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        order::leave(self.mutex.rank);
        self.mutex.raw.unlock();
    }
}

/// The ranks that this thread holds, one bit each.
#[cfg(debug_assertions)]
mod order {
    use core::cell::Cell;

    use super::Rank;
    use crate::{Line, Os};

    std::thread_local! {
        static HELD: Cell<u64> = const { Cell::new(0) };
    }

    pub fn enter(rank: Rank) {
        // A lock outside the order is taken by threads that have no thread-local variables, too.
        if rank == Rank(0) {
            return;
        }
        let held = HELD.get();
        if held >> rank.0 != 0 {
            Line::new()
                .str("theap: lock order: rank ")
                .dec(rank.0.into())
                .str(" taken while holding ranks ")
                .hex(held)
                .send(Os::LINUX);
            Os::LINUX.abort();
        }
        note(rank);
    }

    pub fn note(rank: Rank) {
        if rank != Rank(0) {
            HELD.set(HELD.get() | 1 << rank.0);
        }
    }

    pub fn leave(rank: Rank) {
        if rank != Rank(0) {
            HELD.set(HELD.get() & !(1 << rank.0));
        }
    }
}
