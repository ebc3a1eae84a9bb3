//! Hot scopes: a thread promises for a while to leave the allocator alone, and hears of it when it
//! does not. What audio and trading programs do with wrapped allocators in special builds works
//! here in the program that is shipped: who promises nothing pays nothing on the hit path.

use crate::contract::{Breach, Contract};
use crate::front::promise::{self, Before};
use crate::process::DEFAULT;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

/// A hot scope, or an excused one, of the thread that began it. It ends when it is dropped; scopes
/// end in the reverse order in which they began.
#[must_use = "the scope ends when this is dropped"]
#[derive(Debug)]
pub struct Hot {
    before: Option<Before>,
    /// A scope is its thread's: it must not be sent to another one.
    thread: PhantomData<*mut ()>,
}

/// Begins a scope in which this thread keeps a contract: until the answer is dropped, each breach
/// is counted (figure `hot_breaches`), and told or fatal if `breach` says so. Within another scope
/// the stricter of both contracts holds, with the graver of both consequences.
///
/// `malloc` and its kin count once, and so does a free; a resize that moves the block counts as
/// both. A resize of a block of more than 2 MiB where it is counts once; any other resize that
/// leaves the block where it is, and a free of null, count as nothing. Under
/// [`Contract::NoAllocation`] every call of the thread takes the way behind a miss.
///
/// The first scope of a process that tells or ends it loads the unwinder. A thread that can get no
/// heap, for lack of memory or as it ends, has an empty scope.
///
/// ```
/// # #[global_allocator]
/// # static HEAP: theap::Theap = theap::Theap::new();
/// use theap::{Breach, Contract};
///
/// let hot = theap::hot(Contract::NoAllocation, Breach::Count);
/// drop(Box::new(7));
/// assert_eq!(hot.breaches(), 2);
/// ```
pub fn hot(contract: Contract, breach: Breach) -> Hot {
    Hot::new(promise::begin(contract, breach, &DEFAULT))
}

/// Begins a scope in which this thread has promised nothing, within a hot one that holds again when
/// the answer is dropped.
///
/// ```
/// # #[global_allocator]
/// # static HEAP: theap::Theap = theap::Theap::new();
/// use theap::{Breach, Contract};
///
/// let hot = theap::hot(Contract::NoAllocation, Breach::Abort);
/// {
///     let _excused = theap::excused();
///     drop(Box::new(7));
/// }
/// assert_eq!(hot.breaches(), 0);
/// ```
pub fn excused() -> Hot {
    Hot::new(promise::excuse())
}

impl Hot {
    fn new(before: Option<Before>) -> Self {
        Self {
            before,
            thread: PhantomData,
        }
    }

    /// The scope as one word, for callers from C: it does not end with this. 0 for an empty scope.
    pub fn into_raw(self) -> usize {
        let before = ManuallyDrop::new(self).before;
        before.map_or(0, Before::to_word)
    }

    /// The scope that [`Hot::into_raw`] has made this word of, in the same thread. Of another
    /// word it makes an empty scope.
    pub fn from_raw(word: usize) -> Self {
        Self::new(Before::of_word(word))
    }

    /// Times that the thread has broken a contract since this scope began.
    pub fn breaches(&self) -> u64 {
        self.before.map_or(0, promise::breaches_since)
    }
}

impl Drop for Hot {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            promise::leave(before);
        }
    }
}
