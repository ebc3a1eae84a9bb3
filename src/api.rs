//! [`Theap`] as Rust's global allocator, and the functions that act on the process's heap.
#![allow(unsafe_code)] // The allocator traits, and C's functions.

use crate::config::Config;
use crate::front::{self, Setup};
use crate::gate::{Classes, Front};
use crate::placement::Placement;
use crate::pool::Arena;
use crate::pool::global::existing_arena;
use crate::process::{self, DEFAULT};
use crate::residence;
use crate::stats::board::Board;
use crate::stats::{HeapStats, Resident, Stats};
use crate::{Error, classes};
use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use theap_platform::Os;

/// The allocator. All values share the one heap of the process, which is made at the first
/// allocation. It is made with the options of the value that allocates first; the environment's
/// variables override them.
///
/// ```
/// use theap::{Config, Pages, Theap};
///
/// #[global_allocator]
/// static HEAP: Theap = Theap::with(Config::new().pages(Pages::Auto));
///
/// let words = vec![0u64; 1000];
/// assert!(theap::owns(words.as_ptr().cast()));
/// ```
#[derive(Clone, Copy)]
pub struct Theap {
    setup: Setup,
}

impl Theap {
    /// An allocator with default options.
    pub const fn new() -> Self {
        Self::with(Config::new())
    }

    /// An allocator with these options.
    pub const fn with(config: Config) -> Self {
        Self {
            setup: process::setup(config),
        }
    }
}

impl Default for Theap {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Theap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Theap")
            .field("config", &self.setup.config)
            .finish()
    }
}

// SAFETY: blocks are disjoint, aligned and as large as asked for (classes and runs), and live until
// they are freed; null is returned when there is no memory; nothing unwinds.
unsafe impl GlobalAlloc for Theap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= 16 {
            front::alloc(layout.size(), &self.setup)
        } else {
            front::alloc_aligned(layout.size(), layout.align(), &self.setup)
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `GlobalAlloc`'s contract: a live block of this layout.
        unsafe {
            if layout.align() <= 16 {
                front::free_sized(block, layout.size(), &self.setup);
            } else {
                front::free(block, &self.setup);
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        front::alloc_zeroed(layout.size(), layout.align(), &self.setup)
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: `GlobalAlloc`'s contract: a live block of this layout.
        unsafe { front::resize(block, layout.size(), new_size, layout.align(), &self.setup) }
    }
}

/// Prepares `bytes` of memory of the calling thread's NUMA node, which its threads can then take
/// without a page fault: maps and touches it, and fills in the metadata. What is free already
/// counts. Blocks take the size of their class, at most a quarter more than was asked for, and
/// each thread begins a span of 64 KiB to 1 MiB of each class: whoever knows sizes alone adds that.
///
/// Each 2 MiB take 50 to 200 µs.
///
/// # Errors
/// The system's error if it refuses memory, or [`Error::NoMemory`] while the heap is sealed and
/// beyond the option `limit`. The memory that was prepared until then stays.
pub fn warm_up(bytes: usize) -> Result<(), Error> {
    front::warm_up(bytes, &DEFAULT)
}

/// Prepares the calling thread so that it can allocate `count` blocks of `size` bytes without a
/// page fault or a system call, whatever other threads take meanwhile: the thread's heap maps and
/// touches spans, and keeps them. The promise lasts until the blocks have been used and freed
/// (their memory then stays warm in the pool), or until [`collect`]. Sizes above 2 MiB have no
/// class: their memory is prepared as by [`warm_up`], for the whole node.
///
/// # Errors
/// Errors as for [`warm_up`]. The memory that was prepared until then stays.
pub fn warm_up_class(size: usize, count: usize) -> Result<(), Error> {
    front::warm_up_class(size, count, &DEFAULT)
}

/// Returns the blocks that the calling thread keeps in magazines to their spans, collects the
/// blocks of its spans that other threads have freed, forgets what the workload has taught the
/// thread to keep, and gives wholly free spans back to the pool. It makes no system call.
pub fn collect() {
    front::collect();
}

/// Does what [`collect`] does, then gives all free memory of the heap back to the system, and with
/// it the memory of thread caches whose threads have ended. Of spans in which blocks are live it
/// gives the free pages back, for which it splits a transparent hugepage if half of it is free.
/// Blocks in the magazines of other threads stay, and the spans of their heaps. Returns the number
/// of bytes of the heap that were given back; free pages of spans count whether or not they were
/// resident.
pub fn purge() -> usize {
    let bytes = front::discard();
    bytes + existing_arena().map_or(0, Arena::purge)
}

/// Registers the function that is called when the heap, as it grows, has reached the option
/// `soft_limit`, instead of the one before; `None` is none. The heap need not exist yet.
///
/// The heap first does what [`purge`] does and unmaps what is wholly free; the function is told the
/// bytes that are mapped then, and may free more. It runs on the thread whose allocation was the
/// reason or on one that allocates next, within that thread's allocation and on its stack, without
/// any of the heap's locks. It may allocate and free; no thread calls it again while it runs. It is
/// called again when another eighth of `soft_limit` was mapped, or when the heap goes beyond
/// `soft_limit` after it had fallen an eighth below. A panic in it ends the process.
///
/// ```
/// theap::on_soft_limit(Some(|mapped| eprintln!("the heap has {mapped} bytes")));
/// ```
pub fn on_soft_limit(function: Option<fn(mapped: usize)>) {
    front::on_soft_limit(function);
}

/// Acts on `soft_limit` in the calling thread, so that no other thread waits for that: until
/// `function` answers false, this thread looks every 10 ms whether the limit was reached, does what
/// [`on_soft_limit`] describes, and calls `function` instead of the one registered there. It is
/// false at once if there is no `soft_limit` or no memory, or if another thread does this already.
///
/// ```no_run
/// std::thread::spawn(|| theap::serve_soft_limit(|mapped| { eprintln!("{mapped} bytes"); true }));
/// ```
pub fn serve_soft_limit(mut function: impl FnMut(usize) -> bool) -> bool {
    front::serve_soft_limit(&mut function, &DEFAULT)
}

/// From now on the allocator makes no system call. An operation that would need one is refused, and
/// counted in `Stats::refusals`; an allocation then returns null. A thread that has not allocated
/// yet gets no heap unless that of a thread that has ended is free. Threads that wait for one of
/// the pool's locks spin. Misuse still ends the process with a message.
///
/// Call it after [`warm_up`], and after every thread has allocated once.
pub fn seal() {
    if let Some(arena) = existing_arena() {
        arena.set_sealed(true);
    }
}

/// Allows system calls again after [`seal`].
pub fn unseal() {
    if let Some(arena) = existing_arena() {
        arena.set_sealed(false);
    }
}

/// Sets the front that serves from now on. Each thread switches when it next refills, drains or
/// calls [`collect`]. No block is lost: those in a magazine go to their spans, and those on a list
/// are used up. Without the feature `magazines`, the classic front serves in any case.
pub fn set_front(front: Front) {
    if let Some(arena) = front::arena(&DEFAULT) {
        arena.policy().gate().set_front(front);
    }
}

/// Sets the classes that magazines serve while the front is [`Front::Theap`]. Threads switch as
/// after [`set_front`].
pub fn set_classes(classes: Classes) {
    if let Some(arena) = front::arena(&DEFAULT) {
        arena.policy().gate().set_classes(classes);
    }
}

/// Lets all threads' magazines grow beyond the option `magazine` with the workload (the option
/// `learn`), or not: then they shrink only where other classes of the thread need their bytes
/// (`thread_cache`).
pub fn set_learning(on: bool) {
    if let Some(arena) = front::arena(&DEFAULT) {
        arena.policy().set_learning(on);
    }
}

/// The front, and the classes that magazines serve under [`Front::Theap`], as they were set last.
/// `None` before the first use of the heap.
pub fn gates() -> Option<(Front, Classes)> {
    existing_arena().map(|arena| arena.policy().gate().get())
}

/// The heap's figures and counters. All are zero before the first allocation. What the calling
/// thread's magazines hold is counted now; what those of other threads hold, when a batch of the
/// class moved last.
pub fn stats() -> Stats {
    let mut stats = Stats::default();
    if let Some(board) = noted_board() {
        stats.fill(&board);
    }
    stats
}

/// The figures of each heap that is used, with the number of the thread that has it. There is none
/// before the first allocation.
pub fn heaps() -> impl Iterator<Item = HeapStats> + Clone {
    let board = noted_board();
    board.into_iter().flat_map(|board| board.heaps())
}

/// The board, on which this thread has noted what its cache holds.
fn noted_board() -> Option<Board<'static>> {
    front::note_cached();
    existing_arena()?.figures().board()
}

/// The memory that the kernel has for the heap. The kernel writes and this function reads
/// `/proc/self/smaps`, which takes some µs a mapping and up to a millisecond a GiB of small pages;
/// nothing else of theap asks for it. All is zero before the first allocation.
///
/// # Errors
/// [`Error::NoMemory`] while the heap is sealed; [`Error::Unsupported`] where the file cannot be
/// read.
pub fn resident() -> Result<Resident, Error> {
    existing_arena().map_or(Ok(Resident::default()), residence::ask)
}

/// The NUMA nodes to which the heap's memory is bound, and those on which it lies. The kernel is
/// asked about every page, which takes 100 to 200 µs for each 2 MiB on small and transparent
/// pages. There is no row before the first allocation.
///
/// # Errors
/// [`Error::Unsupported`] on a kernel without NUMA, [`Error::Other`] where a container's filter
/// forbids `move_pages`.
pub fn placement() -> Result<Placement, Error> {
    existing_arena().map_or(Ok(Placement::NONE), Placement::gather)
}

/// The bytes of a block of the size class with this number, which events name, if there is one.
pub fn class_size(class: usize) -> Option<usize> {
    classes::CLASSES.get(class).map(|class| class.size as usize)
}

/// Checks that the allocator's magazines, heaps, spans, lists, slots and tables agree with each
/// other. There is no such function in release builds. It takes milliseconds.
///
/// # Safety
/// No other thread is inside the allocator meanwhile.
///
/// # Errors
/// The first invariant that does not hold: the heap is broken.
#[cfg(any(test, debug_assertions))]
pub unsafe fn is_valid() -> Result<(), crate::Invalid> {
    // SAFETY: no other thread is inside the allocator (this function's own Safety section), and
    // this one has left it.
    existing_arena().map_or(Ok(()), |arena| unsafe { front::check(arena) })
}

/// The number of times that threads have waited for the locks of the pool since the start, and the
/// time. The locks are `heaps` (a thread takes it at its first allocation and at its end),
/// `partial` (lists of spans with free blocks; a thread that wants a span gives up soon and looks
/// elsewhere) and `growth`. A lock that was free at once does not count.
#[cfg(feature = "lock-stats")]
pub fn lock_stats() -> [(&'static str, theap_platform::Contention); 3] {
    crate::pool::lock_stats()
}

/// Whether the address lies in the heap's range, or a run outside of it begins there.
#[inline]
pub fn owns(address: *const u8) -> bool {
    existing_arena().is_some_and(|arena| {
        let address = address as usize;
        arena.addresses().contains(address) || arena.runs().bytes_at(address).is_some()
    })
}

/// The bytes that may be used at `block`: at least as many as were asked for. 0 for null and for an
/// address at which no block of the heap begins. A block that was freed counts as one as long as
/// its span is in use.
///
/// A caller of Rust's `dealloc` must still name the size that it asked for.
pub fn usable_size(block: *const u8) -> usize {
    front::usable_size(block)
}

/// Allocation in C's way, where the caller does not remember sizes: for front ends such as the
/// shared library.
pub mod raw {
    use super::{DEFAULT, Os, Stats, existing_arena, front, noted_board, process};
    pub use crate::front::Elsewhere;
    pub use crate::stats::Sums;
    use theap_platform::PAGE;

    /// Allocates at least `size` bytes at a multiple of 16; a block of its own also for size 0.
    /// Null if there is no memory.
    #[inline(always)]
    pub fn alloc(size: usize) -> *mut u8 {
        front::alloc(size, &DEFAULT)
    }

    /// Registers the heap's fork handlers now instead of at the first allocation. A library that is
    /// loaded before all other code calls it, so that other code's fork handlers find the heap
    /// unlocked and may allocate.
    pub fn handle_forks() {
        process::handle_forks();
    }

    /// Makes the heap now instead of at the first allocation, which may come after the program has
    /// forbidden itself what that needs (files, advice). Without memory the first allocation tries
    /// again.
    pub fn start() {
        front::start(&DEFAULT);
    }

    /// Names the allocator that would serve the process without this heap: from now on
    /// [`free`], [`realloc`] and [`usable_size`] hand blocks that it knows over to it, unless the
    /// option `foreign` says otherwise. [`crate::Theap`] never hands anything over.
    pub fn set_elsewhere(elsewhere: &'static Elsewhere) {
        process::set_elsewhere(elsewhere);
    }

    /// Tells whether the option `foreign` lets the library serve those, too, who look for malloc in
    /// the allocator that [`set_elsewhere`] has named.
    pub fn stands_in() -> bool {
        front::stands_in(&DEFAULT)
    }

    /// The bytes that may be used at `block`, like [`crate::usable_size`], but also of a block that
    /// the allocator knows which [`set_elsewhere`] has named.
    #[inline]
    pub fn usable_size(block: *const u8) -> usize {
        match front::usable_size(block) {
            0 if !block.is_null() => front::usable_size_foreign(block, &DEFAULT),
            bytes => bytes,
        }
    }

    /// Notes which file is the program's standard error now instead of at the first allocation. A
    /// library that is loaded before all other code calls it. Messages that do not end the process
    /// are written only while descriptor 2 is still that file: a program that closes its
    /// descriptors may have a data file there later.
    pub fn note_stderr() {
        Os::LINUX.note_stderr();
    }

    /// The sums that `mallinfo` tells.
    pub fn sums() -> Sums {
        noted_board().map_or_else(Sums::default, |board| Sums::of(&board))
    }

    /// The heap's figures, and room for a text about them.
    pub struct Report {
        /// The figures.
        pub stats: Stats,
        /// The room.
        pub text: [u8; 32 << 10],
    }

    /// Calls `work` with a report that lies in memory mapped for as long as that takes: it is too
    /// large for the stack of a small thread. `None` if there is no memory, or if the heap is
    /// sealed and nothing may be mapped.
    pub fn with_report<R>(work: impl FnOnce(&mut Report) -> R) -> Option<R> {
        if existing_arena().is_some_and(|arena| arena.policy().is_sealed()) {
            return None;
        }
        let len = size_of::<Report>().next_multiple_of(PAGE);
        let at = Os::LINUX.map_anywhere(len, PAGE, None).ok()?;
        // SAFETY: mapped just now, on a page, and nobody else's until it is given back below; the
        // memory is zero, and zero is valid for numbers.
        let report = unsafe { &mut *(at as *mut Report) };
        if let Some(board) = noted_board() {
            report.stats.fill(&board);
        }
        let done = work(report);
        // SAFETY: mapped above; the reference is not used any more.
        unsafe { Os::LINUX.unreserve(at, len) };
        Some(done)
    }

    /// Takes a block for `size` bytes, at a multiple of 16, from the thread's magazine if the size
    /// is at most 1 KiB and the magazine has one. Else null: then call [`alloc`].
    #[inline(always)]
    pub fn alloc_cached(size: usize) -> *mut u8 {
        front::alloc_cached(size)
    }

    /// Allocates at least `size` bytes at a multiple of `align`, a power of two. Null if there is
    /// no memory.
    #[inline]
    pub fn alloc_aligned(size: usize, align: usize) -> *mut u8 {
        front::alloc_aligned(size, align, &DEFAULT)
    }

    /// Allocates like [`alloc_aligned`]. A block at a multiple of the page and of at least 64 KiB
    /// lies on pages that the program may protect one by one (`mprotect`, `madvise`), also where
    /// the heap is on hugetlb pages: then it is a mapping of its own, which costs system calls.
    #[inline]
    pub fn alloc_pages(size: usize, align: usize) -> *mut u8 {
        const LEAST: usize = 64 << 10;
        // The ends that these builds add would lie in the mapping.
        let marks = cfg!(any(feature = "hardened", feature = "valgrind"));
        if align >= PAGE && size >= LEAST && !marks {
            let block = front::alloc_protectable(size, align, &DEFAULT);
            if !block.is_null() {
                return block;
            }
        }
        alloc_aligned(size, align)
    }

    /// Allocates at least `size` bytes at a multiple of 16, zeroed. Null if there is no memory.
    #[inline]
    pub fn alloc_zeroed(size: usize) -> *mut u8 {
        front::alloc_zeroed(size, 16, &DEFAULT)
    }

    /// Frees a block, or nothing if it is null.
    ///
    /// # Safety
    /// `block` is null or a live block of the heap, or of the allocator that [`set_elsewhere`] has
    /// named, and nobody uses it afterwards. A pointer that is neither's, and a double free or a
    /// pointer to no block that the drain recognises, end the process with a message.
    #[inline(always)]
    pub unsafe fn free(block: *mut u8) {
        // SAFETY: this function's own Safety section.
        unsafe { front::free(block, &DEFAULT) };
    }

    /// Frees a block that was asked for with `size` and an alignment of at most 16, faster than
    /// [`free`].
    ///
    /// # Safety
    /// The conditions of [`free`], and `block` is not null and `size` is the one that it was asked
    /// for with.
    #[inline(always)]
    pub unsafe fn free_sized(block: *mut u8, size: usize) {
        // SAFETY: this function's own Safety section.
        unsafe { front::free_sized(block, size, &DEFAULT) };
    }

    /// Changes the size of a live block: in place where its class stays or the slots behind a run
    /// are free. Returns the block of the new size, or null if there is no memory; the old block
    /// then stays. It never returns null if the block has `size` bytes.
    ///
    /// # Safety
    /// `block` is a live block of the heap, or of the allocator that [`set_elsewhere`] has named.
    /// If null is not returned, nobody uses it afterwards.
    pub unsafe fn realloc(block: *mut u8, size: usize) -> *mut u8 {
        let usable = super::usable_size(block);
        if usable == 0 && !block.is_null() {
            // SAFETY: this function's own Safety section.
            if let Some(moved) = unsafe { front::resize_foreign(block, size, &DEFAULT) } {
                return moved;
            }
            // Every block of the heap has room: the free says what is wrong with this one, and ends
            // the process.
            // SAFETY: nothing discharges the free's precondition: the caller has passed an address
            // of no block.
            unsafe { front::free(block, &DEFAULT) };
            return core::ptr::null_mut();
        }
        // SAFETY: this function's own Safety section. The usable size of a block of a class has the
        // same class.
        unsafe { front::resize(block, usable, size, 16, &DEFAULT) }
    }
}

#[cfg(feature = "allocator-api2")]
mod allocator {
    use super::{GlobalAlloc, Layout, Theap, front};
    use allocator_api2::alloc::{AllocError, Allocator};
    use core::ptr::NonNull;

    // SAFETY: all values share one heap, so a block may be freed through any of them, and lives
    // until then.
    unsafe impl Allocator for Theap {
        #[inline]
        fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            slice(
                front::alloc_aligned(layout.size(), layout.align(), &self.setup),
                layout,
            )
        }

        #[inline]
        fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            slice(
                front::alloc_zeroed(layout.size(), layout.align(), &self.setup),
                layout,
            )
        }

        #[inline]
        unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
            // SAFETY: `Allocator`'s contract: a live block of this layout.
            unsafe { self.dealloc(block.as_ptr(), layout) };
        }

        #[inline]
        unsafe fn grow(
            &self,
            block: NonNull<u8>,
            old: Layout,
            new: Layout,
        ) -> Result<NonNull<[u8]>, AllocError> {
            // SAFETY: `Allocator`'s contract.
            unsafe { self.change(block, old, new) }
        }

        #[inline]
        unsafe fn shrink(
            &self,
            block: NonNull<u8>,
            old: Layout,
            new: Layout,
        ) -> Result<NonNull<[u8]>, AllocError> {
            // SAFETY: `Allocator`'s contract.
            unsafe { self.change(block, old, new) }
        }
    }

    impl Theap {
        /// Gives the block the layout `new`.
        ///
        /// # Safety
        /// `block` is a live block of the layout `old`.
        unsafe fn change(
            &self,
            block: NonNull<u8>,
            old: Layout,
            new: Layout,
        ) -> Result<NonNull<[u8]>, AllocError> {
            if old.align() == new.align() {
                // SAFETY: this function's own Safety section.
                return slice(
                    unsafe { self.realloc(block.as_ptr(), old, new.size()) },
                    new,
                );
            }
            let Ok(moved) = self.allocate(new) else {
                let is_aligned = (block.addr().get()).is_multiple_of(new.align());
                // SAFETY: this function's own Safety section.
                let stays = is_aligned && unsafe { front::stay(block.as_ptr(), new.size()) };
                let old = if stays {
                    block.as_ptr()
                } else {
                    core::ptr::null_mut()
                };
                return slice(old, new);
            };
            // SAFETY: two different blocks of at least these sizes; the old one is the caller's to
            // free.
            unsafe {
                let bytes = old.size().min(new.size());
                core::ptr::copy_nonoverlapping(block.as_ptr(), moved.as_ptr().cast(), bytes);
                self.deallocate(block, old);
            }
            Ok(moved)
        }
    }

    /// A block as the slice that `Allocator` wants.
    fn slice(block: *mut u8, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        NonNull::new(block)
            .map(|block| NonNull::slice_from_raw_parts(block, layout.size()))
            .ok_or(AllocError)
    }
}
