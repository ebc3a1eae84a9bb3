//! Huge runs for which the range has no room: each is a mapping of its own, anywhere.
//!
//! Blocks whose single pages the program may want to protect are such mappings too where the heap
//! is on hugetlb pages, whose smallest unit is 2 MiB.
//!
//! Their addresses are foreign to all tables, so who meets a foreign address asks here. A sorted
//! table under a lock is enough: the system calls for such a run cost far more.
#![allow(unsafe_code)] // Maps, moves and unmaps runs.

use crate::config;
use crate::geometry::{SLOT, SUPER};
use crate::pool::ground::Ground;
use crate::sync::{AtomicU64, Ordering, OwnerWord};
use theap_arch::valgrind;
use theap_platform::{Mutex, PAGE, PageMode, Rank};

/// The most runs outside of the range: half of the mappings that the kernel allows a process.
pub const MOST: usize = 1 << 15;

/// A run, for the thread that has the lock.
#[derive(Debug)]
pub struct Entry {
    address: OwnerWord<u64>,
    /// The run's [`Size`].
    size: OwnerWord<u64>,
}

/// The runs outside of the range.
pub struct Outside {
    ground: Ground,
    /// Sorted by address.
    table: *const Entry,
    used: Mutex<Used>,
    /// The bytes of all of them, on the board; not zero as long as there is one.
    total: &'static AtomicU64,
    /// Their number, on the board.
    runs: &'static AtomicU64,
}

/// How far the table is used.
#[derive(Debug, Default)]
struct Used {
    /// Entries in use.
    count: usize,
    /// Entries that are accessible.
    open: usize,
}

/// Entries that become accessible at a time.
const STEP: usize = PAGE / size_of::<Entry>();

// SAFETY: the table is used under the lock alone.
unsafe impl Send for Outside {}
// SAFETY: as for Send.
unsafe impl Sync for Outside {}

/// The bytes that a run's user has, whole slots. The mapping has whole SuperSlabs, unless the
/// lowest bit says that there was no room for so much.
#[derive(Clone, Copy)]
struct Size(u64);

const EXACT: u64 = 1;

impl Size {
    fn bytes(self) -> usize {
        (self.0 & !EXACT) as usize
    }

    fn exact(self) -> Self {
        Self(self.0 | EXACT)
    }

    /// Bytes of the mapping. `None` if there are none such.
    fn mapped(self) -> Option<usize> {
        if self.0 & EXACT != 0 || self.bytes() < SUPER {
            Some(self.bytes())
        } else {
            self.bytes().checked_next_multiple_of(SUPER)
        }
    }
}

impl Outside {
    /// No runs.
    ///
    /// # Safety
    /// `table` is a page-aligned range for [`MOST`] entries, which is the heap's, and neither
    /// reserved since the start nor in use.
    pub unsafe fn new(ground: Ground, table: usize) -> Self {
        Self {
            ground,
            table: table as *const Entry,
            used: Mutex::new(Rank::Unranked, Used::default()),
            total: &ground.figures.header().outside,
            runs: &ground.figures.header().outside_runs,
        }
    }

    /// Maps a run of at least `bytes` at a multiple of `align`, which reads zero, on the pages that
    /// the options ask for, but for those of hugetlb pools.
    pub fn acquire(&self, bytes: usize, align: usize) -> Option<*mut u8> {
        let policy = self.ground.policy;
        if policy.is_sealed() {
            return None;
        }
        let size = Size(bytes.checked_next_multiple_of(SLOT)? as u64);
        let len = size.mapped()?;
        let (mode, whole) = match policy.config().pages {
            _ if policy.is_plain() => (None, SUPER),
            // A hugepage would be larger than the run.
            _ if len < SUPER => (Some(PageMode::Small), PAGE),
            config::Pages::Small => (Some(PageMode::Small), SUPER),
            _ => (Some(PageMode::Thp), SUPER),
        };
        let mapped = self.map(size, align.max(whole), mode);
        // Whole SuperSlabs at a multiple of one, on certain pages, take more of what limits allow.
        mapped.or_else(|| self.map(size.exact(), align.max(PAGE), None))
    }

    /// Maps a run of this size.
    fn map(&self, size: Size, align: usize, mode: Option<PageMode>) -> Option<*mut u8> {
        let (policy, len) = (self.ground.policy, size.mapped()?);
        if !policy.limit().take(len) {
            return None;
        }
        let mapped = valgrind::quietly(|| policy.os().map_anywhere(len, align, mode));
        let address = mapped.inspect_err(|_| policy.limit().give(len)).ok()?;
        if self.insert(address, size) {
            // SAFETY: mapped just now.
            unsafe { policy.lock_memory(address, len) };
            return Some(address as *mut u8);
        }
        // SAFETY: nobody knows of it.
        unsafe { self.unmap(address, len) };
        None
    }

    /// Unmaps a mapping of `map`'s.
    ///
    /// # Safety
    /// Nobody uses it.
    unsafe fn unmap(&self, address: usize, len: usize) {
        // SAFETY: this function's own Safety section.
        unsafe { self.ground.policy.os().unreserve(address, len) };
        self.ground.policy.limit().give(len);
    }

    /// The bytes of the run that starts at the address.
    pub fn bytes_at(&self, address: usize) -> Option<usize> {
        if self.total.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let used = self.used.lock();
        let index = self.find(&used, address).ok()?;
        Some(self.table(&used)[index].size().bytes())
    }

    /// The bytes of the mappings.
    #[cfg(any(test, debug_assertions))]
    pub fn mapped(&self) -> usize {
        let used = self.used.lock();
        let entries = self.table(&used)[..used.count].iter();
        entries.filter_map(|entry| entry.size().mapped()).sum()
    }

    /// The bytes of runs in the mappings between two addresses.
    pub fn bytes_between(&self, start: usize, end: usize) -> usize {
        if self.total.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let used = self.used.lock();
        let entries = &self.table(&used)[..used.count];
        // A run that begins before `start` may reach beyond it.
        let from = entries.partition_point(|entry| entry.address.get() < start as u64);
        let overlap = |entry: &Entry| {
            let at = entry.address.get() as usize;
            let ends = at + entry.size().mapped().unwrap_or(0);
            ends.min(end).saturating_sub(at.max(start))
        };
        entries[from.saturating_sub(1)..]
            .iter()
            .take_while(|entry| entry.address.get() < end as u64)
            .map(overlap)
            .sum()
    }

    /// Unmaps the run that starts at the address; false if there is none.
    ///
    /// # Safety
    /// Nobody uses the run any more.
    pub unsafe fn release(&self, address: usize) -> bool {
        let len = self.remove(address).and_then(Size::mapped);
        if let Some(len) = len {
            // SAFETY: a run's mapping, which nobody uses, as this function's Safety section has it.
            unsafe { self.unmap(address, len) };
        }
        len.is_some()
    }

    /// Changes the size of the run that starts at the address, and maybe the address. `None` if
    /// there is no such run, if the system refuses, or if `align` asks for more than a page.
    ///
    /// # Safety
    /// The run is the caller's, who uses it by the new address alone.
    #[cfg_attr(
        feature = "valgrind",
        allow(dead_code, reason = "memcheck knows no moved pages")
    )]
    pub unsafe fn resize(&self, address: usize, bytes: usize, align: usize) -> Option<*mut u8> {
        let size = Size(bytes.checked_next_multiple_of(SLOT)? as u64);
        let len = size.mapped()?;
        let policy = self.ground.policy;
        if align > PAGE {
            return None;
        }
        let old = self.remove(address)?;
        let old_len = old.mapped()?;
        // A mapping of the same length stays, also while the heap is sealed.
        let moved = if len == old_len {
            Some(address)
        } else if policy.is_sealed() || policy.is_plain() {
            None
        } else {
            // SAFETY: a run's mapping, which is the caller's, as this function's Safety section has
            // it.
            unsafe { self.remap(address, old_len, len) }
        };
        // The place of the removed entry is free.
        self.insert(
            moved.unwrap_or(address),
            if moved.is_some() { size } else { old },
        );
        moved.map(|address| address as *mut u8)
    }

    /// Makes a mapping longer or shorter, within the limit of the heap. Its new address.
    ///
    /// # Safety
    /// The conditions of [`theap_platform::Os::remap`].
    #[cfg_attr(
        feature = "valgrind",
        allow(dead_code, reason = "memcheck knows no moved pages")
    )]
    unsafe fn remap(&self, address: usize, old: usize, new: usize) -> Option<usize> {
        let policy = self.ground.policy;
        let (more, less) = (new.saturating_sub(old), old.saturating_sub(new));
        if more > 0 && !policy.limit().take(more) {
            return None;
        }
        // SAFETY: this function's own Safety section.
        let moved = unsafe { policy.os().remap(address, old, new) };
        policy.limit().give(if moved.is_ok() { less } else { more });
        moved.ok()
    }

    /// The accessible entries.
    fn table(&self, used: &Used) -> &'static [Entry] {
        // SAFETY: `insert` has opened so many; zero is a valid entry.
        unsafe { core::slice::from_raw_parts(self.table, used.open) }
    }

    fn find(&self, used: &Used, address: usize) -> Result<usize, usize> {
        let entries = &self.table(used)[..used.count];
        entries.binary_search_by_key(&(address as u64), |entry| entry.address.get())
    }

    /// Notes a run; false if the table is full.
    fn insert(&self, address: usize, size: Size) -> bool {
        let mut used = self.used.lock();
        if used.count == used.open && !self.open_more(&mut used) {
            return false;
        }
        let (Err(index), table) = (self.find(&used, address), self.table(&used)) else {
            return false;
        };
        for at in (index..used.count).rev() {
            table[at + 1].set(&table[at]);
        }
        table[index].address.set(address as u64);
        table[index].size.set(size.0);
        used.count += 1;
        self.total.fetch_add(size.bytes() as u64, Ordering::Relaxed);
        self.runs.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Forgets a run. Returns its size.
    fn remove(&self, address: usize) -> Option<Size> {
        if self.total.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut used = self.used.lock();
        let (index, table) = (self.find(&used, address).ok()?, self.table(&used));
        let size = table[index].size();
        used.count -= 1;
        for at in index..used.count {
            table[at].set(&table[at + 1]);
        }
        self.total.fetch_sub(size.bytes() as u64, Ordering::Relaxed);
        self.runs.fetch_sub(1, Ordering::Relaxed);
        Some(size)
    }

    /// Makes more entries accessible; false if there are all, or no memory.
    fn open_more(&self, used: &mut Used) -> bool {
        if used.open == MOST {
            return false;
        }
        let at = self.table.wrapping_add(used.open) as usize;
        // SAFETY: the next page of the table, which `new` was given.
        let opened = unsafe { self.ground.policy.open(at, PAGE) }.is_ok();
        used.open += if opened { STEP } else { 0 };
        opened
    }

    /// Takes the lock, before fork.
    pub fn lock(&self) {
        self.used.lock_for_fork();
    }

    /// Frees the lock that `lock` took, in the parent or in the child.
    ///
    /// # Safety
    /// This thread (or in a child, the thread that forked) called `lock` before.
    pub unsafe fn unlock(&self) {
        // SAFETY: this thread holds the lock, as this function's Safety section asks.
        unsafe { self.used.force_unlock() };
    }
}

impl Entry {
    fn set(&self, other: &Self) {
        self.address.set(other.address.get());
        self.size.set(other.size.get());
    }

    fn size(&self) -> Size {
        Size(self.size.get())
    }
}
