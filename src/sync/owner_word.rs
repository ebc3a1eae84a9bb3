//! Words that one thread at a time writes, by a protocol of their own.

use super::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// A word that its owner alone reads and writes, or that it writes before others may read. It costs
/// what a `Cell` costs (relaxed loads and stores), and a thread that breaks the protocol loses an
/// update, where with a `Cell` it would break the rules of the language.
#[derive(Debug)]
#[repr(transparent)]
pub struct OwnerWord<T: Plain>(T::Atomic);

/// An integer that has an atomic of its size.
pub trait Plain: Sized {
    /// The atomic.
    type Atomic;
    /// Loads relaxed.
    fn load(of: &Self::Atomic) -> Self;
    /// Stores relaxed.
    fn store(to: &Self::Atomic, value: Self);
}

impl<T: Plain> OwnerWord<T> {
    /// The value.
    #[inline(always)]
    pub fn get(&self) -> T {
        T::load(&self.0)
    }

    /// Replaces the value.
    #[inline(always)]
    pub fn set(&self, value: T) {
        T::store(&self.0, value);
    }

    /// Replaces the value. Returns the one before.
    #[inline(always)]
    pub fn replace(&self, value: T) -> T {
        let before = self.get();
        self.set(value);
        before
    }
}

macro_rules! plain {
    ($($value:ty, $atomic:ty;)*) => {$(
        impl Plain for $value {
            type Atomic = $atomic;

            #[inline(always)]
            fn load(of: &$atomic) -> Self {
                of.load(Ordering::Relaxed)
            }

            #[inline(always)]
            fn store(to: &$atomic, value: Self) {
                to.store(value, Ordering::Relaxed);
            }
        }
    )*};
}

plain! {
    bool, AtomicBool;
    u8, AtomicU8;
    u32, AtomicU32;
    u64, AtomicU64;
}
