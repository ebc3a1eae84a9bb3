//! The machine's pools of hugetlb pages, for tests that need a pool in a certain state.

use std::fs::{self, File};

/// A pool that belongs to one test at a time. When the value is dropped, the pool gets its old size
/// back.
pub struct Pool {
    directory: &'static str,
    before: String,
    _lock: File,
}

#[allow(dead_code, reason = "no test uses all of it")]
impl Pool {
    /// Takes the pool of 2 MiB pages. If the test may not change it, the answer is `None` and a
    /// line says so.
    pub fn take() -> Option<Self> {
        Self::at("/sys/kernel/mm/hugepages/hugepages-2048kB")
    }

    /// Takes the pool of 1 GiB pages, like [`Pool::take`].
    pub fn take_1g() -> Option<Self> {
        Self::at("/sys/kernel/mm/hugepages/hugepages-1048576kB")
    }

    fn at(directory: &'static str) -> Option<Self> {
        let taken = Self::try_at(directory);
        if taken.is_none() {
            eprintln!("skipped: {directory}/nr_hugepages cannot be changed here");
        }
        taken
    }

    fn try_at(directory: &'static str) -> Option<Self> {
        let lock = File::create(std::env::temp_dir().join("theap-hugetlb.lock")).ok()?;
        lock.lock().ok()?;
        let file = format!("{directory}/nr_hugepages");
        let before = fs::read_to_string(&file).ok()?;
        fs::write(&file, &before).ok()?;
        Some(Self {
            directory,
            before,
            _lock: lock,
        })
    }

    /// Makes the pool have this many free pages. If the kernel does not find as many, the answer is
    /// false and a line says so.
    pub fn set(&self, pages: usize) -> bool {
        fs::write(self.file("nr_hugepages"), pages.to_string()).unwrap();
        let found = self.free();
        if found != pages {
            eprintln!(
                "skipped: the kernel finds {found} of {pages} pages for {}",
                self.directory
            );
        }
        found == pages
    }

    /// The number of pages that nobody uses, and that are promised to nobody.
    pub fn free(&self) -> usize {
        let [free, promised] = ["free_hugepages", "resv_hugepages"].map(|name| {
            let number = fs::read_to_string(self.file(name)).unwrap();
            number.trim().parse::<usize>().unwrap()
        });
        free.saturating_sub(promised)
    }

    /// Whether this many pages become free: another process's heap may hold some for a moment.
    pub fn returns_to(&self, pages: usize) -> bool {
        (0..100).any(|_| {
            let back = self.free() == pages;
            if !back {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            back
        })
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = fs::write(self.file("nr_hugepages"), &self.before);
    }
}
