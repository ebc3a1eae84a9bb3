//! [`Os`]: what the allocator asks of the operating system, on one page.
//!
//! A function asks the fake first, where a test has put one in front of the system, and then
//! forwards to `linux/` (under Miri to `miri/`).
#![allow(unsafe_code)] // Functions of the contract are unsafe, and forward to functions that are.

#[cfg(feature = "fake")]
use crate::fake::{self, Call, Fake};
use crate::{Cpu, Error, Line, Mapping, NodeId, PAGE, PageMode, Shared, Topology};
use crate::{system, topology};

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

mod hugetlb;
mod room;
mod threads;

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

    /// Reserves `len` bytes of addresses aligned to `align` bytes: they have no memory and no
    /// access, and do not count against the commit limit. `len` is a non-zero multiple of [`PAGE`],
    /// `align` a power of two of at least [`PAGE`].
    ///
    /// # Errors
    /// [`Error::NoMemory`] when the address space or its limit (RLIMIT_AS) has no room,
    /// [`Error::Other`] with EINVAL when `len` or `align` is not as described.
    pub fn reserve(self, len: usize, align: usize) -> Result<usize, Error> {
        inject!(self, Reserve);
        if len == 0 || !len.is_multiple_of(PAGE) || align < PAGE || !align.is_power_of_two() {
            return Err(Error::Other(libc::EINVAL));
        }
        system::map::reserve(len, align)
    }

    /// Chooses an address, a multiple of `align`, behind which `len` bytes of addresses are free as
    /// a rule: at random, in a part of the address space where the kernel itself maps nothing while
    /// it has room elsewhere. Nothing is reserved. `None` where there is no such part.
    pub fn distant_place(self, len: usize, align: usize) -> Option<usize> {
        system::map::distant_place(len, align)
    }

    /// Reserves exactly this page-aligned range, as [`Os::reserve`] does.
    ///
    /// # Errors
    /// [`Error::Lost`] when something is mapped there; [`Error::NoMemory`] or [`Error::Other`] when
    /// the kernel refuses. Nothing was reserved.
    pub fn reserve_at(self, addr: usize, len: usize) -> Result<(), Error> {
        inject!(self, Reserve);
        system::map::reserve_at(addr, len)
    }

    /// Puts a file in memory in the place of a reserved range. Processes that may look into this
    /// one can then read the range, and write to it. The range stays reserved until it is
    /// committed. Nobody may purge or unmap it.
    ///
    /// # Errors
    /// The range is reserved as before, unless the error is [`Error::Lost`].
    ///
    /// # Safety
    /// The range is page-aligned and reserved.
    pub unsafe fn share(self, addr: usize, len: usize) -> Result<Shared, Error> {
        inject!(self, Share);
        // SAFETY: the range is page-aligned and reserved, as the caller promises in `# Safety`.
        unsafe { system::share::share(addr, len) }
    }

    /// In a forked child: gives a shared range a file of the child's own, committed, with the same
    /// contents in its first `used` bytes and zero beyond. If the kernel gives no file, the range
    /// gets private memory of the child instead. If it gives no memory either, the answer is false
    /// and the child still shares the range with its parent.
    ///
    /// The parent may go on writing to the range meanwhile: the copy may have what it writes.
    ///
    /// # Safety
    /// `shared` is the answer of [`Os::share`] for the same range, `used` bytes of the range are
    /// committed, and no other thread of this process runs.
    pub unsafe fn share_anew(self, shared: &Shared, addr: usize, len: usize, used: usize) -> bool {
        // SAFETY: the caller promises in `# Safety` what this function asks for.
        unsafe { system::share::share_anew(shared, addr, len, used) }
    }

    /// Gives the addresses of a range back to the system, and whatever is mapped there.
    ///
    /// # Safety
    /// The range is page-aligned, came from [`Os::reserve`], and nothing refers to it any more.
    pub unsafe fn unreserve(self, addr: usize, len: usize) {
        // SAFETY: the caller gives the range up, as `# Safety` says.
        unsafe { system::map::unreserve(addr, len) }
    }

    /// Makes a reserved range readable and writable. The range is zero and takes memory on first
    /// touch, in pages of the system's choice. To commit it twice is harmless and keeps the
    /// contents.
    ///
    /// In a process that has called `mlockall` the kernel populates each range when it is
    /// committed, and `mlockall` populates all that is committed already: commit a large table in
    /// pieces, as the pieces come into use.
    ///
    /// # Errors
    /// [`Error::NoMemory`] (commit limit, number of mappings): the range is still reserved.
    ///
    /// # Safety
    /// The range is page-aligned and part of a reservation, reserved or committed.
    pub unsafe fn commit(self, addr: usize, len: usize) -> Result<(), Error> {
        inject!(self, Commit);
        // SAFETY: the range is part of a reservation, as the caller promises in `# Safety`.
        unsafe { system::map::commit(addr, len) }
    }

    /// Makes a reserved range readable and writable that nobody has committed or mapped, as
    /// [`Os::commit`] does; also where a filter in front of the kernel forbids to change a mapping.
    ///
    /// # Errors
    /// [`Error::NoMemory`] (commit limit, number of mappings): the range is still reserved.
    /// [`Error::Lost`]: never use the range again.
    ///
    /// # Safety
    /// The range is page-aligned and part of a private reservation, neither committed nor mapped.
    pub unsafe fn open(self, addr: usize, len: usize) -> Result<(), Error> {
        inject!(self, Commit);
        // SAFETY: the range is part of a reservation, as the caller promises in `# Safety`.
        unsafe { system::map::open(addr, len) }
    }

    /// Does at once what [`Os::reserve_at`] and [`Os::open`] do.
    ///
    /// # Errors
    /// Those of both; nothing was reserved.
    pub fn open_at(self, addr: usize, len: usize) -> Result<(), Error> {
        inject!(self, Commit);
        system::map::open_at(addr, len)
    }

    /// Prepares what [`Os::map`] needs to make memory of a mode and a node without asking the
    /// kernel for advice each time. It takes a page of addresses, once in a process. Without it,
    /// or where the kernel refuses, `map` works all the same.
    pub fn make_mould(self, mode: PageMode, bind: Option<NodeId>) {
        #[cfg(feature = "fake")]
        if self.fake.is_some_and(Fake::pretends_nodes) {
            return;
        }
        system::mould::make(mode, bind);
    }

    /// Gives a whole reservation the advice of a mode (small or thp) and prefers the memory of node
    /// `bind`, so that it need only be opened. This is advice and never fails.
    ///
    /// # Safety
    /// The range is page-aligned, reserved, and neither committed nor mapped.
    pub unsafe fn advise(self, addr: usize, len: usize, mode: PageMode, bind: Option<NodeId>) {
        // SAFETY: the range is reserved, as the caller promises in `# Safety`.
        unsafe { system::map::advise_all(addr, len, mode, bind) }
    }

    /// Makes a reserved range usable in exactly `mode`, zeroed, and prefers the memory of node
    /// `bind`. Without `bind` it prefers the memory of the CPU that touches the range first, or of
    /// an earlier binding of the same range. Hugetlb pages come populated; the others take memory
    /// on first touch. Neighbouring small or thp ranges become one mapping of the kernel; hugetlb
    /// ranges each stay one.
    ///
    /// # Errors
    /// The range is still reserved, and the caller may try another mode, unless the error is
    /// [`Error::Lost`]. [`Error::NoHugepages`]: the pool cannot serve the whole range.
    /// [`Error::Unsupported`]: the kernel lacks the mode (the THP switch `never` does not count: it
    /// silently gives small pages). [`Error::NoMemory`]: commit limit or number of mappings.
    /// [`Error::Other`]: the kernel refused the binding (EPERM where a container's filter blocks
    /// it, ENOSYS): try again without.
    ///
    /// # Safety
    /// The range is aligned to [`HUGE`](crate::HUGE) in address and length
    /// ([`HUGE_1G`](crate::HUGE_1G) for pages of that size), and all of it is reserved and neither
    /// committed nor mapped.
    pub unsafe fn map(
        self,
        addr: usize,
        len: usize,
        mode: PageMode,
        bind: Option<NodeId>,
    ) -> Result<(), Error> {
        // SAFETY: the same conditions.
        unsafe { self.map_ahead(addr, (len, len), mode, bind) }
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
        system::numa::bind(addr, len, node)
    }

    /// Makes the kernel provide all pages of a committed or mapped range now, as if somebody had
    /// written to them; the contents stay. It costs 50–200 µs a hugepage.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::Unsupported`] (before Linux 5.14): some pages may be there.
    ///
    /// # Safety
    /// The range is page-aligned and committed or mapped.
    pub unsafe fn populate(self, addr: usize, len: usize) -> Result<(), Error> {
        inject!(self, Populate);
        // SAFETY: the range is committed or mapped, as the caller promises in `# Safety`.
        unsafe { system::map::populate(addr, len) }
    }

    /// Puts the small pages of a range together to transparent hugepages now, whatever the system's
    /// switch says, and asks for hugepages from now on. The contents stay, and a thread that
    /// touches them meanwhile waits. It costs as much as copying.
    ///
    /// # Errors
    /// Some hugepages may be there: the kernel has no more of them free, or cannot collapse pages
    /// (before Linux 6.1).
    ///
    /// # Safety
    /// The range is aligned to [`HUGE`](crate::HUGE) and mapped (small or thp).
    pub unsafe fn collapse(self, addr: usize, len: usize) -> Result<(), Error> {
        inject!(self, Collapse);
        // SAFETY: the range is mapped, as the caller promises in `# Safety`.
        unsafe { system::map::collapse(addr, len) }
    }

    /// Gives the memory of a range back; the range stays usable and reads zero again. Not for
    /// hugetlb.
    ///
    /// # Errors
    /// The contents are then unspecified: old or zero, page by page.
    ///
    /// # Safety
    /// The range is page-aligned, committed or mapped (not hugetlb), and nobody accesses it
    /// meanwhile.
    pub unsafe fn purge(self, addr: usize, len: usize) -> Result<(), Error> {
        inject!(self, Purge);
        // SAFETY: the caller promises in `# Safety` that the range is usable and that nobody uses
        // it.
        unsafe { system::map::purge(addr, len) }
    }

    /// Turns a mapped range into a reservation again and gives its memory back to the system.
    ///
    /// # Errors
    /// [`Error::Lost`]: never use the range again. Any other error (small and thp only): the range
    /// is still mapped, as after [`Os::purge`].
    ///
    /// # Safety
    /// [`Os::map`] mapped the range in this `mode` (whole pages, if hugetlb), and nothing refers to
    /// the range any more.
    pub unsafe fn unmap(self, addr: usize, len: usize, mode: PageMode) -> Result<(), Error> {
        inject!(self, Unmap);
        // SAFETY: the range is mapped in `mode` and given up, as the caller promises in `# Safety`.
        let done = unsafe { system::map::unmap(addr, len, mode) };
        #[cfg(feature = "fake")]
        if let (Some(fake), Ok(())) = (self.fake, done) {
            fake.forget(addr, len);
        }
        done
    }

    /// Maps `len` bytes (a multiple of [`PAGE`]) at a multiple of `align` (a power of two of at
    /// least [`PAGE`]) wherever the kernel likes, on small or transparent huge pages; without a
    /// mode no advice is given. The range reads zero, takes memory on first touch, and is charged
    /// against the commit limit where the kernel charges it. [`Os::unreserve`] gives it back.
    ///
    /// # Errors
    /// [`Error::NoMemory`] (addresses, commit limit, number of mappings).
    pub fn map_anywhere(
        self,
        len: usize,
        align: usize,
        mode: Option<PageMode>,
    ) -> Result<usize, Error> {
        inject!(self, Map);
        system::map::map_anywhere(len, align, mode)
    }

    /// Makes a mapping longer or shorter, with its contents: where it is, or at another address.
    /// What is added reads zero. The new address, which is a multiple of [`PAGE`].
    ///
    /// # Errors
    /// The mapping is as before.
    ///
    /// # Safety
    /// The `old` bytes from `addr` on are one mapping (small or thp) of the caller's alone. Nobody
    /// refers to it by its old address or beyond its new length any more.
    pub unsafe fn remap(self, addr: usize, old: usize, new: usize) -> Result<usize, Error> {
        inject!(self, MovePages);
        // SAFETY: the caller promises in `# Safety` what this function asks for.
        unsafe { system::map::remap(addr, old, new) }
    }

    /// Moves the pages of `from` to `to` without copying: `to` then has the contents, and the mode
    /// and binding, of `from`; `from` stays mapped and reads zero. The old contents of `to` are
    /// gone.
    ///
    /// # Errors
    /// Nothing moved, `from` is as before. [`Error::Unsupported`] (before Linux 5.7, or there are
    /// too many mappings): `to` is mapped too. [`Error::Lost`]: never use `to` again. Any other
    /// error: `to` is only reserved now.
    ///
    /// # Safety
    /// Both ranges are page-aligned, mapped (small or thp), lie each inside one mapped range, do
    /// not overlap, and nobody accesses them meanwhile.
    pub unsafe fn move_pages(self, from: usize, to: usize, len: usize) -> Result<(), Error> {
        inject!(self, MovePages);
        // SAFETY: both ranges are mapped, apart and unused, as the caller promises in `# Safety`.
        unsafe { system::map::move_pages(from, to, len) }
    }

    /// Moves a range off hugetlb pages, to transparent hugepages or small ones: addresses and
    /// contents stay, also where other threads write meanwhile. The hugetlb pages go back to their
    /// pool. The new pages are those of the node `bind` as far as it has any. It costs about as
    /// much as copying.
    ///
    /// # Errors
    /// Nothing has changed. [`Error::NoMemory`]; [`Error::Unsupported`] if other threads run and
    /// the kernel does not let this process use userfaultfd.
    ///
    /// # Safety
    /// The range is whole hugetlb pages, mapped so, and nobody unmaps it meanwhile. The process has
    /// `workers` threads that do not write to it.
    pub unsafe fn demote(
        self,
        addr: usize,
        len: usize,
        bind: Option<NodeId>,
        workers: usize,
    ) -> Result<(), Error> {
        inject!(self, Demote);
        // SAFETY: the caller promises in `# Safety` what this function asks for.
        unsafe { system::demote::demote(addr, len, bind, workers) }
    }

    /// Keeps the pages of a range in memory from the moment they are there: the kernel neither
    /// swaps nor reclaims them. It never does so with hugetlb pages. This populates nothing.
    ///
    /// # Errors
    /// [`Error::NoMemory`] over RLIMIT_MEMLOCK, [`Error::Other`] (EPERM) where that is 0. A part
    /// may be locked.
    ///
    /// # Safety
    /// The range is page-aligned and committed or mapped.
    pub unsafe fn lock(self, addr: usize, len: usize) -> Result<(), Error> {
        inject!(self, Lock);
        // SAFETY: the range is committed or mapped, as the caller promises in `# Safety`.
        unsafe { system::map::lock(addr, len) }
    }

    /// Whether another process maps the page of a mapped address too (after a fork), or may map it.
    pub fn is_shared(self, addr: usize) -> bool {
        system::map::is_shared(addr)
    }

    /// The node whose memory backs the page of `addr`. The kernel provides an untouched page in
    /// order to answer.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on a kernel without NUMA, [`Error::Other`] for an address without
    /// memory.
    pub fn node_of(self, addr: usize) -> Result<NodeId, Error> {
        #[cfg(feature = "fake")]
        if let Some(node) = self.fake.and_then(|fake| fake.node_of(addr)) {
            return Ok(node);
        }
        system::numa::node_of(addr)
    }

    /// The nodes whose memory backs the pages at `addr`, `addr + step` and so on (`step` in bytes);
    /// `None` where there is no page. This touches nothing, and takes any address.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on a kernel without NUMA, [`Error::Other`] where a container's filter
    /// forbids the call.
    pub fn nodes_of(
        self,
        addr: usize,
        step: usize,
        nodes: &mut [Option<NodeId>],
    ) -> Result<(), Error> {
        system::numa::nodes_of(addr, step, nodes)?;
        #[cfg(feature = "fake")]
        if let Some(fake) = self.fake {
            for (i, node) in nodes.iter_mut().enumerate().filter(|(_, n)| n.is_some()) {
                *node = fake.node_of(addr + i * step).or(*node);
            }
        }
        Ok(())
    }

    /// The CPU on which this thread runs at this moment, and the kernel's node of that CPU: by a
    /// system call, for CPUs that the topology does not know. `None` if the kernel does not say.
    pub fn current_place(self) -> Option<(Cpu, NodeId)> {
        #[cfg(feature = "fake")]
        if let Some(place) = self.fake.and_then(|_| fake::current_place()) {
            return Some(place);
        }
        system::numa::current_place()
    }

    /// The CPU on which this thread runs at this moment (vDSO: no system call).
    pub fn current_cpu(self) -> Cpu {
        #[cfg(feature = "fake")]
        if let Some(cpu) = self.fake.and_then(|_| fake::current_cpu()) {
            return cpu;
        }
        system::process::current_cpu()
    }

    /// The nodes that this process may use, and their CPUs, as they were at the first call of the
    /// process; [`Topology::single`] if the kernel does not tell them.
    pub fn topology(self) -> &'static Topology {
        #[cfg(feature = "fake")]
        if let Some(topology) = self.fake.and_then(Fake::topology) {
            return topology;
        }
        topology::host()
    }

    /// The machine's memory in bytes (a control group's limit does not count).
    pub fn total_memory(self) -> u64 {
        system::process::total_memory()
    }

    /// The machine's memory in bytes, or what the control groups of this process leave it, if that
    /// is less. Pages of a hugetlb pool need not count there.
    pub fn memory_limit(self) -> u64 {
        #[cfg(feature = "fake")]
        if let Some(bytes) = self.fake.and_then(Fake::memory_limit) {
            return bytes;
        }
        system::cgroup::memory_limit().min(self.total_memory())
    }

    /// [`Os::memory_limit`] less the resident memory of this process, in bytes. The memory of other
    /// processes in its control groups, and what the kernel keeps of files for them, is not known.
    pub fn memory_left(self) -> u64 {
        self.memory_limit()
            .saturating_sub(system::process::resident())
    }

    /// Gives `each` the mappings of the process, by their addresses. Opens a file, and maps two
    /// pages for as long as that takes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the file cannot be read.
    pub fn each_mapping(self, each: &mut dyn FnMut(&Mapping)) -> Result<(), Error> {
        system::smaps::each(each)
    }

    /// A number from the kernel that nobody can guess. Where the kernel has none to give, the
    /// number is made of the clock and the addresses of stack and code: it differs from run to run.
    pub fn random(self) -> u64 {
        system::process::random()
    }

    /// Nanoseconds of CLOCK_MONOTONIC (vDSO: no system call).
    pub fn now(self) -> u64 {
        #[cfg(feature = "fake")]
        if let Some(now) = self.fake.and_then(Fake::now) {
            return now;
        }
        system::process::now()
    }

    /// The time of [`Os::now`] at the last tick (1 to 10 ms ago), in nanoseconds: never a system
    /// call, whatever the machine's clock is.
    pub fn recently(self) -> u64 {
        #[cfg(feature = "fake")]
        if let Some(now) = self.fake.and_then(Fake::now) {
            return now;
        }
        system::process::recently()
    }

    /// Calls `read` with the value of an environment variable; with `None` if the variable is not
    /// set, and always in a set-uid program. The value is the program's, which may change it later:
    /// copy what is to be kept.
    pub fn env<R>(self, name: &[u8], read: impl FnOnce(Option<&[u8]>) -> R) -> R {
        #[cfg(feature = "fake")]
        if let Some(value) = self.fake.and_then(|fake| fake.env(name)) {
            return read(value);
        }
        system::process::env(name, read)
    }

    /// Writes all of `bytes` to standard error, or as much as standard error takes.
    pub fn stderr(self, bytes: &[u8]) {
        #[cfg(feature = "fake")]
        if let Some(fake) = self.fake {
            return fake.capture(bytes);
        }
        system::stderr::write(bytes);
    }

    /// Notes the file to which descriptor 2 refers now, as that of the program's standard error.
    /// Only the first call in a process does so: call it early.
    pub fn note_stderr(self) {
        system::stderr::note();
    }

    /// Writes like [`Os::stderr`], but only while descriptor 2 refers to the file that
    /// [`Os::note_stderr`] found there. It says nothing if the descriptor was closed then. For
    /// messages that can be left out: the descriptor may be a data file's by now.
    pub fn remark(self, bytes: &[u8]) {
        #[cfg(feature = "fake")]
        if let Some(fake) = self.fake {
            return fake.capture(bytes);
        }
        system::stderr::remark(bytes);
    }

    /// Writes the addresses to which this thread's calls return, the latest first, and answers how
    /// many there were room for. The first call in a process loads the unwinder: it opens a file
    /// and allocates. Later ones do neither.
    pub fn stack(self, into: &mut [usize]) -> usize {
        system::stack::capture(into)
    }

    /// Tells where an address on this thread's stack lies. The loader takes a lock for that.
    pub fn frame(self, address: usize) -> Option<crate::Frame> {
        system::stack::frame(address)
    }

    /// Keeps the library that this code is a part of loaded for as long as the process runs. Of the
    /// program itself nothing has to be kept. The loader takes a lock for that and may allocate:
    /// the caller holds none, and the heap serves already.
    pub fn pin_library(self) {
        system::library::pin();
    }

    /// Ends the process with SIGABRT.
    pub fn abort(self) -> ! {
        system::process::abort()
    }
}

impl<const N: usize> Line<N> {
    /// Writes the line and a newline to standard error, in one write.
    pub fn send(mut self, os: Os) {
        self.end();
        os.stderr(self.as_bytes());
    }

    /// Writes the line and a newline by [`Os::remark`]: not into a file that got the number of
    /// standard error later.
    pub fn remark(mut self, os: Os) {
        self.end();
        os.remark(self.as_bytes());
    }
}
