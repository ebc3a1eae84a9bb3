//! [`Theap`] as Rust's global allocator, and the functions that act on the process's heap.

use crate::config::Config;
#[cfg(not(any(feature = "hardened", feature = "valgrind")))]
use crate::front;
#[cfg(all(feature = "hardened", not(feature = "valgrind")))]
use crate::front::hardened as front;
#[cfg(feature = "valgrind")]
use crate::front::valgrind as front;
use crate::gate::{Classes, Front};
use crate::placement::Placement;
use crate::pool::{SLOT, SUPER};
use crate::stats::Stats;
use crate::{Error, classes};
use core::alloc::{GlobalAlloc, Layout};

/// The allocator. All values share one heap, which comes to be at the first allocation; the options of the value that
/// allocates first count, with the environment's on top.
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
#[derive(Clone, Copy, Debug, Default)]
pub struct Theap {
    config: Config,
}

impl Theap {
    /// With default options.
    pub const fn new() -> Self {
        Self::with(Config::new())
    }

    /// With these options.
    pub const fn with(config: Config) -> Self {
        Self { config }
    }
}

// SAFETY: blocks are disjoint, aligned and as large as asked (classes and runs), live until freed, and null is the
// answer when there is no memory; nothing unwinds.
unsafe impl GlobalAlloc for Theap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= 16 {
            front::alloc(layout.size(), &self.config)
        } else {
            front::alloc_aligned(layout.size(), layout.align(), &self.config)
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract: a live block of this layout.
        unsafe {
            if layout.align() <= 16 {
                front::free_sized(block, layout.size(), &self.config);
            } else {
                front::free(block, &self.config);
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        front::alloc_zeroed(layout.size(), layout.align(), &self.config)
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's contract: a live block of this layout.
        unsafe { front::resize(block, layout.size(), new_size, layout.align(), &self.config) }
    }
}

const DEFAULT: Config = Config::new();

/// Prepares the calling thread's node so that `bytes` can be allocated without a page fault: maps, touches, and fills
/// in the metadata. What is free already counts. Sizes are rounded up to classes and spans hold whole classes, so a
/// quarter and 16 MiB are prepared on top.
///
/// Takes 50–200 µs for each 2 MiB.
///
/// # Errors
/// What the system answered when it refused memory, or out of memory while sealed; what was prepared until then stays.
pub fn warm_up(bytes: usize) -> Result<(), Error> {
    let front = touched_front()?;
    let node = &front.arena().nodes()[front.node()];
    node.warm(bytes.saturating_add(bytes / 4).saturating_add(8 * SUPER))
}

/// Prepares the calling thread so that it can allocate `count` blocks of `size` bytes without a page fault or a system
/// call, whatever other threads take meanwhile: maps, touches, and keeps spans for it. The promise lasts until the
/// blocks have been used and freed (what is free then stays warm in the pool) or [`collect`]. Above 256 KiB there are
/// no classes: such sizes are prepared as by [`warm_up`], for the whole node.
///
/// # Errors
/// What the system answered when it refused memory; what was prepared until then stays.
pub fn warm_up_class(size: usize, count: usize) -> Result<(), Error> {
    let size = size.saturating_add(front::TAIL);
    let Some(class) = classes::class_for(size, 1) else {
        let run = size.checked_next_multiple_of(SLOT).ok_or(Error::NoMemory)?;
        return warm_up(run.saturating_mul(count));
    };
    let bytes = (classes::CLASSES[class].size as usize).saturating_mul(count);
    let front = touched_front()?;
    // Grows in large steps, and refuses what the machine has not.
    front.arena().nodes()[front.node()].warm(bytes)?;
    front.heap.prepare(class, count)
}

/// The calling thread's front, with all of its memory touched.
fn touched_front() -> Result<&'static mut front::Front, Error> {
    let front = front::front(front::slot::get(), &DEFAULT).ok_or(Error::NoMemory)?;
    if front.arena().refuses() {
        return Err(Error::NoMemory);
    }
    let (memory, len) = front.memory();
    // SAFETY: the front's memory is committed; populating keeps its contents.
    unsafe { front.arena().os.populate(memory, len)? };
    front.arena().touch_board()?;
    // The clock's page, which is the kernel's, faults at first too.
    front.arena().os.recently();
    Ok(front)
}

/// Returns the blocks that the calling thread keeps in magazines to their spans, takes home what other threads freed
/// of its spans, forgets what the thread's workload has taught it to keep, and gives wholly free spans back to the pool.
/// Costs no system call.
pub fn collect() {
    let head = front::slot::get();
    if !front::is_none(head)
        && let Some(front) = front::front(head, &DEFAULT)
    {
        front::release_cached(front);
    }
}

/// As [`collect`], and gives all free memory of the heap back to the system, and what threads that have ended had for
/// their magazines. What other threads keep in magazines stays. The number of bytes given back of the heap.
pub fn purge() -> usize {
    collect();
    front::existing_arena().map_or(0, |arena| {
        arena.purge_heaps();
        arena.nodes().iter().map(|node| node.purge()).sum()
    })
}

/// From now on the allocator makes no system call: what would need one is refused, which means null for an allocation,
/// and counted (`Stats::refusals`). A thread that has not allocated yet gets no heap unless a former thread's is free;
/// threads that wait for one of the pool's locks spin. Misuse still ends the process with a message.
///
/// To be called after [`warm_up`], and after every thread has allocated once.
pub fn seal() {
    if let Some(arena) = front::existing_arena() {
        arena.set_sealed(true);
    }
}

/// Ends what [`seal`] began.
pub fn unseal() {
    if let Some(arena) = front::existing_arena() {
        arena.set_sealed(false);
    }
}

/// Sets which front serves from now on: each thread's heap switches on its own next slow path (a refill, a drain,
/// [`collect`]), whatever the thread is doing. Nothing is lost; what a magazine holds goes to its spans, what a list
/// holds is used up. Without the feature `theap`, the classic front serves in any case.
pub fn set_front(front: Front) {
    if let Some(arena) = front::arena(&DEFAULT) {
        arena.gate.set_front(front);
    }
}

/// Sets the classes that magazines serve while the front is [`Front::Theap`], as [`set_front`] does.
pub fn set_classes(classes: Classes) {
    if let Some(arena) = front::arena(&DEFAULT) {
        arena.gate.set_classes(classes);
    }
}

/// Lets magazines' capacities follow the workload (the option `learn`), or freezes them as they are, in all threads.
pub fn set_learning(on: bool) {
    if let Some(arena) = front::arena(&DEFAULT) {
        arena.set_learning(on);
    }
}

/// The front, and the classes that magazines serve under [`Front::Theap`], as set last. `None` before the first use of
/// the heap.
pub fn gates() -> Option<(Front, Classes)> {
    front::existing_arena().map(|arena| arena.gate.get())
}

/// What the heap holds and has done. All zero before the first allocation.
pub fn stats() -> Stats {
    front::existing_arena()
        .and_then(|arena| arena.board())
        .map_or_else(Stats::default, |board| board.stats())
}

/// On which NUMA nodes the heap's memory is meant to be, and where it is. Asks the kernel about every page:
/// 100 to 200 µs for each 2 MiB on small and transparent pages. No row before the first allocation.
///
/// # Errors
/// [`Error::Unsupported`] on a kernel without NUMA, [`Error::Other`] where a container's filter forbids `move_pages`.
pub fn placement() -> Result<Placement, Error> {
    front::existing_arena().map_or(Ok(Placement::NONE), Placement::gather)
}

/// Bytes of a block of a size class, by its number in events; nothing if there is no such class.
pub fn class_size(class: usize) -> Option<usize> {
    classes::CLASSES.get(class).map(|class| class.size as usize)
}

/// Whether all that the allocator knows about its memory agrees: magazines, heaps, spans, lists, slots and tables. In
/// debug builds only; takes milliseconds.
///
/// # Safety
/// No other thread is inside the allocator meanwhile.
///
/// # Errors
/// The first thing that is wrong: the heap is broken.
#[cfg(any(test, debug_assertions))]
pub unsafe fn is_valid() -> Result<(), crate::Invalid> {
    // SAFETY: the caller's promise.
    front::existing_arena().map_or(Ok(()), |arena| unsafe { front::check(arena) })
}

/// How often threads waited for the locks of the pool since the start, and how long: `heaps` (a thread's first
/// allocation and its end), `partial` (lists of spans with free blocks; a thread that takes one gives up soon and goes
/// elsewhere), `growth`. What was free at once does not count.
#[cfg(feature = "lock-stats")]
pub fn lock_stats() -> [(&'static str, theap_platform::Contention); 3] {
    crate::pool::lock_stats()
}

/// Whether the address lies in the heap's range.
#[inline]
pub fn owns(address: *const u8) -> bool {
    front::existing_arena().is_some_and(|arena| arena.contains(address as usize))
}

/// Bytes that may be used at `block`: at least what was asked for. 0 for null and for what is not a block of the heap
/// (as far as that is known: an address inside a block's slot range whose class fits counts as one).
///
/// A caller of Rust's `dealloc` must still name the size it asked for.
pub fn usable_size(block: *const u8) -> usize {
    front::usable_size(block)
}

/// Allocation as C knows it: sizes are not remembered by the caller. For front ends such as the shared library.
pub mod raw {
    use super::{DEFAULT, front};

    /// At least `size` bytes at a multiple of 16; also for size 0. Null if there is no memory.
    #[inline(always)]
    pub fn alloc(size: usize) -> *mut u8 {
        front::alloc(size, &DEFAULT)
    }

    /// Registers the heap's fork handlers now instead of at the first allocation: for whoever is loaded before all
    /// other code, so that other fork handlers find the heap unlocked and may allocate.
    pub fn handle_forks() {
        front::handle_forks();
    }

    /// A block for `size` bytes, at a multiple of 16, from what the thread has at hand for tiny sizes; else null, and
    /// [`alloc`] must be asked.
    #[inline(always)]
    pub fn alloc_cached(size: usize) -> *mut u8 {
        front::alloc_cached(size)
    }

    /// As [`alloc`], at a multiple of `align`, a power of two.
    #[inline]
    pub fn alloc_aligned(size: usize, align: usize) -> *mut u8 {
        front::alloc_aligned(size, align, &DEFAULT)
    }

    /// As [`alloc`], zeroed.
    #[inline]
    pub fn alloc_zeroed(size: usize) -> *mut u8 {
        front::alloc_zeroed(size, 16, &DEFAULT)
    }

    /// Frees a block, or nothing if it is null.
    ///
    /// # Safety
    /// `block` is null or live; it is not used afterwards. A foreign pointer, and what the drain recognises as a
    /// double free or as no block, ends the process with a message.
    #[inline(always)]
    pub unsafe fn free(block: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { front::free(block, &DEFAULT) };
    }

    /// As [`free`], for a block that is not null and was asked for with `size` and an alignment of at most 16.
    ///
    /// # Safety
    /// As for [`free`].
    #[inline(always)]
    pub unsafe fn free_sized(block: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { front::free_sized(block, size, &DEFAULT) };
    }

    /// Changes the size of a live block: in place where its class stays or a run's neighbours are free. Null if there
    /// is no memory; the block then stays.
    ///
    /// # Safety
    /// `block` is live.
    pub unsafe fn realloc(block: *mut u8, size: usize) -> *mut u8 {
        let usable = super::usable_size(block);
        if usable == 0 && !block.is_null() {
            // Nothing that the heap gave has no room: this says so, and ends the process.
            // SAFETY: the caller's promise is broken.
            unsafe { front::free(block, &DEFAULT) };
            return core::ptr::null_mut();
        }
        // SAFETY: the caller's promise. A class's usable size has the same class.
        unsafe { front::resize(block, usable, size, 16, &DEFAULT) }
    }
}

#[cfg(feature = "allocator-api2")]
mod allocator {
    use super::{GlobalAlloc, Layout, Theap, front};
    use allocator_api2::alloc::{AllocError, Allocator};
    use core::ptr::NonNull;

    // SAFETY: all values share one heap, so a block may be freed through any of them, and lives until then.
    unsafe impl Allocator for Theap {
        #[inline]
        fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            slice(
                front::alloc_aligned(layout.size(), layout.align(), &self.config),
                layout,
            )
        }

        #[inline]
        fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            slice(
                front::alloc_zeroed(layout.size(), layout.align(), &self.config),
                layout,
            )
        }

        #[inline]
        unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
            // SAFETY: the caller's contract: a live block of this layout.
            unsafe { self.dealloc(block.as_ptr(), layout) };
        }

        #[inline]
        unsafe fn grow(
            &self,
            block: NonNull<u8>,
            old: Layout,
            new: Layout,
        ) -> Result<NonNull<[u8]>, AllocError> {
            // SAFETY: the caller's contract.
            unsafe { self.change(block, old, new) }
        }

        #[inline]
        unsafe fn shrink(
            &self,
            block: NonNull<u8>,
            old: Layout,
            new: Layout,
        ) -> Result<NonNull<[u8]>, AllocError> {
            // SAFETY: the caller's contract.
            unsafe { self.change(block, old, new) }
        }
    }

    impl Theap {
        /// # Safety
        /// `block` is a live block of the layout `old`.
        unsafe fn change(
            &self,
            block: NonNull<u8>,
            old: Layout,
            new: Layout,
        ) -> Result<NonNull<[u8]>, AllocError> {
            if old.align() == new.align() {
                // SAFETY: the caller's promise.
                return slice(
                    unsafe { self.realloc(block.as_ptr(), old, new.size()) },
                    new,
                );
            }
            let moved = self.allocate(new)?;
            // SAFETY: two different blocks of at least these sizes; the old one is the caller's to free.
            unsafe {
                let bytes = old.size().min(new.size());
                core::ptr::copy_nonoverlapping(block.as_ptr(), moved.as_ptr().cast(), bytes);
                self.deallocate(block, old);
            }
            Ok(moved)
        }
    }

    fn slice(block: *mut u8, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        NonNull::new(block)
            .map(|block| NonNull::slice_from_raw_parts(block, layout.size()))
            .ok_or(AllocError)
    }
}
