//! Messages: one line each on standard error, built in a fixed buffer without allocation. A message
//! tells what happened, what theap does now, and what to type. The report of a misuse also ends the
//! process, since its caller has broken the contract of the heap. All other messages can be left
//! out, and are, where descriptor 2 is no longer the file that it was at start ([`Os::remark`]).

use crate::contract::{Act, Contract};
use core::sync::atomic::{AtomicUsize, Ordering};
use theap_platform::{Bound, Error, Line, Os};

/// A message that is given once in a process; `Arena::first_to_say` tells whether it was given
/// already.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum OnceMessage {
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
    /// [`handed_over`].
    HandedOver,
    /// [`limit_reached`].
    LimitReached,
}

/// The reason why less memory was reserved than the options ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// There is no more.
    Room(Bound),
    /// The heap's own limits allow no more.
    Limit,
    /// The system has refused more.
    Refused(Error),
}

/// A mistake of the program that the heap has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// The block was free already.
    DoubleFree,
    /// No block starts at the address.
    NotABlock,
    /// The address does not belong to the heap.
    Foreign,
    /// The link in a free block does not lead to another block.
    BrokenLink,
    /// The size that was given to free is not the size of the block.
    #[cfg(any(debug_assertions, feature = "hardened"))]
    WrongSize,
    /// The canary at the end of the block was overwritten.
    #[cfg(all(feature = "hardened", not(feature = "valgrind")))]
    Overflow,
    /// The poison in the free block was overwritten.
    #[cfg(all(feature = "hardened", not(feature = "valgrind")))]
    WriteAfterFree,
}

impl Misuse {
    /// The text of the message before the address.
    const fn text(self) -> &'static str {
        match self {
            Misuse::DoubleFree => "double free of ",
            Misuse::NotABlock => {
                "free of a pointer to which no block belongs (inside a block, or freed before): "
            }
            Misuse::Foreign => "free of a pointer that is not from this heap: ",
            #[cfg(any(debug_assertions, feature = "hardened"))]
            Misuse::WrongSize => "free with a size that is not the block's: ",
            #[cfg(all(feature = "hardened", not(feature = "valgrind")))]
            Misuse::Overflow => "heap corruption: a block was written to beyond its end: ",
            #[cfg(all(feature = "hardened", not(feature = "valgrind")))]
            Misuse::WriteAfterFree => "heap corruption: a block was written to after its free: ",
            Misuse::BrokenLink => {
                "heap corruption: a block was written to after its free, or freed twice: "
            }
        }
    }
}

/// The address of the misuse that ends the process, or 0.
static MISUSED: AtomicUsize = AtomicUsize::new(0);

/// The address of the misuse that ends the process, if one was found.
pub fn misused() -> Option<usize> {
    Some(MISUSED.load(Ordering::Relaxed)).filter(|&address| address != 0)
}

/// Reports a misuse and aborts. The heap is intact up to the operation that found it.
#[cold]
#[inline(never)]
pub fn misuse(os: Os, what: Misuse, address: usize) -> ! {
    say_misuse(os, what, address);
    MISUSED.store(address, Ordering::Relaxed);
    os.abort()
}

fn say_misuse(os: Os, what: Misuse, address: usize) {
    Line::new()
        .str("theap: ")
        .str(what.text())
        .hex(address as u64)
        .str("; theap ends the process (SIGABRT). More about the address: THEAP_CRASH_REPORT=1")
        .send(os);
}

/// Bytes of a wrong value that [`wrong_option`] shows.
const SHOWN: usize = 80;

/// Reports a value in the environment that an option does not take.
#[cold]
pub fn wrong_option(os: Os, variable: &str, value: &[u8], values: &str) {
    Line::new()
        .str("theap: ")
        .str(variable)
        .str("=")
        .raw(&value[..value.len().min(SHOWN)])
        .str(" is not valid; theap ignores it. Valid: ")
        .str(values)
        .remark(os);
}

/// Reports, once in a process, that the hugetlb pool has too few pages of 2 MiB for a growth.
#[cold]
pub fn no_hugepages(os: Os, pages: usize) {
    Line::new()
        .str("theap: fewer than ")
        .dec(pages as u64)
        .str(" hugetlb pages of 2 MiB are free; theap uses transparent hugepages or 4 KiB pages ")
        .str("instead. To have more: sysctl -w vm.nr_hugepages=N")
        .remark(os);
}

/// Reports, once in a process, that no hugetlb page of 1 GiB is free.
#[cold]
pub fn no_gigantic_page(os: Os) {
    Line::new()
        .str("theap: no hugetlb page of 1 GiB is free; theap uses pages of 2 MiB instead. ")
        .str("To have more: echo N > ")
        .str("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages, ")
        .str("or boot with hugepagesz=1G hugepages=N")
        .remark(os);
}

/// Reports, once in a process, that memory cannot be locked.
#[cold]
pub fn not_locked(os: Os, bytes: usize, why: Error) {
    Line::new()
        .str("theap: cannot lock ")
        .dec(bytes as u64)
        .str(" bytes in memory (")
        .show(why)
        .str("); they stay unlocked and may be swapped out. ")
        .str("Raise RLIMIT_MEMLOCK: ulimit -l unlimited, or LimitMEMLOCK=infinity in the systemd unit")
        .remark(os);
}

/// Reports, once in a process, that the system gives no more memory or the heap has no more
/// addresses.
#[cold]
pub fn out_of_memory(os: Os, bytes: usize, why: Error) {
    Line::new()
        .str("theap: out of memory: the heap cannot grow by ")
        .dec(bytes as u64)
        .str(" bytes (")
        .show(why)
        .str("); the request fails (an allocation returns null). Check ulimit -a, ")
        .str("the control group's memory limit, and THEAP_ADDRESS_SPACE")
        .remark(os);
}

/// Reports, once in a process, that the option `limit` refuses to let the heap grow.
#[cold]
pub fn limit_reached(os: Os, limit: usize, bytes: usize) {
    Line::new()
        .str("theap: the heap may map ")
        .dec(limit as u64)
        .str(" bytes (THEAP_LIMIT), and ")
        .dec(bytes as u64)
        .str(" more would be too many; the request fails (an allocation returns null). ")
        .str("To see who fills it: theap stats PID; to allow more: THEAP_LIMIT=N")
        .remark(os);
}

/// Reports that only `had` of the `wanted` bytes of the option `reserve` were touched at the start.
#[cold]
pub fn reserved(os: Os, wanted: usize, had: usize, why: Shortage) {
    let line = Line::new()
        .str("theap: reserved ")
        .dec(had as u64)
        .str(" of ")
        .dec(wanted as u64)
        .str(" bytes: ");
    let (line, more) = match why {
        Shortage::Room(Bound::Machine) => (
            line.str("the machine has no more available memory"),
            "See free -m, or lower THEAP_RESERVE",
        ),
        Shortage::Room(Bound::Group) => (
            line.str("the control group leaves no more"),
            "Raise its memory.max, or lower THEAP_RESERVE",
        ),
        Shortage::Room(Bound::Process) => (
            line.str("ulimit -v or ulimit -d leaves no more"),
            "Raise it, or lower THEAP_RESERVE",
        ),
        Shortage::Limit => (
            line.str("THEAP_LIMIT or THEAP_SOFT_LIMIT allows no more"),
            "Raise it, or lower THEAP_RESERVE",
        ),
        Shortage::Refused(error) => (
            line.str("the system gives no more (").show(error).str(")"),
            "Lower THEAP_RESERVE",
        ),
    };
    line.str("; the rest takes page faults when it is used. ")
        .str(more)
        .remark(os);
}

/// Reports, once in a process, that the warmer could not be started.
#[cold]
pub fn no_warmer(os: Os, why: Error) {
    Line::new()
        .str("theap: no thread for the warmer (")
        .show(why)
        .str("); threads for which the heap grows populate memory themselves, ")
        .str("as with THEAP_PREFAULT=grow. Check ulimit -u and the control group's pids.max")
        .remark(os);
}

/// Reports, once in a process, that the warmer may not run where the options say.
#[cold]
pub fn warmer_cpus(os: Os) {
    Line::new()
        .str("theap: the warmer may run on no CPU of THEAP_WARMER_CPUS; ")
        .str("it runs on any that the process may use. ")
        .str("To see those: grep Cpus_allowed_list /proc/PID/status")
        .remark(os);
}

/// Reports, once in a process, that the warmer hardly runs and pauses.
#[cold]
pub fn starved(os: Os) {
    Line::new()
        .str("theap: the CPUs of the warmer are busy; it pauses, and threads for which the heap ")
        .str("grows populate memory themselves. ")
        .str("Give it another CPU (THEAP_WARMER_CPUS=LIST), or the process CAP_SYS_NICE")
        .remark(os);
}

/// Reports, once in a process, that a block of the C library goes back there.
#[cold]
pub fn handed_over(os: Os, address: usize) {
    Line::new()
        .str("theap: the program frees or resizes ")
        .hex(address as u64)
        .str(", a block of the C library's malloc; theap hands it and later ones over to the C ")
        .str("library. To end the process there instead: THEAP_FOREIGN=abort")
        .remark(os);
}

/// Reports what a thread does in a hot scope that does not allow it; `ends` tells that theap ends
/// the process now. The frames of the stack follow.
#[cold]
#[inline(never)]
pub fn broken_contract(os: Os, contract: Contract, act: Act, ends: bool) {
    let line = Line::new().str("theap: thread ").dec(os.thread_id().into());
    let line = match act {
        Act::Allocate(bytes) => line
            .str(" allocates a block of ")
            .dec(bytes as u64)
            .str(" bytes"),
        Act::Free(block) => line.str(" frees ").hex(block as u64),
        Act::Resize(bytes) => line
            .str(" resizes a block to ")
            .dec(bytes as u64)
            .str(" bytes"),
    };
    let line = line.str(match contract {
        Contract::NoAllocation => " in a hot scope that allows no allocation",
        Contract::NoSlowPath => " on a slow path, in a hot scope that allows none",
    });
    let line = line.str(match ends {
        true => "; theap ends the process (SIGABRT). Stack",
        false => ". Stack (told once)",
    });
    say_or_remark(
        os,
        line.str("; for names: addr2line -fCie FILE OFFSET"),
        ends,
    );
}

/// Reports one address of the stack that [`broken_contract`] tells.
#[cold]
#[inline(never)]
pub fn stack_frame(os: Os, address: usize, ends: bool) {
    // The file's path may be long.
    let line = Line::<512>::sized()
        .str("theap: thread ")
        .dec(os.thread_id().into())
        .str(":   ");
    let frame = os.frame(address);
    let file = frame.map_or(&b"?"[..], |frame| frame.file);
    // The byte before is the call's.
    let offset = frame
        .map_or(address, |frame| frame.offset)
        .saturating_sub(1);
    let line = line.raw(file).str(" ").hex(offset as u64);
    let line = match frame.and_then(|frame| frame.name) {
        Some(name) => line.str(" ").raw(name),
        None => line,
    };
    say_or_remark(os, line, ends);
}

/// Writes a line that ends the process, or one that can be left out.
fn say_or_remark<const N: usize>(os: Os, line: Line<N>, ends: bool) {
    if ends { line.send(os) } else { line.remark(os) }
}

/// Reports that not even the smallest heap could be set up.
#[cold]
pub fn no_arena(os: Os, why: Error) {
    Line::new()
        .str("theap: cannot reserve addresses for the heap (")
        .show(why)
        .str("); this allocation fails, and later ones try again. ")
        .str("Raise the limit: ulimit -v unlimited")
        .remark(os);
}

/// Reports, once in a process, that a fork may leave the hugetlb pool without a page for a copy.
/// The parent has moved `moved` of its `pages` hugetlb pages to other pages before the fork; `left`
/// of them could not be moved.
#[cold]
pub fn forked(os: Os, pages: usize, free: usize, moved: usize, left: usize) {
    let line = Line::new()
        .str("theap: fork: ")
        .dec(pages as u64)
        .str(" hugetlb pages may be copied, and only ")
        .dec(free as u64)
        .str(" are free; ");
    if left == 0 {
        line.str("theap moved ")
            .dec(moved as u64)
            .str(" of them to other pages. To keep them: sysctl -w vm.nr_hugepages=N")
    } else {
        line.str("theap could not move ")
            .dec(left as u64)
            .str(" of them: a write to one may end in SIGBUS. ")
            .str("Raise vm.nr_hugepages, or set THEAP_PAGES=thp")
    }
    .remark(os);
}

/// Reports that nobody can look at the statistics of the process.
#[cold]
pub fn not_published(os: Os, why: Error) {
    Line::new()
        .str("theap: cannot publish statistics (")
        .show(why)
        .str("); theap stats, top and trace cannot look at this process. ")
        .str("Check ulimit -f, and that memfd_create is allowed")
        .remark(os);
}

#[cfg(test)]
mod tests {
    use super::*;
    use theap_platform::Fake;

    /// The greatest numbers of a machine: bytes, pages, and an address.
    const BYTES: usize = 1 << 46;
    const PAGES: usize = 1 << 25;

    /// Every message, with values as long as they get.
    fn all() -> Vec<String> {
        let fake: &'static Fake = Box::leak(Box::new(Fake::new()));
        let os = Os::faked(fake);
        for misuse in [
            Misuse::DoubleFree,
            Misuse::NotABlock,
            Misuse::Foreign,
            Misuse::BrokenLink,
            #[cfg(any(debug_assertions, feature = "hardened"))]
            Misuse::WrongSize,
            #[cfg(all(feature = "hardened", not(feature = "valgrind")))]
            Misuse::Overflow,
            #[cfg(all(feature = "hardened", not(feature = "valgrind")))]
            Misuse::WriteAfterFree,
        ] {
            say_misuse(os, misuse, 0x7fff_ffff_ffff);
        }
        wrong_option(os, "THEAP_PAGES", &[b'x'; 1000], "auto, small");
        no_hugepages(os, PAGES);
        no_gigantic_page(os);
        not_locked(os, BYTES, Error::NoMemory);
        out_of_memory(os, BYTES, Error::Lost);
        limit_reached(os, BYTES, BYTES);
        for why in [
            Shortage::Room(Bound::Machine),
            Shortage::Room(Bound::Group),
            Shortage::Room(Bound::Process),
            Shortage::Limit,
            Shortage::Refused(Error::Lost),
        ] {
            reserved(os, BYTES, BYTES, why);
        }
        no_warmer(os, Error::NoMemory);
        warmer_cpus(os);
        starved(os);
        handed_over(os, 0x7fff_ffff_ffff);
        no_arena(os, Error::Unsupported);
        forked(os, PAGES, PAGES, PAGES, 0);
        forked(os, PAGES, PAGES, PAGES, PAGES);
        not_published(os, Error::Unsupported);
        for act in [
            Act::Allocate(BYTES),
            Act::Free(0x7fff_ffff_ffff),
            Act::Resize(BYTES),
        ] {
            broken_contract(os, Contract::NoAllocation, act, false);
            broken_contract(os, Contract::NoSlowPath, act, true);
        }
        stack_frame(os, all as *const () as usize, false);
        let mut text = vec![0; 16 << 10];
        let said = str::from_utf8(fake.read_stderr(&mut text)).unwrap();
        said.lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_message_is_one_whole_line() {
        let said = all();
        for line in &said {
            println!("{line}");
            assert!(line.starts_with("theap: "), "{line}");
            // A line has 256 bytes, with its end; what is longer is cut off.
            assert!(line.len() < 255, "{} bytes: {line}", line.len());
        }
        let misuses = said.iter().filter(|line| line.contains("(SIGABRT)"));
        assert_eq!(said.len() - misuses.count(), 23, "one line a message");
    }
}
