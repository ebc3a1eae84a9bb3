//! No memory, no addresses, no hugepages, absurd sizes and wrong options: the heap answers null or
//! takes the next best pages, writes one message, and never dies of a signal. Each scenario runs in
//! a process of its own that uses theap for nothing else.
#![allow(unsafe_code)] // Calls the allocator directly, and setrlimit.

mod cgroup;
mod child;
mod hugepages;

use cgroup::Group;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use std::alloc::{GlobalAlloc, Layout};
use std::process::{Command, Output};
use std::{fs, ptr, slice};
use theap::{OPTIONS, Theap, raw};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Sizes from huge to tiny, so that each size finds the memory that the one before has left.
const SIZES: [usize; 6] = [3 * MIB, 300 * KIB, 40 * KIB, 5000, 700, 16];

/// A block with its number written to both ends.
#[derive(Clone, Copy)]
struct Block {
    start: *mut u8,
    size: usize,
    number: u64,
}

impl Block {
    fn new(size: usize, number: u64) -> Option<Self> {
        let start = raw::alloc(size);
        if start.is_null() {
            return None;
        }
        // SAFETY: both places lie within the block, which has at least 16 bytes.
        unsafe {
            start.cast::<u64>().write_unaligned(number);
            start.add(size - 8).cast::<u64>().write_unaligned(number);
        }
        Some(Self {
            start,
            size,
            number,
        })
    }

    fn free(self) {
        // SAFETY: the block is live, and `new` wrote to both places.
        unsafe {
            assert_eq!(self.start.cast::<u64>().read_unaligned(), self.number);
            assert_eq!(
                self.start.add(self.size - 8).cast::<u64>().read_unaligned(),
                self.number
            );
            raw::free(self.start);
        }
    }
}

/// Limits a resource of this process to the amount in use plus `more` MiB.
fn limit(resource: Resource, field: &str, more: usize) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let used: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let limit = (used * KIB + more * MIB) as u64;
    setrlimit(resource, limit, RLIM_INFINITY).unwrap();
}

/// Lets the kernel refuse every thread of this process from now on, as where it has too many.
fn refuse_threads() {
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32;
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let (jump, answer) = (
        (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        (libc::BPF_RET | libc::BPF_K) as u16,
    );
    let line = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        line(load, 0, 0, 0),
        line(jump, libc::SYS_clone as u32, 1, 0),
        line(jump, libc::SYS_clone3 as u32, 0, 1),
        line(answer, REFUSE, 0, 0),
        line(answer, ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the filter, which is well formed.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let (mode, program) = (libc::SECCOMP_MODE_FILTER, &raw const program);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, program), 0);
    }
}

/// Allocates until nothing is left, frees half and allocates again. The blocks must have at least
/// `least` bytes in all.
fn exhaust(sizes: &[usize], least: usize) {
    // The list takes its memory before the heap runs out.
    let mut blocks = Vec::with_capacity(1 << 20);
    for &size in sizes {
        blocks.extend((0..).map_while(|number| Block::new(size, number)));
    }
    let bytes: usize = blocks.iter().map(|block: &Block| block.size).sum();
    println!(
        "{bytes} bytes in {} blocks; {:?}",
        blocks.len(),
        theap::stats()
    );
    assert!(blocks.len() < blocks.capacity() && bytes >= least);
    let mut kept = 0;
    for i in 0..blocks.len() {
        if i % 2 == 0 {
            blocks[i].free();
        } else {
            blocks[kept] = blocks[i];
            kept += 1;
        }
    }
    blocks.truncate(kept);
    for &size in sizes {
        blocks.push(
            Block::new(size, 7).unwrap_or_else(|| panic!("no {size} bytes after half was freed")),
        );
    }
    blocks.into_iter().for_each(Block::free);
}

/// Allocates 64 MiB of blocks, writes every byte, compares and frees them.
fn allocate_64_mib() {
    let blocks: Vec<_> = SIZES
        .into_iter()
        .flat_map(|size| (0..12 * MIB / size).map(move |_| (raw::alloc(size), size)))
        .collect();
    for &(block, size) in &blocks {
        assert!(!block.is_null());
        // SAFETY: the block has this size.
        unsafe { block.write_bytes(0x5A, size) };
    }
    for (block, size) in blocks {
        // SAFETY: the block is live until here, and was written above.
        unsafe {
            assert!(
                slice::from_raw_parts(block, size)
                    .iter()
                    .step_by(64)
                    .all(|&byte| byte == 0x5A)
            );
            raw::free(block);
        }
    }
}

/// Asks for sizes and alignments that no machine has, by every function that allocates.
fn ask_for_too_much() {
    let heap = Theap::new();
    let block = raw::alloc(100);
    for size in [
        isize::MAX as usize,
        isize::MAX as usize - 15,
        1 << 47,
        (1 << 46) + 1,
    ] {
        // SAFETY: the layouts have a size, and `block` is live: it stays live when the answer is
        // null.
        unsafe {
            let layout = Layout::from_size_align_unchecked(size, 1);
            assert!(heap.alloc(layout).is_null());
            assert!(heap.alloc_zeroed(layout).is_null());
            assert!(
                heap.realloc(block, Layout::new::<[u8; 100]>(), size)
                    .is_null()
            );
            assert!(raw::realloc(block, size).is_null());
        }
    }
    for size in [usize::MAX, usize::MAX - 4095, isize::MAX as usize + 1] {
        assert!(raw::alloc(size).is_null() && raw::alloc_zeroed(size).is_null());
        assert!((0..64).all(|shift| raw::alloc_aligned(size, 1 << shift).is_null()));
        // SAFETY: `block` is live.
        assert!(unsafe { raw::realloc(block, size) }.is_null());
    }
    for shift in 47..63 {
        let layout = Layout::from_size_align(1, 1 << shift).unwrap();
        // SAFETY: the layout has a size.
        unsafe {
            assert!(heap.alloc(layout).is_null() && heap.alloc_zeroed(layout).is_null());
        }
    }
    // A run that moves by its pages cannot grow beyond the heap.
    let run = raw::alloc(9 * MIB);
    // SAFETY: `run` and `block` are live: a block stays live when the answer is null.
    unsafe {
        assert_eq!(raw::realloc(run, 1 << 46), ptr::null_mut());
        raw::free(run);
        raw::free(block);
    }
    allocate_64_mib();
}

/// The program opens a file under the number of standard error after its first allocation.
fn with_a_data_file_on_descriptor_2() {
    let mut pipe = [0; 2];
    let block = raw::alloc(100);
    // SAFETY: the array has two places, and the descriptors are this process's own. The block is
    // live.
    unsafe {
        assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_NONBLOCK), 0);
        let kept = libc::dup(2);
        assert_eq!(libc::dup2(pipe[1], 2), 2);
        exhaust(&SIZES, 4 * MIB);
        let mut written = [0u8; 100];
        let bytes = libc::read(pipe[0], written.as_mut_ptr().cast(), written.len());
        assert_eq!(libc::dup2(kept, 2), 2);
        assert_eq!(bytes, -1, "{}", child::text(&written));
        // What ends the process is said wherever descriptor 2 leads.
        raw::free(block.add(1 << 40));
    }
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test exhaustion"]
fn scenario() {
    let Some(role) = child::role() else { return };
    let (what, amount) = role.split_once(' ').unwrap_or((&role, "0"));
    let amount: usize = amount.parse().unwrap();
    match what {
        "no-range" => {
            limit(Resource::RLIMIT_AS, "VmSize", amount);
            assert!(SIZES.iter().all(|&size| raw::alloc(size).is_null()));
            assert_eq!(theap::stats(), theap::Stats::default());
            assert!(!theap::owns(ptr::null()));
            assert!(theap::warm_up(1).is_err());
            theap::collect();
            assert_eq!(theap::purge(), 0);
        }
        "addresses" => {
            limit(Resource::RLIMIT_AS, "VmSize", amount);
            exhaust(&SIZES, amount * MIB / 4);
        }
        "no-thread" => {
            refuse_threads();
            allocate_64_mib();
            assert_eq!(theap::stats().warmer_starts, 0);
        }
        // Huge blocks would go elsewhere.
        "option" => exhaust(&SIZES[1..], amount * MIB / 4),
        "data" => {
            limit(Resource::RLIMIT_DATA, "VmData", amount);
            exhaust(&SIZES, amount * MIB / 4);
        }
        "64-mib" => {
            allocate_64_mib();
            let stats = theap::stats();
            assert!(
                stats.mapped_hugetlb <= (amount * 2 * MIB) as u64,
                "{stats:?}"
            );
            assert_eq!(stats.mapped_hugetlb == 0, amount == 0, "{stats:?}");
        }
        "cgroup" => {
            allocate_64_mib();
            let mapped = theap::stats().mapped_hugetlb;
            assert!((1..=(amount * 2 * MIB) as u64).contains(&mapped));
        }
        "too-much" => ask_for_too_much(),
        "data-file" => with_a_data_file_on_descriptor_2(),
        "options" => {
            raw::alloc(1);
            println!("{:?}", theap::stats());
        }
        _ => unreachable!("{role}"),
    }
}

/// Runs a scenario, which must pass, and returns the lines that it wrote to standard error.
fn messages(scenario: &str, variables: &[(&str, &str)]) -> Vec<String> {
    said(
        &format!("{scenario} {variables:?}"),
        child::command(scenario, variables),
    )
}

/// Runs a command, which must succeed, and returns the lines that it wrote to standard error.
fn said(what: &str, mut command: Command) -> Vec<String> {
    let output = command.output().unwrap();
    let (stdout, stderr) = (child::text(&output.stdout), child::text(&output.stderr));
    println!("{what}: {}\n{stdout}\n{stderr}", output.status);
    assert!(output.status.success(), "{what}: {}", output.status);
    stderr.lines().map(str::to_owned).collect()
}

/// Asserts that there is exactly one message, and that it begins with `start`.
fn one(messages: Vec<String>, start: &str) {
    assert!(
        messages.len() == 1 && messages[0].starts_with(start),
        "{messages:?}"
    );
}

#[test]
fn without_addresses_every_allocation_fails() {
    one(
        messages("no-range 0", &[]),
        "theap: cannot reserve addresses for the heap (out of memory); ",
    );
}

#[test]
fn little_memory_is_used_up_and_comes_back() {
    for (limited, variable) in [
        ("addresses 160", ("THEAP_PAGES", "auto")),
        ("addresses 300", ("THEAP_PAGES", "small")),
        ("addresses 600", ("THEAP_PAGES", "thp")),
        ("addresses 1100", ("THEAP_PAGES", "small")),
        ("addresses 2048", ("THEAP_PAGES", "small")),
        ("data 100", ("THEAP_PAGES", "small")),
        ("data 300", ("THEAP_PAGES", "auto")),
        ("option 64", ("THEAP_ADDRESS_SPACE", "64M")),
    ] {
        one(
            messages(limited, &[variable]),
            "theap: out of memory: the heap cannot grow by ",
        );
    }
}

#[test]
fn a_warmer_without_a_thread_is_one_message() {
    let options = [("THEAP_PAGES", "small"), ("THEAP_PREFAULT", "ahead")];
    one(
        messages("no-thread", &options),
        "theap: no thread for the warmer (out of memory); ",
    );
}

#[test]
fn without_hugetlb_pages_the_heap_is_on_others() {
    let Some(pool) = hugepages::Pool::take() else {
        return;
    };
    for pages in [0, 3] {
        if pool.set(pages) {
            let scenario = format!("64-mib {pages}");
            one(
                messages(&scenario, &[("THEAP_PAGES", "hugetlb")]),
                "theap: fewer than ",
            );
            assert!(messages(&scenario, &[("THEAP_PAGES", "auto")]).is_empty());
        }
    }
}

#[test]
fn a_group_that_may_use_few_hugetlb_pages_gets_others() {
    let Some(pool) = hugepages::Pool::take() else {
        return;
    };
    let bytes = (5 * 2 * MIB).to_string();
    let limits = ["hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"];
    if let Some(group) = Group::new("hugetlb", limits, &bytes)
        && pool.set(60)
    {
        let mut command = child::command("cgroup 5", &[("THEAP_PAGES", "hugetlb")]);
        group.hold(&mut command);
        one(said("cgroup 5", command), "theap: fewer than ");
        assert!(pool.returns_to(60));
    }
}

#[test]
fn absurd_sizes_and_alignments_are_null() {
    one(
        messages("too-much", &[]),
        "theap: out of memory: the heap cannot grow by ",
    );
}

#[test]
fn a_file_that_descriptor_2_got_later_gets_no_message() {
    let options = [("THEAP_ADDRESS_SPACE", "64M"), ("THEAP_PAGES", "small")];
    let output = child::run("data-file", &options);
    let said = child::text(&output.stderr);
    assert!(
        said.starts_with("theap: free of a pointer that is not from this heap: ")
            && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn wrong_options_are_reported_and_ignored() {
    let wrong: Vec<_> = OPTIONS
        .iter()
        .map(|row| (row.variable, "nonsense"))
        .collect();
    let (right, wrong) = (child::run("options", &[]), child::run("options", &wrong));
    let stats = |output: &Output| {
        child::text(&output.stdout)
            .lines()
            .find(|line| line.contains("Stats"))
            .map(str::to_owned)
    };
    assert_eq!(
        stats(&wrong).unwrap(),
        stats(&right).unwrap(),
        "the defaults hold"
    );
    let expected: String = OPTIONS
        .iter()
        .map(|row| {
            format!(
                "theap: {}=nonsense is not valid; theap ignores it. Valid: {}\n",
                row.variable, row.values
            )
        })
        .collect();
    assert_eq!(child::text(&wrong.stderr), expected);
}

#[test]
fn messages_can_be_silenced() {
    let mut variables: Vec<_> = OPTIONS
        .iter()
        .map(|row| (row.variable, "nonsense"))
        .filter(|(name, _)| *name != "THEAP_MESSAGES")
        .collect();
    variables.push(("THEAP_MESSAGES", "0"));
    assert!(messages("options", &variables).is_empty());
    assert!(messages("addresses 160", &[("THEAP_MESSAGES", "0")]).is_empty());
    assert!(messages("too-much", &[("THEAP_MESSAGES", "0")]).is_empty());
}

#[test]
fn a_long_value_is_one_line() {
    let said = messages("options", &[("THEAP_PAGES", &"x".repeat(10_000))]);
    one(said, "theap: THEAP_PAGES=xxx");
}
