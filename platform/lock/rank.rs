//! The order in which a thread may take the allocator's locks.
//!
//! A thread may only take a lock whose rank is above the ranks of all locks that it holds, so
//! threads can never wait for each other in a circle. Debug builds check this; the held ranks are a
//! bit mask in a thread-local variable without destructor, which never allocates.

/// A lock's place in the order of locking; the first rank is the outermost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Rank {
    /// Outside the order and not checked: for locks under which a thread takes no other lock, or
    /// that threads without thread-local variables take.
    Unranked = 0,
    /// The lock on the cache that threads without one share.
    Shared,
    /// The lock on the numbers of heaps.
    Heaps,
    /// The lock on a partial list.
    Partial,
    /// The lock on a node's growth.
    Growth,
    /// The lock on the ring of events.
    Events,
}

impl Rank {
    /// Every rank, in their order.
    pub const ALL: [Rank; 6] = [
        Rank::Unranked,
        Rank::Shared,
        Rank::Heaps,
        Rank::Partial,
        Rank::Growth,
        Rank::Events,
    ];

    /// The rank's name, for messages and figures.
    pub const fn name(self) -> &'static str {
        match self {
            Rank::Unranked => "unranked",
            Rank::Shared => "shared",
            Rank::Heaps => "heaps",
            Rank::Partial => "partial",
            Rank::Growth => "growth",
            Rank::Events => "events",
        }
    }
}

/// The ranks that this thread holds, one bit each.
#[cfg(debug_assertions)]
pub(super) mod held {
    use core::cell::Cell;

    use super::Rank;
    use crate::{Line, Os};

    std::thread_local! {
        static HELD: Cell<u32> = const { Cell::new(0) };
    }

    /// Notes that the thread is about to take a lock; ends the process if the order forbids it.
    pub fn enter(rank: Rank) {
        // Threads that have no thread-local variables, too, take locks outside the order.
        if rank == Rank::Unranked {
            return;
        }
        let held = HELD.get();
        let highest = Rank::ALL
            .into_iter()
            .rfind(|&one| held >> one as u8 & 1 == 1);
        if let Some(highest) = highest.filter(|&highest| highest >= rank) {
            Line::new()
                .str("theap: lock order: a thread takes the lock \"")
                .str(rank.name())
                .str("\" while it holds \"")
                .str(highest.name())
                .str("\"")
                .send(Os::LINUX);
            Os::LINUX.abort();
        }
        note(rank);
    }

    /// Notes that the thread holds a lock.
    pub fn note(rank: Rank) {
        if rank != Rank::Unranked {
            HELD.set(HELD.get() | 1 << rank as u8);
        }
    }

    /// Notes that the thread no longer holds a lock.
    pub fn leave(rank: Rank) {
        if rank != Rank::Unranked {
            HELD.set(HELD.get() & !(1 << rank as u8));
        }
    }
}
