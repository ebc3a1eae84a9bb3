//! The machine's pool of hugetlb pages, for tests that need it in a certain state.

use std::fs::{self, File};

const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// The pool, which nobody else who takes it changes meanwhile. Put back as it was at the end.
pub struct Pool {
    before: String,
    _lock: File,
}

impl Pool {
    /// `None`, and a line that says so, if the pool may not be changed here.
    pub fn take() -> Option<Self> {
        let taken = Self::try_take();
        if taken.is_none() {
            eprintln!("skipped: {POOL} cannot be changed here");
        }
        taken
    }

    fn try_take() -> Option<Self> {
        let lock = File::create(std::env::temp_dir().join("theap-hugetlb.lock")).ok()?;
        lock.lock().ok()?;
        let before = fs::read_to_string(POOL).ok()?;
        fs::write(POOL, &before).ok()?;
        Some(Self {
            before,
            _lock: lock,
        })
    }

    /// Makes the pool hold this many free pages. False, and a line that says so, if the kernel finds no such number.
    pub fn set(&self, pages: usize) -> bool {
        fs::write(POOL, pages.to_string()).unwrap();
        let found = free_pages() == pages;
        if !found {
            eprintln!(
                "skipped: the kernel finds {} of {pages} hugetlb pages",
                free_pages()
            );
        }
        found
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = fs::write(POOL, &self.before);
    }
}

/// Pages of the pool that nobody uses.
pub fn free_pages() -> usize {
    let info = fs::read_to_string("/proc/meminfo").unwrap();
    let line = info
        .lines()
        .find(|line| line.starts_with("HugePages_Free"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
