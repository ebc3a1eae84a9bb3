//! The lock on a heap. The thread that has the heap takes it for each of its steps, which are slow
//! paths: one compare-exchange, and one store to let go. A reclaimer takes it to take a span from a
//! heap whose thread rests; it never waits, and holds the lock for a few spans at most.
//!
//! The word has a state and the number of steps. A reclaimer that finds the number where it was
//! long ago knows that the thread has not been here since.
//!
//! | state | who may touch the heap | who leaves it, and for what |
//! |---|---|---|
//! | CLOSED | nobody but the owner | the owner: OWNED |
//! | FREE | nobody | the owner: OWNED; a reclaimer: RECLAIMED |
//! | OWNED | the owner | the owner: FREE, CLOSED |
//! | RECLAIMED | the reclaimer | the reclaimer: FREE; the owner: AWAITED |
//! | AWAITED | the reclaimer, which must wake the owner | the reclaimer: FREE |
//!
//! The owner is one thread at a time: the heap's own, or the one that holds the lock on a nursery
//! or on the shared heap. Reclaimers are kept apart by a lock of their own.

use crate::sync::{AtomicU32, Ordering};

/// Zero, so that the memory of locks needs no set-up.
const CLOSED: u32 = 0;
const FREE: u32 = 1;
const OWNED: u32 = 2;
const RECLAIMED: u32 = 3;
const AWAITED: u32 = 4;
const STATES: u32 = 7;
/// One in the number of steps.
const STEP: u32 = STATES + 1;

/// Looks at the word before the owner lets the reclaimer know that it waits. A reclaimer that runs
/// has the lock for less than that.
const LOOKS: u32 = if cfg!(loom) { 0 } else { 100 };

/// The lock on one heap.
#[derive(Debug, Default)]
pub struct HeapLock(AtomicU32);

/// The steps of a heap that were counted at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps(pub u32);

impl HeapLock {
    /// Takes the lock for the owner. `wait` sleeps while the word has the value that it is given,
    /// or for a while. False if the owner has the lock already (a signal's handler has interrupted
    /// it): it has it still, and must not let go.
    #[inline]
    pub fn enter(&self, wait: impl FnMut(&AtomicU32, u32)) -> bool {
        let now = self.0.load(Ordering::Relaxed);
        now & STATES == FREE && self.own(now) || self.enter_slow(wait)
    }

    #[inline]
    fn own(&self, now: u32) -> bool {
        let owned = now & !STATES | OWNED;
        self.0
            .compare_exchange(now, owned, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[cold]
    #[inline(never)]
    fn enter_slow(&self, mut wait: impl FnMut(&AtomicU32, u32)) -> bool {
        let mut looks = 0;
        loop {
            let now = self.0.load(Ordering::Relaxed);
            let awaited = now & !STATES | AWAITED;
            match now & STATES {
                FREE | CLOSED if self.own(now) => return true,
                OWNED => return false,
                RECLAIMED if looks < LOOKS => {
                    looks += 1;
                    core::hint::spin_loop();
                }
                RECLAIMED => {
                    let told =
                        self.0
                            .compare_exchange(now, awaited, Ordering::Relaxed, Ordering::Relaxed);
                    if told.is_ok() {
                        wait(&self.0, awaited);
                    }
                }
                AWAITED => wait(&self.0, awaited),
                _ => {}
            }
        }
    }

    /// Tells whether the owner has the lock. Only the owner learns something from that.
    pub fn is_owned(&self) -> bool {
        self.0.load(Ordering::Relaxed) & STATES == OWNED
    }

    /// Lets go for the owner, and counts the step.
    #[inline]
    pub fn leave(&self) {
        let now = self.0.load(Ordering::Relaxed);
        let free = (now & !STATES).wrapping_add(STEP) | FREE;
        self.0.store(free, Ordering::Release);
    }

    /// For the owner, which has the lock: lets go, and no reclaimer comes until the next step.
    pub fn leave_closed(&self) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now & !STATES | CLOSED, Ordering::Release);
    }

    /// The steps that the owner has made, if a reclaimer could have the lock now.
    pub fn steps(&self) -> Option<Steps> {
        let now = self.0.load(Ordering::Relaxed);
        (now & STATES == FREE).then_some(Steps(now & !STATES))
    }

    /// Takes the lock for a reclaimer, if the owner has made no other step.
    pub fn try_reclaim(&self, Steps(steps): Steps) -> bool {
        let (free, mine) = (steps | FREE, steps | RECLAIMED);
        self.0
            .compare_exchange(free, mine, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Lets go for the reclaimer, which has got the lock with these steps; `wake` wakes the owner.
    pub fn end_reclaim(&self, Steps(steps): Steps, wake: impl FnOnce(&AtomicU32)) {
        if self.0.swap(steps | FREE, Ordering::Release) & STATES == AWAITED {
            wake(&self.0);
        }
    }

    /// In a forked child, which has no thread in the heap's place: no reclaimer comes any more.
    pub fn close_for_ever(&self) {
        self.0.store(CLOSED, Ordering::Relaxed);
    }
}
