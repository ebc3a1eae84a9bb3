//! Loom's atomics, of which one access can be made weaker than the source has it, by file and line.

extern crate std;

use super::Ordering;
use core::panic::Location;
use std::cell::Cell;
use std::thread_local;

/// The way in which an access is weakened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakening {
    /// The access is Relaxed.
    Relaxed,
    /// A read-modify-write becomes a load and a store.
    Torn,
    /// A read gives zero and a write is not done: a step that was forgotten.
    Forgotten,
}

thread_local! {
    // Loom runs all threads of a model on the thread that called loom.
    static WEAK: Cell<Option<(&'static str, u32, Weakening)>> = const { Cell::new(None) };
}

/// From now on the access in this line is weakened, in models of this thread.
pub fn weaken(file: &'static str, line: u32, how: Weakening) {
    WEAK.set(Some((file, line, how)));
}

#[track_caller]
fn weakening() -> Option<Weakening> {
    let at = Location::caller();
    let (file, line, how) = WEAK.get()?;
    (at.line() == line && at.file().ends_with(file)).then_some(how)
}

/// A fence as in `core`; if it is weakened in any way, there is no fence.
#[track_caller]
pub fn fence(order: Ordering) {
    if weakening().is_none() {
        loom::sync::atomic::fence(order);
    }
}

fn or(how: Option<Weakening>, order: Ordering) -> Ordering {
    if how == Some(Weakening::Relaxed) {
        Ordering::Relaxed
    } else {
        order
    }
}

macro_rules! atomic {
    ($name:ident, $of:ty, $($change:ident($now:ident, $value:ident) -> $to:expr,)+) => {
        /// The atomic of the same name in `core`, with accesses that can be weakened.
        #[derive(Debug)]
        pub struct $name(loom::sync::atomic::$name);

        impl Default for $name {
            fn default() -> Self {
                Self::new(0)
            }
        }

        #[expect(missing_docs, reason = "as in core")]
        impl $name {
            pub fn new(value: $of) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            #[track_caller]
            pub fn load(&self, order: Ordering) -> $of {
                match weakening() {
                    Some(Weakening::Forgotten) => 0,
                    how => self.0.load(or(how, order)),
                }
            }

            #[track_caller]
            pub fn store(&self, value: $of, order: Ordering) {
                match weakening() {
                    Some(Weakening::Forgotten) => {}
                    how => self.0.store(value, or(how, order)),
                }
            }

            $(#[track_caller]
            pub fn $change(&self, $value: $of, order: Ordering) -> $of {
                match weakening() {
                    Some(Weakening::Torn) => {
                        let $now = self.0.load(Ordering::Acquire);
                        self.0.store($to, Ordering::Release);
                        $now
                    }
                    Some(Weakening::Forgotten) => 0,
                    how => self.0.$change($value, or(how, order)),
                }
            })+

            #[track_caller]
            pub fn compare_exchange(
                &self,
                old: $of,
                new: $of,
                order: Ordering,
                failed: Ordering,
            ) -> Result<$of, $of> {
                match weakening() {
                    Some(Weakening::Torn) => {
                        let now = self.0.load(Ordering::Acquire);
                        if now != old {
                            return Err(now);
                        }
                        self.0.store(new, Ordering::Release);
                        Ok(now)
                    }
                    Some(Weakening::Forgotten) => Err(0),
                    how => self.0.compare_exchange(old, new, or(how, order), or(how, failed)),
                }
            }

            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                old: $of,
                new: $of,
                order: Ordering,
                failed: Ordering,
            ) -> Result<$of, $of> {
                self.compare_exchange(old, new, order, failed)
            }
        }
    };
    ($($name:ident($of:ty))+) => {
        $(atomic!(
            $name, $of,
            swap(now, value) -> value,
            fetch_or(now, value) -> now | value,
            fetch_and(now, value) -> now & value,
            fetch_xor(now, value) -> now ^ value,
            fetch_add(now, value) -> now.wrapping_add(value),
            fetch_sub(now, value) -> now.wrapping_sub(value),
            fetch_max(now, value) -> now.max(value),
        );)+
    };
}

atomic!(AtomicU8(u8) AtomicU32(u32) AtomicU64(u64) AtomicUsize(usize) AtomicIsize(isize));
