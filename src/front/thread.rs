//! A thread's front: its birth at the first slow path, its retirement at thread exit, and the one arena of the
//! process.

use super::classic::{FAST, List};
#[cfg(all(feature = "theap", feature = "drain"))]
use super::learner::Learner;
use super::{EMPTY, Head, RETIRED, slot};
use crate::classes::{CLASS_COUNT, CLASSES};
use crate::config::Config;
use crate::fatal;
use crate::heap::Heap;
use crate::pool::Arena;
use crate::pool::kind;
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use theap_platform::{Mutex, Os, PAGE, Rank, fork, thread_exit};

/// A thread's magazines and heap. Lives in the arena's heap memory; never unmapped, used again by later threads.
#[repr(C)]
pub struct Front {
    /// First, as the slot points here.
    pub(super) head: Head,
    /// What lies in the slow path.
    pub heap: Heap,
    index: usize,
    /// Slow paths in a row that found the thread on another node.
    pub(super) away: u32,
    /// Bottom of each class's array: its magazine or FastCache.
    pub(super) bases: [*mut *mut u8; CLASS_COUNT],
    /// Blocks of a class that the front may hold: in a magazine, or in a FastCache and its list together.
    pub(super) capacities: [u16; CLASS_COUNT],
    pub(super) lists: [List; CLASS_COUNT],
    #[cfg(feature = "hardened")]
    pub(super) quarantine: super::hardened::Quarantine,
    #[cfg(feature = "valgrind")]
    pub(super) kept: super::valgrind::Kept,
    /// The classes that magazines serve.
    #[cfg(feature = "theap")]
    pub(super) served: u64,
    /// Refills of each class's magazine so far, as long as they are small.
    #[cfg(feature = "theap")]
    pub(super) refilled: [u8; CLASS_COUNT],
    #[cfg(all(feature = "theap", feature = "drain"))]
    pub(super) learner: Learner,
    /// The arrays' pointers: for each class a null sentinel and then its places.
    storage: [*mut u8; storage_before(CLASS_COUNT)],
}

/// Places of a class's array.
pub(super) const fn places(class: usize) -> usize {
    let magazine = CLASSES[class].magazine as usize;
    if cfg!(feature = "theap") || magazine < FAST {
        magazine
    } else {
        FAST
    }
}

/// Places of the arrays below this class, and their sentinels.
const fn storage_before(end: usize) -> usize {
    let (mut sum, mut class) = (0, 0);
    while class < end {
        sum += places(class) + 1;
        class += 1;
    }
    sum
}

/// Where in the storage each class's array begins, above its sentinel.
const ARRAYS: [usize; CLASS_COUNT] = {
    let (mut arrays, mut class) = ([0; CLASS_COUNT], 0);
    while class < CLASS_COUNT {
        arrays[class] = storage_before(class) + 1;
        class += 1;
    }
    arrays
};

/// The array that a front has for a class.
pub(super) fn own_array(front: *mut Front, class: usize) -> *mut *mut u8 {
    // SAFETY: the front is valid, and the array lies in its storage.
    unsafe {
        (&raw mut (*front).storage)
            .cast::<*mut u8>()
            .add(ARRAYS[class])
    }
}

/// Bytes of a front, in pages.
pub(super) const FRONT_BYTES: usize = size_of::<Front>().next_multiple_of(PAGE);

static GLOBAL: AtomicPtr<Arena> = AtomicPtr::new(core::ptr::null_mut());
static INIT: Mutex<()> = Mutex::new(Rank(0), ());
static INIT_FAILED: AtomicBool = AtomicBool::new(false);

/// The process's arena, if there is one.
#[inline]
pub fn existing_arena() -> Option<&'static Arena> {
    let arena = GLOBAL.load(Ordering::Acquire);
    // SAFETY: the pointer is null or what `Arena::create` returned.
    unsafe { arena.as_ref() }
}

/// The process's arena, created with `config` and the environment if this is the first use. `None` if the system
/// refuses; the next call tries again.
pub fn arena(config: &Config) -> Option<&'static Arena> {
    if let Some(arena) = existing_arena() {
        return Some(arena);
    }
    let init = INIT.lock();
    if let Some(arena) = existing_arena() {
        return Some(arena);
    }
    let os = Os::LINUX;
    let config = config.with_environment(os);
    let arena = match Arena::create(os, config, FRONT_BYTES) {
        Ok(arena) => arena,
        Err(error) => {
            if !INIT_FAILED.swap(true, Ordering::Relaxed) {
                fatal::no_arena(os, error);
            }
            return None;
        }
    };
    GLOBAL.store(core::ptr::from_ref(arena).cast_mut(), Ordering::Release);
    drop(init);
    // Registering may allocate, which works from here on.
    handle_forks();
    if config.crash_report {
        // A system that refuses leaves the process without reports.
        let _ = crate::crash::report_crashes();
    }
    if config.reserve > 0
        && let Err(error) = crate::api::warm_up(config.reserve)
        && config.messages
    {
        fatal::out_of_memory(os, config.reserve, error);
    }
    Some(arena)
}

/// Registers the handlers around fork, once a process; before the first allocation too, and before the C library has
/// started. Whoever registered earlier must not allocate in a handler: ours hold the locks then.
pub fn handle_forks() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Ordering::Relaxed) {
        // Without the handlers only a fork of a busy process suffers.
        let _ = fork::register(before_fork, after_fork, in_child);
    }
}

extern "C" fn before_fork() {
    if let Some(arena) = existing_arena() {
        arena.lock_all();
        arena.prepare_fork();
    }
}

extern "C" fn after_fork() {
    if let Some(arena) = existing_arena() {
        // SAFETY: `before_fork` took the locks on this thread.
        unsafe { arena.unlock_all() };
    }
}

extern "C" fn in_child() {
    if let Some(arena) = existing_arena() {
        arena.set_child();
        let head = slot::get();
        arena.budget.restart(if is_none(head) {
            0
        } else {
            // SAFETY: as in `front`.
            unsafe { &*head.cast::<Front>() }.claimed()
        });
        // SAFETY: `before_fork` took the locks on this thread, and they are freed below.
        unsafe { arena.publish_again() };
    }
    after_fork();
}

/// Whether the head is that of a thread without a front.
pub fn is_none(head: *mut Head) -> bool {
    core::ptr::eq(head, (&raw const EMPTY).cast()) || is_retired(head)
}

/// Whether the head is that of a thread whose front was retired.
pub fn is_retired(head: *mut Head) -> bool {
    core::ptr::eq(head, (&raw const RETIRED).cast())
}

/// The front behind a head, or a new one for this thread. `None` if there is no memory for one.
#[inline]
pub fn front(head: *mut Head, config: &Config) -> Option<&'static mut Front> {
    if is_none(head) {
        return adopt(config);
    }
    // SAFETY: a head that is not EMPTY is the first field of this thread's front.
    Some(unsafe { &mut *head.cast::<Front>() })
}

/// Gives this thread a front and lets it be retired when the thread ends.
#[cold]
fn adopt(config: &Config) -> Option<&'static mut Front> {
    let arena = arena(config)?;
    // A call from within the set-up may have given this thread a front.
    let head = slot::get();
    if !is_none(head) {
        return front(head, config);
    }
    let front = Front::new_in(arena)?;
    slot::set(front.cast());
    // SAFETY: the hook takes what this thread's slot holds. If the C library has no key left, the heap stays behind
    // when the thread ends.
    let _ = unsafe { thread_exit::arm(at_thread_exit, front.cast()) };
    // SAFETY: made for this thread just now.
    Some(unsafe { &mut *front })
}

/// Retires the thread's front. A later call of this thread gets a new one, and arms the hook again.
unsafe extern "C" fn at_thread_exit(front: *mut c_void) {
    let front = front.cast::<Front>();
    if !core::ptr::eq(slot::get().cast(), front) {
        return;
    }
    slot::set((&raw const RETIRED).cast_mut().cast());
    // SAFETY: the thread's own front, which its slot no longer shows.
    unsafe { (*front).retire() };
}

impl Front {
    /// A front for the calling thread's node. It is the caller's until `retire`.
    pub fn new_in(arena: &'static Arena) -> Option<*mut Front> {
        let slot = arena.acquire_heap()?;
        let node = arena.current_node().unwrap_or(0);
        let place = slot.memory.cast::<Front>();
        // SAFETY: the memory is the arena's for a front of this index, zero if blank, and nobody else's now.
        unsafe {
            if slot.blank {
                (&raw mut (*place).heap).write(Heap::new(arena, slot.index, node));
                (&raw mut (*place).index).write(slot.index);
                Self::lay_out_magazines(place);
            }
            (*place).settle_on(node);
        }
        Some(place)
    }

    /// Gives each class its array, empty, in the front that the gate's first look turns it to.
    ///
    /// # Safety
    /// `place` is a new front's zeroed memory.
    unsafe fn lay_out_magazines(place: *mut Front) {
        // SAFETY: the storage has a place more for each class than its greatest capacity; all stays inside.
        unsafe {
            for class in 0..CLASS_COUNT {
                let base = own_array(place, class);
                (*place).bases[class] = base;
                (*place).capacities[class] = (*place).fixed_capacity(class) as u16;
                let magazine = &raw mut (*place).head.magazines[class + kind::FIRST as usize];
                (*magazine).top = base;
                (*magazine).limit = base.add((*place).fast_places(class));
            }
            // The zeroed sentinel of class 0 serves the magazines that never hold anything.
            for what in [kind::FREE, kind::LARGE, kind::HUGE] {
                let magazine = &raw mut (*place).head.magazines[what as usize];
                (*magazine).top = own_array(place, 0);
                (*magazine).limit = (*magazine).top;
            }
        }
    }

    pub(super) fn magazine(&mut self, class: usize) -> &mut theap_arch::Magazine {
        &mut self.head.magazines[class + kind::FIRST as usize]
    }

    /// With the feature `valgrind`, clears the places of the class's array above its top: what they held last may be
    /// a live block's address, which is to be where the program has it and nowhere else.
    #[inline(always)]
    pub(super) fn wipe(&mut self, class: usize) {
        #[cfg(feature = "valgrind")]
        // SAFETY: the array lies in the front's storage with all its places.
        unsafe {
            let top = self.magazine(class).top;
            let end = self.bases[class].add(places(class));
            core::slice::from_raw_parts_mut(top, end.offset_from(top) as usize)
                .fill(core::ptr::null_mut());
        }
        let _ = class;
    }

    /// Whether the class's array is a magazine, else a FastCache.
    #[cfg(feature = "theap")]
    pub(super) fn has_magazine(&self, class: usize) -> bool {
        self.served & 1 << class != 0
    }

    /// The class's capacity as the option `magazine` has it.
    pub(super) fn fixed_capacity(&self, class: usize) -> usize {
        let info = &CLASSES[class];
        (self.arena().config.magazine / info.size as usize)
            .clamp(info.least as usize, info.magazine as usize)
    }

    /// Where the front's memory comes from.
    pub fn arena(&self) -> &'static Arena {
        self.heap.arena()
    }

    /// The node that the front takes memory from.
    pub fn node(&self) -> usize {
        self.heap.node()
    }

    /// Its memory: address and bytes.
    pub fn memory(&self) -> (usize, usize) {
        (core::ptr::from_ref(self) as usize, FRONT_BYTES)
    }

    /// What it has claimed of the budget, in bytes.
    fn claimed(&self) -> usize {
        #[cfg(all(feature = "theap", feature = "drain"))]
        let blocks = self.learner.claimed();
        #[cfg(not(all(feature = "theap", feature = "drain")))]
        let blocks = 0;
        blocks + self.heap.claimed()
    }

    /// Takes memory of this node from now on. The front has no blocks and no spans.
    pub(super) fn settle_on(&mut self, node: usize) {
        let arena = self.arena();
        (self.head.home, self.head.home_len) = arena.part(node);
        self.head.kinds = arena.kinds_of_node(node);
        self.heap.move_to(node);
        self.away = 0;
    }

    /// Gives all blocks and spans back and leaves the front to a later thread.
    pub fn retire(&mut self) {
        self.flush();
        #[cfg(feature = "theap")]
        {
            self.refilled = [0; CLASS_COUNT];
        }
        #[cfg(all(feature = "theap", feature = "drain"))]
        self.unlearn_all();
        self.heap.retire();
        self.arena().release_heap(self.index);
    }
}

/// The heap whose front has the block at hand, in its array of the class; lists of the classic front are not searched.
/// For a report only: other threads may change their arrays meanwhile.
pub fn cached_by(class: usize, block: usize) -> Option<usize> {
    let arena = existing_arena()?;
    let made = arena.header().heaps.load(Ordering::Acquire) as usize;
    (0..made).find(|&heap| {
        let front = arena.heap_at(heap).cast::<Front>();
        // SAFETY: a made heap's memory is committed, and zero until its front is written. The top is read once, as its
        // thread may move it. A magazine that grows or shrinks at this moment may have no such places: then there is no
        // report, and the process ends as it would have.
        unsafe {
            let base = (&raw const (*front).bases[class]).read_volatile();
            let capacity = usize::from((&raw const (*front).capacities[class]).read_volatile());
            let magazine = &raw const (*front).head.magazines[class + kind::FIRST as usize];
            let top = (&raw const (*magazine).top).read_volatile();
            let held = (top as usize).saturating_sub(base as usize) / size_of::<*mut u8>();
            (0..held.min(capacity)).any(|i| base.add(i).read_volatile() as usize == block)
        }
    })
}
