//! Contracts of hot threads: what a thread has promised not to do, and what happens when it does.
//!
//! A thread that has promised to leave the hit path alone is asked behind each miss. One that has
//! promised not to allocate at all is watched: its slot points to a head whose magazines hold and
//! take nothing, so every call misses, is told here, and is then served as always. Who has promised
//! nothing pays one look at a field of its cache where it misses.
//!
//! What the report itself calls may allocate: meanwhile the thread has promised nothing.
#![allow(unsafe_code)] // Reads and writes fields of this thread's cache.

use super::handle::Handle;
use super::head::watch;
use super::setup::Setup;
use crate::contract::{Act, Breach, Contract};
use crate::messages;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use theap_platform::Os;

/// What a thread has promised: nothing at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    contract: Option<Promise>,
}

/// A contract and the consequence of its breach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Promise {
    contract: Contract,
    breach: Breach,
}

const _: () = assert!(size_of::<Scope>() <= size_of::<u32>());

impl Scope {
    /// This scope within another one: the stricter contract holds, with the graver consequence.
    fn within(contract: Contract, breach: Breach, outer: Self) -> Self {
        let outer = outer.contract;
        Self {
            contract: Some(Promise {
                contract: outer.map_or(contract, |outer| contract.max(outer.contract)),
                breach: outer.map_or(breach, |outer| breach.max(outer.breach)),
            }),
        }
    }

    fn is_watched(self) -> bool {
        self.contract
            .is_some_and(|promise| promise.contract == Contract::NoAllocation)
    }
}

/// Most frames that are looked at, and those of them that are told.
const FRAMES: usize = 48;
const SHOWN: usize = 24;
/// Stacks that are remembered as told.
const STACKS: usize = 128;

/// The stacks that were told, by their hashes; 0 where there is room. A place is taken once.
static TOLD: [AtomicU64; STACKS] = [const { AtomicU64::new(0) }; STACKS];

/// The unwinder was loaded.
static LOADED: AtomicBool = AtomicBool::new(false);

/// Tells whether the stack was not told before, and remembers it. Once all places are taken, other
/// stacks count as told.
fn is_new(stack: &[usize]) -> bool {
    // FNV-1a, by words.
    let hash = stack.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &at| {
        (hash ^ at as u64).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = hash.max(1);
    let begin = hash as usize % STACKS;
    for place in (begin..STACKS).chain(0..begin) {
        let taken = TOLD[place].compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed);
        match taken {
            Ok(_) => return true,
            Err(told) if told == hash => return false,
            Err(_) => {}
        }
    }
    false
}

impl Handle {
    /// Sees to it that the thread's contract hears of what it does. To be called by every slow path
    /// that the program can enter, without a step.
    #[inline]
    pub fn note_act(self, act: Act) {
        if let Some(promise) = self.scope().contract {
            self.break_promise(promise, act);
        }
    }

    /// What the thread has promised.
    fn scope(self) -> Scope {
        // SAFETY: the field is this thread's own, and written between steps alone.
        unsafe { (&raw const (*self.memory()).scope).read() }
    }

    fn set_scope(self, scope: Scope) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.memory()).scope).write(scope) };
    }

    /// The thread is at its end, and the next one has promised nothing.
    pub fn forget_scope(self) {
        self.set_scope(Scope::default());
    }

    /// Times that the thread has broken a promise.
    fn breaches(self) -> u64 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.memory()).breaches).read() }
    }

    #[cold]
    #[inline(never)]
    fn break_promise(self, promise: Promise, act: Act) {
        let scope = self.scope();
        self.set_scope(Scope::default());
        // SAFETY: as in `scope`.
        unsafe { (&raw mut (*self.memory()).breaches).write(self.breaches() + 1) };
        let arena = self.arena();
        if let Some(board) = arena.figures().board() {
            board.header.hot_breaches.fetch_add(1, Ordering::Relaxed);
        }
        // A report makes system calls.
        let is_told = match promise.breach {
            Breach::Count => false,
            Breach::Report => !arena.policy().is_sealed(),
            Breach::Abort => true,
        };
        if is_told {
            tell(arena.os(), promise, act);
        }
        self.set_scope(scope);
    }
}

/// Tells of a breach with its stack, unless it was told and the process goes on.
fn tell(os: Os, promise: Promise, act: Act) {
    let mut frames = [0; FRAMES];
    let count = os.stack(&mut frames);
    let stack = &frames[..count];
    let ends = promise.breach == Breach::Abort;
    if is_new(stack) || ends {
        messages::broken_contract(os, promise.contract, act, ends);
        for &address in stack.iter().take(SHOWN) {
            messages::stack_frame(os, address, ends);
        }
    }
    if ends {
        os.abort();
    }
}

/// What is to be done at a scope's end.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    scope: Scope,
    breaches: u64,
}

/// Bits of a word below the number of breaches; the highest is set in the word of every scope.
const LOW: u32 = 8;
const IS_SCOPE: usize = 1 << (LOW - 1);

impl Before {
    /// The same as one word, which is not 0.
    pub fn to_word(self) -> usize {
        let promise = self.scope.contract;
        let promise = promise.map_or(0, |p| (p.contract as usize) << 2 | p.breach as usize);
        (self.breaches as usize) << LOW | IS_SCOPE | promise
    }

    /// What the word stands for. `None` for 0, and for what no scope has as its word.
    pub fn of_word(word: usize) -> Option<Self> {
        let contract = match (word & (IS_SCOPE - 1)) >> 2 {
            0 => None,
            1 => Some(Contract::NoSlowPath),
            2 => Some(Contract::NoAllocation),
            _ => return None,
        };
        let breach = match word & 3 {
            0 => Breach::Count,
            1 => Breach::Report,
            2 => Breach::Abort,
            _ => return None,
        };
        (word & IS_SCOPE != 0).then_some(Self {
            scope: Scope {
                contract: contract.map(|contract| Promise { contract, breach }),
            },
            breaches: (word >> LOW) as u64,
        })
    }
}

/// Begins a hot scope of this thread. `None` if the thread has no cache and gets none: out of
/// memory, or at its end.
pub fn begin(contract: Contract, breach: Breach, setup: &Setup) -> Option<Before> {
    let cache = Handle::mine(setup)?;
    if breach != Breach::Count && !LOADED.swap(true, Ordering::Relaxed) {
        // The unwinder comes now, while the thread may still do everything.
        let scope = cache.scope();
        apply(cache, Scope::default());
        cache.arena().os().stack(&mut [0; 2]);
        apply(cache, scope);
    }
    let outer = cache.scope();
    Some(enter(cache, Scope::within(contract, breach, outer)))
}

/// Begins a scope in which this thread has promised nothing.
pub fn excuse() -> Option<Before> {
    Handle::existing().map(|cache| enter(cache, Scope::default()))
}

fn enter(cache: Handle, scope: Scope) -> Before {
    let before = Before {
        scope: cache.scope(),
        breaches: cache.breaches(),
    };
    apply(cache, scope);
    before
}

/// Ends the scope that began with this answer.
pub fn leave(before: Before) {
    if let Some(cache) = Handle::existing() {
        apply(cache, before.scope);
    }
}

fn apply(cache: Handle, scope: Scope) {
    cache.set_scope(scope);
    let head = cache.memory().cast();
    // SAFETY: the head is the first field of this thread's cache.
    unsafe { watch(head, scope.is_watched()) };
}

/// Times that this thread has broken a promise since then.
pub fn breaches_since(before: Before) -> u64 {
    Handle::existing().map_or(0, |cache| cache.breaches().saturating_sub(before.breaches))
}
