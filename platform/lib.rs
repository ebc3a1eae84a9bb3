//! The platform layer of theap: everything the allocator asks of the operating system.
//!
//! [`Os`] is the whole contract and this file is its one page: each function states what it needs,
//! whether memory comes zeroed and what failure looks like. The work is done in `linux/` (raw system
//! calls through rustix; libc only where rustix has no equivalent), and tests can put a fake in front
//! of it (`fake/`, feature `fake`) that injects failures, a topology and a clock.
//!
//! Nothing here allocates, panics on an answer of the kernel, or changes `errno`. Addresses are plain
//! `usize`: the layer above keeps bookkeeping on them and turns them into pointers itself (their
//! provenance is exposed by [`Os::reserve`]).
//!
//! A range of addresses is always in one of these states:
//!
//! ```text
//! reserve -> RESERVED --commit--> COMMITTED                      (metadata: lazily zero, for ever)
//!            RESERVED --map-----> MAPPED(mode) --unmap--> RESERVED   (memory of users)
//! ```
//!
//! No function ever leaves a hole in a reservation: a hole could be taken by a foreign `mmap` and then
//! be handed out as ours. Where the kernel can fail between taking away the old mapping and putting in
//! the new one, the hole is closed again, and if somebody was faster the answer is [`Error::Lost`].
#![no_std]
#![allow(unsafe_code)] // The contract's functions are unsafe; they forward to `linux/` or `fake/`.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("theap runs on Linux x86_64 only");

#[cfg(any(debug_assertions, test, feature = "fake"))]
extern crate std; // For thread-local variables: the ranks held (debug builds), the CPU of the fake.

use core::sync::atomic::AtomicU32;

mod error;
#[cfg(feature = "fake")]
mod fake;
mod linux;

pub use error::Error;
#[cfg(feature = "fake")]
pub use fake::{Call, Fake};
#[cfg(feature = "lock-stats")]
pub use linux::contention::{Contention, contention};
pub use linux::cpus::Cpus;
pub use linux::futex::{Guard, Mutex, Rank, RawMutex, spin_only};
pub use linux::line::Line;
pub use linux::share::Shared;
pub use linux::topology::{MAX_NODES, Topology};
pub use linux::worker::Worker;
pub use linux::{crash, fork, thread_exit};

/// The base page in bytes.
pub const PAGE: usize = 4096;
/// A hugepage, and the unit and alignment of [`Os::map`], in bytes.
pub const HUGE: usize = 2 << 20;
/// The large hugepage, in bytes.
pub const HUGE_1G: usize = 1 << 30;

/// The pages that memory is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageMode {
    /// 4 KiB pages, also where the system would turn them huge by itself.
    Small = 1,
    /// Transparent hugepages: 2 MiB where the kernel finds one at first touch, else 4 KiB.
    Thp = 2,
    /// 2 MiB pages of the system's hugetlb pool, populated.
    Hugetlb = 3,
    /// 1 GiB pages of their hugetlb pool, populated.
    Hugetlb1g = 4,
}

impl PageMode {
    /// The name, as the options have it.
    pub const fn name(self) -> &'static str {
        match self {
            PageMode::Small => "small",
            PageMode::Thp => "thp",
            PageMode::Hugetlb => "hugetlb",
            PageMode::Hugetlb1g => "hugetlb_1g",
        }
    }

    /// Number of values that a mode's number can have.
    pub const COUNT: usize = 5;

    /// Bytes of a page, the most that one is tried for.
    pub const fn page(self) -> usize {
        match self {
            PageMode::Small => PAGE,
            PageMode::Thp | PageMode::Hugetlb => HUGE,
            PageMode::Hugetlb1g => HUGE_1G,
        }
    }

    /// Whether the pages come from a hugetlb pool.
    pub const fn is_hugetlb(self) -> bool {
        matches!(self, PageMode::Hugetlb | PageMode::Hugetlb1g)
    }
}

/// A NUMA node by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(pub u8);

/// A CPU by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu(pub u32);

/// Handle to the operating system: zero-sized in products, may carry a fake in tests.
#[derive(Clone, Copy)]
pub struct Os {
    #[cfg(feature = "fake")]
    fake: Option<&'static Fake>,
}

#[cfg(not(feature = "fake"))]
const _: () = assert!(size_of::<Os>() == 0);

/// Lets the fake refuse a failable call before the kernel is asked.
macro_rules! inject {
    ($os:expr, $call:ident) => {
        #[cfg(feature = "fake")]
        if let Some(fake) = $os.fake {
            fake.check(Call::$call)?;
        }
    };
}

impl Os {
    /// The real system.
    pub const LINUX: Os = Os {
        #[cfg(feature = "fake")]
        fake: None,
    };

    /// The real system behind `fake`.
    #[cfg(feature = "fake")]
    pub const fn faked(fake: &'static Fake) -> Os {
        Os { fake: Some(fake) }
    }

    /// Reserves `len` bytes of addresses aligned to `align`: no memory, no access, no commit charge.
    /// `len` is a non-zero multiple of [`PAGE`], `align` a power of two of at least [`PAGE`].
    ///
    /// # Errors
    /// [`Error::NoMemory`] when the address space or its limit (RLIMIT_AS) has no room.
    pub fn reserve(self, len: usize, align: usize) -> Result<usize, Error> {
        inject!(self, Reserve);
        linux::map::reserve(len, align)
    }

    /// Puts a file in memory in the place of a reserved range, so that processes which may look into this one can read
    /// it, and write if they please. The range stays reserved until it is committed. It must not be purged or unmapped.
    ///
    /// # Errors
    /// The range is reserved as before, unless the error is [`Error::Lost`].
    ///
    /// # Safety
    /// The range is page-aligned and reserved.
    pub unsafe fn share(self, addr: usize, len: usize) -> Result<Shared, Error> {
        inject!(self, Share);
        // SAFETY: the caller's precondition is the same.
        unsafe { linux::share::share(addr, len) }
    }

    /// In a forked child: gives a shared range a file of the child's own, committed, with the same contents in its
    /// first `used` bytes and zero beyond. Without a file to be had the range becomes the child's all the same, and
    /// without memory it stays the parent's too: then the answer is false.
    ///
    /// The parent may go on writing to the range meanwhile: what it writes may be in the copy.
    ///
    /// # Safety
    /// `shared` is what [`Os::share`] answered for the same range, `used` bytes of it are committed, and no other
    /// thread of this process runs.
    pub unsafe fn share_anew(self, shared: &Shared, addr: usize, len: usize, used: usize) -> bool {
        // SAFETY: the caller's precondition is the same.
        unsafe { linux::share::share_anew(shared, addr, len, used) }
    }

    /// Gives the addresses back to the system, whatever is mapped there.
    ///
    /// # Safety
    /// The range is page-aligned, was obtained from [`Os::reserve`], and nothing refers to it any more.
    pub unsafe fn unreserve(self, addr: usize, len: usize) {
        // SAFETY: the caller's precondition is the same.
        unsafe { linux::map::unreserve(addr, len) }
    }

    /// Makes a reserved range readable and writable. It is zero and takes memory on first touch, in
    /// pages of the system's choice. Committing twice is harmless and keeps the contents.
    ///
    /// In a process that has called `mlockall` the kernel populates what is committed, and `mlockall`
    /// populates what has been: commit a large table in pieces, as it comes into use.
    ///
    /// # Errors
    /// [`Error::NoMemory`] (commit limit, number of mappings): the range is still reserved.
    ///
    /// # Safety
    /// The range is page-aligned and part of a reservation, reserved or committed.
    pub unsafe fn commit(self, addr: usize, len: usize) -> Result<(), Error> {
        inject!(self, Commit);
        // SAFETY: the caller's precondition is the same.
        unsafe { linux::map::commit(addr, len) }
    }

    /// Asks for transparent hugepages in a committed range: at first touch, and at once where it was touched in part
    /// (since Linux 6.1). Never fails: it is advice.
    ///
    /// # Safety
    /// The range is page-aligned and committed.
    pub unsafe fn prefer_huge(self, addr: usize, len: usize) {
        // SAFETY: the caller's precondition is the same.
        unsafe { linux::map::prefer_huge(addr, len) }
    }

    /// Makes a reserved range usable in exactly `mode`, zeroed, preferring the memory of node `bind`
    /// (without: that of the CPU which touches it first, or of an earlier binding of the same range).
    /// Hugetlb pages come populated; the others take memory on first touch. Neighbouring
    /// small or thp ranges become one mapping of the kernel; hugetlb ranges each stay one.
    ///
    /// # Errors
    /// The range is still reserved, and another mode may be tried, unless the error is [`Error::Lost`].
    /// [`Error::NoHugepages`]: the pool cannot serve the whole range. [`Error::Unsupported`]: the kernel
    /// lacks the mode (the THP switch `never` does not count: it yields small pages silently).
    /// [`Error::NoMemory`]: commit limit or number of mappings. [`Error::Other`]: the kernel refused the
    /// binding (EPERM where a container's filter blocks it, ENOSYS): try again without.
    ///
    /// # Safety
    /// The range is aligned to [`HUGE`] in address and length ([`HUGE_1G`] for pages of that size), and all of it is
    /// reserved and neither committed nor mapped.
    pub unsafe fn map(
        self,
        addr: usize,
        len: usize,
        mode: PageMode,
        bind: Option<NodeId>,
    ) -> Result<(), Error> {
        inject!(self, Map);
        #[cfg(feature = "fake")]
        if let Some(fake) = self.fake {
            // SAFETY: the caller's precondition is the same.
            return unsafe { fake.map(addr, len, mode, bind) };
        }
        // SAFETY: the caller's precondition is the same.
        unsafe { linux::map::map(addr, len, mode, bind) }
    }

    /// Makes a committed range prefer the memory of `node` for the pages that it does not have yet.
    ///
    /// # Errors
    /// [`Error::Other`] when the kernel, or a filter in front of it, refuses.
    pub fn bind(self, addr: usize, len: usize, node: NodeId) -> Result<(), Error> {
        inject!(self, Bind);
        #[cfg(feature = "fake")]
        if let Some(fake) = self.fake.filter(|fake| fake.pretends_nodes()) {
            fake.note_binding(addr, len, Some(node));
            return Ok(());
        }
        linux::numa::bind(addr, len, node)
    }

    /// Makes the kernel provide all pages of a committed or mapped range now, as if written to; the
    /// contents stay. Costs 50–200 µs a hugepage.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::Unsupported`] (before Linux 5.14): some pages may be there.
    ///
    /// # Safety
    /// The range is page-aligned and committed or mapped.
    pub unsafe fn populate(self, addr: usize, len: usize) -> Result<(), Error> {
        inject!(self, Populate);
        // SAFETY: the caller's precondition is the same.
        unsafe { linux::map::populate(addr, len) }
    }

    /// Puts the small pages of a range together to transparent hugepages now, whatever the system's switch says, and
    /// asks for such from now on; the contents stay, and whoever touches them meanwhile waits. Costs as much as copying.
    ///
    /// # Errors
    /// Some may be collapsed: the kernel has no hugepage free, or cannot do it (before Linux 6.1).
    ///
    /// # Safety
    /// The range is aligned to [`HUGE`] and mapped (small or thp).
    pub unsafe fn collapse(self, addr: usize, len: usize) -> Result<(), Error> {
        inject!(self, Collapse);
        // SAFETY: the caller's precondition is the same.
        unsafe { linux::map::collapse(addr, len) }
    }

    /// Gives the memory of a range back; it stays usable and reads zero again. Not for hugetlb.
    ///
    /// # Errors
    /// The contents are then unspecified: old or zero, page by page.
    ///
    /// # Safety
    /// The range is page-aligned, committed or mapped (not hugetlb), and nobody accesses it meanwhile.
    pub unsafe fn purge(self, addr: usize, len: usize) -> Result<(), Error> {
        inject!(self, Purge);
        // SAFETY: the caller's precondition is the same.
        unsafe { linux::map::purge(addr, len) }
    }

    /// Turns a mapped range into a reservation again and gives its memory back to the system.
    ///
    /// # Errors
    /// [`Error::Lost`]: never use the range again. Anything else (small and thp only): the range is
    /// still mapped, as after [`Os::purge`].
    ///
    /// # Safety
    /// The range was mapped with [`Os::map`] in this `mode` (whole pages, if hugetlb) and nothing
    /// refers to it any more.
    pub unsafe fn unmap(self, addr: usize, len: usize, mode: PageMode) -> Result<(), Error> {
        inject!(self, Unmap);
        // SAFETY: the caller's precondition is the same.
        let done = unsafe { linux::map::unmap(addr, len, mode) };
        #[cfg(feature = "fake")]
        if let (Some(fake), Ok(())) = (self.fake, done) {
            fake.forget(addr, len);
        }
        done
    }

    /// Moves the pages of `from` to `to` without copying: `to` then has the contents, and the mode and
    /// binding, of `from`; `from` stays mapped and reads zero. What `to` contained is gone.
    ///
    /// # Errors
    /// Nothing moved, `from` is as before. [`Error::Unsupported`] (before Linux 5.7, or there are too many mappings):
    /// `to` is mapped too. [`Error::Lost`]: `to` must never be used again. Anything else: `to` is only reserved now.
    ///
    /// # Safety
    /// Both ranges are page-aligned, mapped (small or thp), lie each inside one mapped range, do not
    /// overlap, and nobody accesses them meanwhile.
    pub unsafe fn move_pages(self, from: usize, to: usize, len: usize) -> Result<(), Error> {
        inject!(self, MovePages);
        // SAFETY: the caller's precondition is the same.
        unsafe { linux::map::move_pages(from, to, len) }
    }

    /// Moves a range off hugetlb pages, to transparent hugepages or small ones: addresses and contents stay, also
    /// where other threads write meanwhile. The hugetlb pages go back to their pool. The new pages are those of the
    /// node `bind` as far as it has any. Costs about as much as copying.
    ///
    /// # Errors
    /// Nothing has changed. [`Error::NoMemory`]; [`Error::Unsupported`] if other threads run and the kernel does not
    /// let this process use userfaultfd.
    ///
    /// # Safety
    /// The range is whole hugetlb pages, mapped so, and nobody unmaps it meanwhile. The process has `workers` threads
    /// that do not write to it.
    pub unsafe fn demote(
        self,
        addr: usize,
        len: usize,
        bind: Option<NodeId>,
        workers: usize,
    ) -> Result<(), Error> {
        inject!(self, Demote);
        // SAFETY: the caller's precondition is the same.
        unsafe { linux::demote::demote(addr, len, bind, workers) }
    }

    /// Free pages of the system's hugetlb pool that nobody has reserved, or what the control groups of this process
    /// leave it of those of 2 MiB, if that is less; 0 for modes without a pool.
    pub fn hugetlb_free(self, mode: PageMode) -> usize {
        linux::demote::hugetlb_free(mode)
    }

    /// Keeps the pages of a range in memory from the moment they are there (no swapping, no reclaim); hugetlb pages
    /// are so anyway. Populates nothing.
    ///
    /// # Errors
    /// [`Error::NoMemory`] over RLIMIT_MEMLOCK, [`Error::Other`] (EPERM) where that is 0. A part may be locked.
    ///
    /// # Safety
    /// The range is page-aligned and committed or mapped.
    pub unsafe fn lock(self, addr: usize, len: usize) -> Result<(), Error> {
        inject!(self, Lock);
        // SAFETY: the caller's precondition is the same.
        unsafe { linux::map::lock(addr, len) }
    }

    /// Whether the page of a mapped address is mapped by another process too (after a fork), or may be.
    pub fn is_shared(self, addr: usize) -> bool {
        linux::demote::is_shared(addr)
    }

    /// The node whose memory backs the page of `addr`; an untouched page is faulted in by asking.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on a kernel without NUMA, [`Error::Other`] for an address without memory.
    pub fn node_of(self, addr: usize) -> Result<NodeId, Error> {
        #[cfg(feature = "fake")]
        if let Some(node) = self.fake.and_then(|fake| fake.node_of(addr)) {
            return Ok(node);
        }
        linux::numa::node_of(addr)
    }

    /// The nodes whose memory backs the pages at `addr`, `addr + step` and so on; `None` where there is no page.
    /// Touches nothing, and asks about any address.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on a kernel without NUMA, [`Error::Other`] where a container's filter forbids the call.
    pub fn nodes_of(
        self,
        addr: usize,
        step: usize,
        nodes: &mut [Option<NodeId>],
    ) -> Result<(), Error> {
        linux::numa::nodes_of(addr, step, nodes)?;
        #[cfg(feature = "fake")]
        if let Some(fake) = self.fake {
            for (i, node) in nodes
                .iter_mut()
                .enumerate()
                .filter(|(_, node)| node.is_some())
            {
                *node = fake.node_of(addr + i * step).or(*node);
            }
        }
        Ok(())
    }

    /// The CPU this thread runs on at this moment and the kernel's node of it: a system call, for CPUs that the
    /// topology does not know. `None` if the kernel does not say.
    pub fn current_place(self) -> Option<(Cpu, NodeId)> {
        #[cfg(feature = "fake")]
        if let Some(place) = self.fake.and_then(|_| fake::current_place()) {
            return Some(place);
        }
        linux::numa::current_place()
    }

    /// The CPU this thread runs on at this moment (vDSO: no system call).
    pub fn current_cpu(self) -> Cpu {
        #[cfg(feature = "fake")]
        if let Some(cpu) = self.fake.and_then(|_| fake::current_cpu()) {
            return cpu;
        }
        linux::process::current_cpu()
    }

    /// The nodes that this process may use, and their CPUs; [`Topology::single`] if they cannot be read.
    pub fn topology(self) -> Topology {
        #[cfg(feature = "fake")]
        if let Some(topology) = self.fake.and_then(Fake::topology) {
            return topology;
        }
        linux::topology::read()
    }

    /// The machine's memory in bytes (a cgroup's limit is not considered).
    pub fn total_memory(self) -> u64 {
        linux::process::total_memory()
    }

    /// The machine's memory in bytes, or what the control groups of this process leave it, if that is less. Pages of a
    /// hugetlb pool need not count there.
    pub fn memory_limit(self) -> u64 {
        linux::cgroup::memory_limit().min(self.total_memory())
    }

    /// What `memory_limit` leaves beyond what this process has resident, in bytes. What others of its groups have, and
    /// what the kernel keeps of files for them, is not known.
    pub fn memory_left(self) -> u64 {
        self.memory_limit()
            .saturating_sub(linux::process::resident())
    }

    /// A number that nobody guesses: from the kernel; where it has none to give, one that differs from run to run
    /// (made of the clock and the addresses of stack and code).
    pub fn random(self) -> u64 {
        linux::process::random()
    }

    /// Nanoseconds of CLOCK_MONOTONIC (vDSO: no system call).
    pub fn now(self) -> u64 {
        #[cfg(feature = "fake")]
        if let Some(now) = self.fake.and_then(Fake::now) {
            return now;
        }
        linux::process::now()
    }

    /// As [`Os::now`], as of the last tick (1 to 10 ms ago): never a system call, whatever the machine's clock is.
    pub fn recently(self) -> u64 {
        #[cfg(feature = "fake")]
        if let Some(now) = self.fake.and_then(Fake::now) {
            return now;
        }
        linux::process::recently()
    }

    /// The value of an environment variable; `None` for all of them in a set-uid program.
    ///
    /// The program may change its environment: call this only at start, and copy what is to be kept.
    pub fn env(self, name: &[u8]) -> Option<&'static [u8]> {
        #[cfg(feature = "fake")]
        if let Some(value) = self.fake.and_then(|fake| fake.env(name)) {
            return value;
        }
        linux::process::env(name)
    }

    /// Writes all of `bytes` to standard error, or as much as it takes.
    pub fn stderr(self, bytes: &[u8]) {
        #[cfg(feature = "fake")]
        if let Some(fake) = self.fake {
            return fake.capture(bytes);
        }
        linux::process::stderr(bytes);
    }

    /// Starts `body(argument)` on a thread that the C library does not know, with all signals blocked; it allocates
    /// nothing. The thread may call the functions of this page, take locks without a rank, and use no thread-local
    /// variables; it ends when `body` returns. Behind a fake no thread is started.
    ///
    /// # Errors
    /// [`Error::NoMemory`] (memory, or the limit of threads), [`Error::Other`]: nothing runs.
    ///
    /// # Safety
    /// The worker's last thread, if there was one, has ended (see [`Os::join_worker`]) or was another process's.
    pub unsafe fn start_worker(
        self,
        worker: &'static Worker,
        body: fn(usize),
        argument: usize,
    ) -> Result<(), Error> {
        inject!(self, StartWorker);
        #[cfg(feature = "fake")]
        if self.fake.is_some() {
            return Ok(());
        }
        // SAFETY: the caller's precondition is the same.
        unsafe { linux::worker::start(worker, body, argument) }
    }

    /// Waits until the worker's thread has ended: it makes no system call any more.
    pub fn join_worker(self, worker: &Worker) {
        linux::worker::join(worker);
    }

    /// Names this thread (15 bytes count).
    pub fn name_thread(self, name: &core::ffi::CStr) {
        let _ = rustix::thread::set_name(name);
    }

    /// Lets this thread run only where nothing else wants to (SCHED_IDLE), or as any other (SCHED_OTHER). For a
    /// [`Worker`]'s thread. Whether the kernel agreed: back from idle it wants CAP_SYS_NICE or a RLIMIT_NICE that
    /// allows the thread's nice value.
    pub fn run_idle(self, idle: bool) -> bool {
        // Behind a fake the caller is a thread of the test.
        #[cfg(feature = "fake")]
        if self.fake.is_some() {
            return true;
        }
        linux::worker::run_idle(idle)
    }

    /// Nanoseconds that this thread has run (CLOCK_THREAD_CPUTIME_ID).
    pub fn thread_time(self) -> u64 {
        linux::process::thread_time()
    }

    /// Lets this thread run on these CPUs only, as far as the process may use them.
    ///
    /// # Errors
    /// [`Error::Other`]: the process may use none of them, or there are none.
    pub fn run_on(self, cpus: &Cpus) -> Result<(), Error> {
        linux::cpus::run_on(cpus)
    }

    /// The CPUs that this thread or the process's first one may run on.
    pub fn pinned_to(self) -> Cpus {
        linux::cpus::pinned_to()
    }

    /// Sleeps while the word has the value, for at most so many nanoseconds, or until [`Os::wake`].
    pub fn sleep(self, word: &AtomicU32, value: u32, ns: u64) {
        linux::worker::sleep(word, value, ns);
    }

    /// Wakes a thread that sleeps on the word.
    pub fn wake(self, word: &AtomicU32) {
        linux::worker::wake(word);
    }

    /// Ends the process with SIGABRT.
    pub fn abort(self) -> ! {
        linux::process::abort()
    }
}
