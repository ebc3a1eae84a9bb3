//! A fake in front of the real system, for tests.
//!
//! The fake injects a failure before it makes the real call, so memory is always real and a refused
//! call has changed nothing. Everything is off until a test turns it on. Nothing here allocates, so
//! that a fake may stand behind the allocator of the test itself.

mod map;
mod script;

use core::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Cpu, Error, NodeId, PageMode, Room, Topology};
use script::Script;

/// The failable calls of [`crate::Os`]. [`crate::Os::map`] counts as `Map` and, if it binds, as
/// `Bind`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each names the function it stands for")]
pub enum Call {
    Reserve,
    Commit,
    Map,
    Populate,
    Purge,
    Unmap,
    MovePages,
    Demote,
    Lock,
    Share,
    Collapse,
    StartWorker,
    Bind,
}

/// A variable's name, and its value if the variable is set.
type Variable = (&'static [u8], Option<&'static [u8]>);

const MAX_VARIABLES: usize = 32;
const MAX_BINDINGS: usize = 512;
const MAX_CAPTURED: usize = 16 << 10;

/// The orders of a test, and what the allocator has asked for.
pub struct Fake {
    script: Mutex<Script>,
    topology: Mutex<Option<&'static Topology>>,
    now: Mutex<Option<u64>>,
    memory_limit: Mutex<Option<u64>>,
    room: Mutex<Option<Room>>,
    pressed: Mutex<bool>,
    env: Mutex<Slots<Variable, MAX_VARIABLES>>,
    bindings: Mutex<Slots<Binding, MAX_BINDINGS>>,
    stderr: Mutex<([u8; MAX_CAPTURED], usize)>,
}

/// A range and the node to which it was bound last; `None` once the range was unmapped.
#[derive(Clone, Copy)]
struct Binding {
    addr: usize,
    len: usize,
    node: Option<NodeId>,
}

/// The newest `N` entries of a log.
struct Slots<T, const N: usize> {
    entries: [Option<T>; N],
    next: usize,
}

impl<T: Copy, const N: usize> Slots<T, N> {
    const fn new() -> Self {
        Slots {
            entries: [None; N],
            next: 0,
        }
    }

    fn push(&mut self, entry: T) {
        self.entries[self.next % N] = Some(entry);
        self.next += 1;
    }

    fn newest_first(&self) -> impl Iterator<Item = T> {
        (0..N).filter_map(|back| self.entries[(self.next + N - 1 - back) % N])
    }
}

std::thread_local! {
    static CPU: Cell<Option<u32>> = const { Cell::new(None) };
    static NODE: Cell<u8> = const { Cell::new(0) };
}

pub(crate) fn current_cpu() -> Option<Cpu> {
    CPU.get().map(Cpu)
}

pub(crate) fn current_place() -> Option<(Cpu, NodeId)> {
    Some((current_cpu()?, NodeId(NODE.get())))
}

/// Locks a mutex, also after a test that panicked while it held the lock: it leaves nothing
/// half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    /// A fake that changes nothing yet.
    pub const fn new() -> Self {
        Fake {
            script: Mutex::new(Script::new()),
            topology: Mutex::new(None),
            now: Mutex::new(None),
            memory_limit: Mutex::new(None),
            room: Mutex::new(None),
            pressed: Mutex::new(false),
            env: Mutex::new(Slots::new()),
            bindings: Mutex::new(Slots::new()),
            stderr: Mutex::new(([0; MAX_CAPTURED], 0)),
        }
    }

    /// The `n`-th failable call from now (0: the next one) fails, once.
    pub fn fail_nth(&self, n: u64) {
        lock(&self.script).arm(n, n.saturating_add(1));
    }

    /// All failable calls fail, from the `n`-th from now on.
    pub fn fail_from(&self, n: u64) {
        lock(&self.script).arm(n, u64::MAX);
    }

    /// Restricts what [`Fake::fail_nth`] and [`Fake::fail_from`] count and hit to one kind of call.
    pub fn fail_only(&self, call: Call) {
        lock(&self.script).only = Some(call);
    }

    /// The error that injected failures give, instead of [`Error::NoMemory`] ([`Error::Other`] with
    /// EPERM for `Bind`).
    pub fn fail_with(&self, error: Error) {
        lock(&self.script).error = Some(error);
    }

    /// Refuses every `map` in this mode, with the error that the real system gives where it lacks
    /// it.
    pub fn refuse(&self, mode: PageMode) {
        lock(&self.script).refused |= 1 << mode as u8;
    }

    /// Ends all failures and refusals and their restrictions. The count of calls goes on.
    pub fn heal(&self) {
        lock(&self.script).heal();
    }

    /// The number of failable calls so far, including the calls that failed by order.
    pub fn calls(&self) -> u64 {
        lock(&self.script).calls
    }

    /// The number of injected failures, refusals included, since the start or [`Fake::heal`].
    pub fn failed(&self) -> u64 {
        lock(&self.script).failed
    }

    /// The answer of [`crate::Os::topology`]. With several nodes, the fake records bindings, and
    /// the kernel no longer gets them.
    pub fn set_topology(&self, topology: &'static Topology) {
        *lock(&self.topology) = Some(topology);
    }

    /// The CPU that the calling thread claims to run on, behind any fake.
    pub fn set_cpu(&self, cpu: u32) {
        CPU.set(Some(cpu));
    }

    /// The CPU that the calling thread claims to run on, and that CPU's node by the kernel's
    /// number, for a CPU that the topology does not know.
    pub fn set_place(&self, cpu: u32, node: u8) {
        CPU.set(Some(cpu));
        NODE.set(node);
    }

    /// Stops the clock at `ns`.
    pub fn set_now(&self, ns: u64) {
        *lock(&self.now) = Some(ns);
    }

    /// Moves the stopped clock forward; stops it at `ns` if it was not stopped.
    pub fn advance(&self, ns: u64) {
        let mut now = lock(&self.now);
        *now = Some(now.unwrap_or(0) + ns);
    }

    /// The answer of [`crate::Os::process_id`] behind any fake.
    pub const PROCESS_ID: u32 = 4711;

    /// The answer of [`crate::Os::memory_limit`].
    pub fn set_memory_limit(&self, bytes: u64) {
        *lock(&self.memory_limit) = Some(bytes);
    }

    /// The answer of [`crate::Os::room`].
    pub fn set_room(&self, room: Room) {
        *lock(&self.room) = Some(room);
    }

    /// The next answer of [`crate::Os::is_pressed`] is that memory is short.
    pub fn press(&self) {
        *lock(&self.pressed) = true;
    }

    /// Overrides a variable of the environment: with a value, or as not set. The newest 32 count.
    pub fn set_env(&self, name: &'static [u8], value: Option<&'static [u8]>) {
        lock(&self.env).push((name, value));
    }

    /// The node that the mapped or committed range around `addr` was bound to.
    pub fn bound(&self, addr: usize) -> Option<NodeId> {
        let bindings = lock(&self.bindings);
        let mut around = bindings
            .newest_first()
            .filter(|b| (b.addr..b.addr + b.len).contains(&addr));
        around.next().and_then(|b| b.node)
    }

    /// Copies what the allocator wrote to standard error to `buffer` and answers the part in use.
    /// The fake keeps the first 16 KiB.
    pub fn read_stderr<'a>(&self, buffer: &'a mut [u8]) -> &'a [u8] {
        let captured = lock(&self.stderr);
        let len = captured.1.min(buffer.len());
        buffer[..len].copy_from_slice(&captured.0[..len]);
        &buffer[..len]
    }

    /// Forgets what the allocator wrote to standard error.
    pub fn clear_stderr(&self) {
        lock(&self.stderr).1 = 0;
    }

    pub(crate) fn check(&self, call: Call) -> Result<(), Error> {
        lock(&self.script).check(call)
    }

    pub(crate) fn forget(&self, addr: usize, len: usize) {
        self.note_binding(addr, len, None);
    }

    pub(crate) fn note_binding(&self, addr: usize, len: usize, node: Option<NodeId>) {
        lock(&self.bindings).push(Binding { addr, len, node });
    }

    /// The recorded node of an address; `None` if the kernel is to be asked.
    pub(crate) fn node_of(&self, addr: usize) -> Option<NodeId> {
        if !self.pretends_nodes() {
            return None;
        }
        Some(self.bound(addr).unwrap_or(NodeId(0)))
    }

    /// Whether the topology has nodes that the machine does not have.
    pub(crate) fn pretends_nodes(&self) -> bool {
        lock(&self.topology).as_ref().is_some_and(|t| t.nodes() > 1)
    }

    pub(crate) fn topology(&self) -> Option<&'static Topology> {
        *lock(&self.topology)
    }

    pub(crate) fn memory_limit(&self) -> Option<u64> {
        *lock(&self.memory_limit)
    }

    pub(crate) fn room(&self) -> Option<Room> {
        *lock(&self.room)
    }

    pub(crate) fn take_pressure(&self) -> bool {
        core::mem::take(&mut *lock(&self.pressed))
    }

    pub(crate) fn now(&self) -> Option<u64> {
        *lock(&self.now)
    }

    /// The overridden value of a variable; the outer `None` if the real environment is to be asked.
    pub(crate) fn env(&self, name: &[u8]) -> Option<Option<&'static [u8]>> {
        let env = lock(&self.env);
        env.newest_first()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    pub(crate) fn capture(&self, bytes: &[u8]) {
        let mut captured = lock(&self.stderr);
        let (text, len) = &mut *captured;
        let n = bytes.len().min(text.len() - *len);
        text[*len..*len + n].copy_from_slice(&bytes[..n]);
        *len += n;
    }
}

impl Default for Fake {
    fn default() -> Self {
        Fake::new()
    }
}
