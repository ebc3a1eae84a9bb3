//! Huge runs for which the range has no room: each is a mapping of its own, anywhere.
//!
//! Their addresses are foreign to all tables, so who meets a foreign address asks here. A sorted
//! table under a lock is enough: the system calls for such a run cost far more.
#![allow(unsafe_code)] // Maps, moves and unmaps runs.

use crate::config;
use crate::geometry::{SLOT, SUPER};
use crate::pool::ground::Ground;
use crate::sync::{AtomicU64, Ordering, OwnerWord};
use theap_platform::{Mutex, PAGE, PageMode, Rank};

/// The most runs outside of the range: half of the mappings that the kernel allows a process.
pub const MOST: usize = 1 << 15;

/// A run, for the thread that has the lock.
#[derive(Debug)]
pub struct Entry {
    address: OwnerWord<u64>,
    /// Bytes that the run's user has; its mapping has whole SuperSlabs.
    bytes: OwnerWord<u64>,
}

/// The runs outside of the range.
pub struct Outside {
    ground: Ground,
    /// Sorted by address.
    table: &'static [Entry],
    /// The number of entries in use.
    count: Mutex<usize>,
    /// The bytes of all of them, on the board; not zero as long as there is one.
    total: &'static AtomicU64,
}

/// Bytes of the mapping of a run.
fn mapped(bytes: usize) -> usize {
    bytes.next_multiple_of(SUPER)
}

impl Outside {
    /// No runs; the table is zero.
    pub fn new(ground: Ground, table: &'static [Entry]) -> Self {
        Self {
            ground,
            table,
            count: Mutex::new(Rank::Unranked, 0),
            total: &ground.figures.header().outside,
        }
    }

    /// Maps a run of at least `bytes` at a multiple of `align`, which reads zero, on the pages that
    /// the options ask for, but for those of hugetlb pools.
    pub fn acquire(&self, bytes: usize, align: usize) -> Option<*mut u8> {
        let policy = self.ground.policy;
        if policy.is_sealed() {
            return None;
        }
        let bytes = bytes.checked_next_multiple_of(SLOT)?;
        let len = bytes.checked_next_multiple_of(SUPER)?;
        let mode = match policy.config().pages {
            _ if policy.is_plain() => None,
            config::Pages::Small => Some(PageMode::Small),
            _ => Some(PageMode::Thp),
        };
        let os = policy.os();
        let address = os.map_anywhere(len, align.max(SUPER), mode).ok()?;
        if self.insert(address, bytes) {
            // SAFETY: mapped just now.
            unsafe { policy.lock_memory(address, len) };
            return Some(address as *mut u8);
        }
        // SAFETY: nobody knows of it.
        unsafe { os.unreserve(address, len) };
        None
    }

    /// The bytes of the run that starts at the address.
    pub fn bytes_at(&self, address: usize) -> Option<usize> {
        if self.total.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let count = self.count.lock();
        let index = self.find(*count, address).ok()?;
        Some(self.table[index].bytes.get() as usize)
    }

    /// Unmaps the run that starts at the address; false if there is none.
    ///
    /// # Safety
    /// Nobody uses the run any more.
    pub unsafe fn release(&self, address: usize) -> bool {
        let Some(bytes) = self.remove(address) else {
            return false;
        };
        // SAFETY: a run's mapping, which nobody uses, as this function's Safety section has it.
        unsafe { self.ground.policy.os().unreserve(address, mapped(bytes)) };
        true
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
        let bytes = bytes.checked_next_multiple_of(SLOT)?;
        let len = bytes.checked_next_multiple_of(SUPER)?;
        let policy = self.ground.policy;
        if align > PAGE {
            return None;
        }
        let old = self.remove(address)?;
        // A mapping of the same length stays, also while the heap is sealed.
        let moved = if len == mapped(old) {
            Some(address)
        } else if policy.is_sealed() || policy.is_plain() {
            None
        } else {
            // SAFETY: a run's mapping, which is the caller's, as this function's Safety section has
            // it.
            unsafe { policy.os().remap(address, mapped(old), len) }.ok()
        };
        // The place of the removed entry is free.
        self.insert(
            moved.unwrap_or(address),
            if moved.is_some() { bytes } else { old },
        );
        moved.map(|address| address as *mut u8)
    }

    fn find(&self, count: usize, address: usize) -> Result<usize, usize> {
        self.table[..count].binary_search_by_key(&(address as u64), |entry| entry.address.get())
    }

    /// Notes a run; false if the table is full.
    fn insert(&self, address: usize, bytes: usize) -> bool {
        let mut count = self.count.lock();
        let (Err(index), true) = (self.find(*count, address), *count < self.table.len()) else {
            return false;
        };
        for at in (index..*count).rev() {
            self.table[at + 1].set(&self.table[at]);
        }
        self.table[index].address.set(address as u64);
        self.table[index].bytes.set(bytes as u64);
        *count += 1;
        self.total.fetch_add(bytes as u64, Ordering::Relaxed);
        true
    }

    /// Forgets a run. Returns its bytes.
    fn remove(&self, address: usize) -> Option<usize> {
        if self.total.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut count = self.count.lock();
        let index = self.find(*count, address).ok()?;
        let bytes = self.table[index].bytes.get();
        *count -= 1;
        for at in index..*count {
            self.table[at].set(&self.table[at + 1]);
        }
        self.total.fetch_sub(bytes, Ordering::Relaxed);
        Some(bytes as usize)
    }

    /// Takes the lock, before fork.
    pub fn lock(&self) {
        self.count.lock_for_fork();
    }

    /// Frees the lock that `lock` took, in the parent or in the child.
    ///
    /// # Safety
    /// This thread (or in a child, the thread that forked) called `lock` before.
    pub unsafe fn unlock(&self) {
        // SAFETY: this thread holds the lock, as this function's Safety section asks.
        unsafe { self.count.force_unlock() };
    }
}

impl Entry {
    fn set(&self, other: &Self) {
        self.address.set(other.address.get());
        self.bytes.set(other.bytes.get());
    }
}
