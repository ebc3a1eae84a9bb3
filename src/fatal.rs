//! Messages: one line on stderr, built in a fixed buffer, and the end of the process where the heap's user has
//! broken its contract. Nothing here allocates.

use crate::config::OptionRow;
use core::sync::atomic::{AtomicUsize, Ordering};
use theap_platform::{Line, Os};

/// What is said once a process; see `Arena::first_to_say`.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Saying {
    /// [`no_hugepages`].
    NoHugepages,
    /// [`no_gigantic_page`].
    NoGiganticPage,
    /// [`out_of_memory`].
    OutOfMemory,
    /// [`forked`].
    Forked,
    /// [`not_locked`].
    Unlocked,
    /// [`no_warmer`].
    NoWarmer,
    /// [`warmer_cpus`].
    WarmerCpus,
    /// [`starved`].
    Starved,
}

/// What a caller of free can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// The block was free already.
    DoubleFree,
    /// No block starts at the address.
    NotABlock,
    /// The address is not the heap's.
    Foreign,
    /// The link in a free block leads nowhere.
    BrokenLink,
    /// The size is not the block's.
    #[cfg(any(debug_assertions, feature = "hardened"))]
    WrongSize,
    /// The canary at the block's end is gone.
    #[cfg(feature = "hardened")]
    Overflow,
    /// The poison in the free block is gone.
    #[cfg(feature = "hardened")]
    WriteAfterFree,
}

/// The address of the misuse that ends the process, or 0.
static MISUSED: AtomicUsize = AtomicUsize::new(0);

/// What a misuse was about, if one was found.
pub fn misused() -> Option<usize> {
    Some(MISUSED.load(Ordering::Relaxed)).filter(|&address| address != 0)
}

/// Reports a misuse and aborts. The heap is intact up to the operation that found it.
#[cold]
#[inline(never)]
pub fn misuse(os: Os, what: Misuse, address: usize) -> ! {
    let text = match what {
        Misuse::DoubleFree => "double free of ",
        Misuse::NotABlock => "free of a pointer to which no block belongs: ",
        Misuse::Foreign => "free of a pointer that is not from this heap: ",
        #[cfg(any(debug_assertions, feature = "hardened"))]
        Misuse::WrongSize => "free with a size that is not the block's: ",
        #[cfg(feature = "hardened")]
        Misuse::Overflow => "written to beyond its end: ",
        #[cfg(feature = "hardened")]
        Misuse::WriteAfterFree => "written to after its free: ",
        Misuse::BrokenLink => "heap corruption: written to after its free, or freed twice: ",
    };
    Line::new()
        .str("theap: ")
        .str(text)
        .hex(address as u64)
        .send(os);
    MISUSED.store(address, Ordering::Relaxed);
    os.abort()
}

/// Reports a value in the environment that no option takes.
#[cold]
pub fn wrong_option(os: Os, row: &OptionRow, value: &[u8]) {
    Line::new()
        .str("theap: ")
        .str(row.variable)
        .str("=")
        .raw(value)
        .str(" is not valid (")
        .str(row.values)
        .str("); ignored")
        .send(os);
}

/// Reports, once a process, that hugetlb pages ran out.
#[cold]
pub fn no_hugepages(os: Os, pages: usize) {
    Line::new()
        .str("theap: no ")
        .dec(pages as u64)
        .str(" free hugetlb pages of 2 MiB; going on without. More: sysctl -w vm.nr_hugepages=N")
        .send(os);
}

/// Reports, once a process, that hugetlb pages of 1 GiB ran out.
#[cold]
pub fn no_gigantic_page(os: Os) {
    Line::new()
        .str("theap: no free hugetlb page of 1 GiB; going on with 2 MiB. More: ")
        .str("echo N > /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages, or at boot hugepagesz=1G hugepages=N")
        .send(os);
}

/// Reports, once a process, that memory cannot be locked.
#[cold]
pub fn not_locked(os: Os, bytes: usize, why: theap_platform::Error) {
    Line::new()
        .str("theap: cannot lock ")
        .dec(bytes as u64)
        .str(" bytes in memory (")
        .show(why)
        .str("); going on unlocked. Raise RLIMIT_MEMLOCK: ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit")
        .send(os);
}

/// Reports, once a process, that the system gives no more memory or addresses.
#[cold]
pub fn out_of_memory(os: Os, bytes: usize, why: theap_platform::Error) {
    Line::new()
        .str("theap: out of memory: no further ")
        .dec(bytes as u64)
        .str(" bytes (")
        .show(why)
        .str("); returning null")
        .send(os);
}

/// Reports, once a process, that the warmer could not be started.
#[cold]
pub fn no_warmer(os: Os, why: theap_platform::Error) {
    Line::new()
        .str("theap: no thread for the warmer (")
        .show(why)
        .str("); threads that grow prefault for themselves, as with THEAP_PREFAULT=grow")
        .send(os);
}

/// Reports, once a process, that the warmer may not run where the options say.
#[cold]
pub fn warmer_cpus(os: Os) {
    Line::new()
        .str("theap: the warmer may run on no CPU of THEAP_WARMER_CPUS; it runs on any")
        .send(os);
}

/// Reports, once a process, that the warmer hardly runs and pauses.
#[cold]
pub fn starved(os: Os) {
    Line::new()
        .str("theap: the CPUs of the warmer are busy; it pauses, and threads that grow prefault for themselves. Give it ")
        .str("another CPU (THEAP_WARMER_CPUS), or CAP_SYS_NICE")
        .send(os);
}

/// Reports that not even the smallest heap could be set up.
#[cold]
pub fn no_arena(os: Os, why: theap_platform::Error) {
    Line::new()
        .str("theap: cannot reserve addresses for the heap (")
        .show(why)
        .str("); every allocation fails. Check ulimit -v")
        .send(os);
}

/// Reports, once a process, what a fork did to the heap's hugetlb pages. `left` of them may meet an empty pool.
#[cold]
pub fn forked(os: Os, pages: usize, free: usize, moved: usize, left: usize) {
    let line = Line::new()
        .str("theap: fork: ")
        .dec(pages as u64)
        .str(" hugetlb pages may be copied and the pool has ")
        .dec(free as u64)
        .str(" free; ");
    if left == 0 {
        line.str("moved ")
            .dec(moved as u64)
            .str(" of them to other pages. To keep them: sysctl -w vm.nr_hugepages=N")
    } else {
        line.dec(left as u64)
            .str(" could not be moved: a write may end in SIGBUS. Raise vm.nr_hugepages")
    }
    .send(os);
}

/// Reports that nobody can look at the statistics of the process.
#[cold]
pub fn not_published(os: Os, why: theap_platform::Error) {
    Line::new()
        .str("theap: cannot publish statistics (")
        .show(why)
        .str("); going on without")
        .send(os);
}
