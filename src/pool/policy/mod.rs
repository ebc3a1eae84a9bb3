//! The policy of a heap: its options as they were at start, and the switches that a running process
//! turns.
//!
//! Everything here is either immutable or one atomic word; any thread may read and turn every
//! switch.
#![allow(unsafe_code)] // Locks ranges of memory.

mod budget;
mod limit;
mod reserve;

pub use budget::Budget;
pub use limit::Limit;

use crate::config::{Calls, Config, Prefault, SHARE};
use crate::gate::Gate;
use crate::messages::{self, OnceMessage};
use crate::stats::board::Header;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use theap_platform::{Mutex, Os, Pressure, Rank};

/// Options and switches of a heap.
pub struct Policy {
    os: Os,
    config: Config,
    gate: Gate,
    budget: Budget,
    limit: Limit,
    pressure: Pressure,
    secret: usize,
    /// The option `retain` was set.
    bounds_all: bool,
    /// The capacities of magazines may change.
    learns: AtomicBool,
    /// The system must not be asked for anything.
    sealed: AtomicBool,
    /// The program has prepared memory ahead.
    prepared: AtomicBool,
    /// This process was forked from the one that made the heap.
    child: AtomicBool,
    /// A block may be larger than the class of the size that its owner knows.
    outsized: AtomicBool,
    /// Forks after which pages may still be shared with a child.
    forks: AtomicU32,
    /// Addresses are reserved when they come into use.
    reserves_late: bool,
    opening: Mutex<()>,
    /// A bit for each message that was given: each is given once a process.
    said: AtomicU32,
    /// Counts what a sealed heap refused, and the bytes of metadata.
    header: &'static Header,
}

impl Policy {
    /// The policy of a heap with these options and a range of `len` bytes. `reserves_late` is
    /// whether its addresses are reserved when they come into use, `header` where refusals and
    /// bytes of metadata are counted.
    pub fn new(
        os: Os,
        config: Config,
        len: usize,
        reserves_late: bool,
        header: &'static Header,
    ) -> Self {
        let budget = match config.budget {
            0 => os.total_memory().min(len as u64) as usize / SHARE,
            bytes => bytes,
        };
        // Who may act on it, and who looks.
        let pressure = match config.prefault {
            Prefault::Ahead if config.soft_limit > 0 => os.watch_pressure(),
            _ => Pressure::NONE,
        };
        Self {
            os,
            config,
            gate: Gate::new(config.front, config.classes),
            budget: Budget::new(budget),
            limit: Limit::new(config.limit, config.soft_limit, header),
            pressure,
            secret: os.random() as usize,
            bounds_all: false,
            learns: AtomicBool::new(config.learn),
            sealed: AtomicBool::new(false),
            prepared: AtomicBool::new(false),
            child: AtomicBool::new(false),
            outsized: AtomicBool::new(false),
            forks: AtomicU32::new(0),
            reserves_late,
            opening: Mutex::new(Rank::Unranked, ()),
            said: AtomicU32::new(0),
            header,
        }
    }

    /// The same policy; `told` is whether the option `retain` was set.
    pub fn bounding_all(mut self, told: bool) -> Self {
        self.bounds_all = told;
        self
    }

    /// The operating system.
    #[inline]
    pub fn os(&self) -> Os {
        self.os
    }

    /// The options, with the environment's on top.
    #[inline]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The option `retain` in bytes.
    pub fn retain(&self) -> usize {
        self.config.retain.unwrap_or(0)
    }

    /// Whether `retain` bounds also what nodes have learned to keep: where it was set.
    pub fn bounds_all(&self) -> bool {
        self.bounds_all
    }

    /// The option `ahead` in bytes.
    pub fn ahead(&self) -> usize {
        self.config.ahead.unwrap_or(0)
    }

    /// Whether the heap makes only plain system calls after its start.
    pub fn is_plain(&self) -> bool {
        self.config.calls == Calls::Plain
    }

    /// The gate: which front serves which class.
    #[inline]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The budget that magazines and kept spans of all threads share.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The limits of the bytes that are mapped.
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// The descriptor by which the warmer hears that memory is short, on the machine or in the
    /// group.
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// The secret that the links of the classic front are XORed with.
    #[inline]
    pub fn secret(&self) -> usize {
        self.secret
    }

    /// Lets the capacities of magazines change, or freezes them.
    pub fn set_learning(&self, on: bool) {
        self.learns.store(on, Ordering::Relaxed);
    }

    /// Whether the capacities of magazines may change. Those of a sealed heap may not: it takes no
    /// memory.
    pub fn learns(&self) -> bool {
        self.learns.load(Ordering::Relaxed) && !self.is_sealed()
    }

    /// The time in nanoseconds after which unneeded memory is given back and unneeded learning is
    /// forgotten.
    pub fn decay(&self) -> u64 {
        self.config.decay.saturating_mul(1_000_000)
    }

    /// Forbids or allows asking the system for anything.
    pub fn set_sealed(&self, on: bool) {
        self.sealed.store(on, Ordering::SeqCst);
        theap_platform::spin_only(on);
    }

    /// Whether the system must not be asked for anything.
    #[inline]
    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Relaxed)
    }

    /// Notes that the program prepares memory ahead.
    pub fn set_prepared(&self) {
        self.prepared.store(true, Ordering::Relaxed);
    }

    /// Whether the program has prepared memory ahead: it wants its threads to have all at hand from
    /// the start, and one that has prepared its own memory must find it when it needs it.
    #[cfg_attr(not(feature = "magazines"), allow(dead_code, reason = "nobody asks"))]
    pub fn is_prepared(&self) -> bool {
        self.prepared.load(Ordering::Relaxed)
    }

    /// Whether a step that needs the system must be refused now. A refusal is counted.
    pub fn refuses(&self) -> bool {
        let sealed = self.is_sealed();
        if sealed {
            self.header.refusals.fetch_add(1, Ordering::Relaxed);
        }
        sealed
    }

    /// True for the first caller of a process that has this message to give, if messages are on.
    pub fn first_to_say(&self, what: OnceMessage) -> bool {
        let bit = 1 << what as u32;
        self.config.messages
            && !self.is_sealed()
            && self.said.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Notes that a block stayed as it was when its owner made it smaller, for lack of memory.
    pub fn set_outsized(&self) {
        self.outsized.store(true, Ordering::Relaxed);
    }

    /// Whether a block may be larger than the class of the size that its owner knows: a free that
    /// trusts the size puts such a block into the array of a smaller class. Whoever has a block
    /// knows of the note, as the note was made before the owner got the block back.
    #[inline]
    pub fn has_outsized(&self) -> bool {
        self.outsized.load(Ordering::Relaxed)
    }

    /// Notes that this process is a forked child.
    pub fn set_child(&self) {
        self.child.store(true, Ordering::Relaxed);
    }

    /// Whether this process is a forked child.
    pub fn is_child(&self) -> bool {
        self.child.load(Ordering::Relaxed)
    }

    /// Notes a fork. The number of forks before it after which pages may still be shared.
    pub fn begin_fork(&self) -> usize {
        self.forks.fetch_add(1, Ordering::Relaxed) as usize
    }

    /// The number of forks after which pages may still be shared with a child.
    pub fn forks(&self) -> usize {
        self.forks.load(Ordering::Relaxed) as usize
    }

    /// Notes that no page is shared with a child any more.
    pub fn forget_forks(&self) {
        self.forks.store(0, Ordering::Relaxed);
    }

    /// Locks memory in RAM if the options say so. A refusal costs the guarantee only, and is
    /// reported once.
    ///
    /// # Safety
    /// The range was committed or mapped by the heap.
    pub unsafe fn lock_memory(&self, address: usize, len: usize) {
        if self.config.lock
            // SAFETY: the heap's memory, as this function's Safety section asks.
            && let Err(error) = unsafe { self.os.lock(address, len) }
            && self.first_to_say(OnceMessage::Unlocked)
        {
            messages::not_locked(self.os, len, error);
        }
    }
}
