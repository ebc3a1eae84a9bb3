//! The heap where the system refuses what it is asked: each system call and each kind of advice in
//! turn, with the errors that kernels and filters have, from the start of the heap or in the middle
//! of a run. And programs that forbid themselves everything unusual after their start, by filters
//! that kill. docs/guide.md lists the calls.
#![allow(unsafe_code)] // Calls the allocator directly, and forks.

mod child;
#[allow(dead_code, reason = "the pool is only set here")]
mod hugepages;

use child::passes;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::{env, process, ptr, thread};
use theap::raw;

const MIB: usize = 1 << 20;
const SIZES: [usize; 6] = [16, 100, 1000, 9000, 40_000, 200_000];
const MODES: [&str; 4] = ["small", "thp", "auto", "hugetlb"];

/// The advice that may be refused.
const ADVICE: [i32; 8] = [
    libc::MADV_DONTNEED,
    libc::MADV_FREE,
    libc::MADV_DONTDUMP,
    libc::MADV_HUGEPAGE,
    libc::MADV_NOHUGEPAGE,
    libc::MADV_POPULATE_READ,
    libc::MADV_POPULATE_WRITE,
    libc::MADV_COLLAPSE,
];

/// The calls that may be refused: all that the heap makes, but for mmap, and some more.
const CALLS: &[(&str, i64)] = &[
    ("munmap", libc::SYS_munmap),
    ("mprotect", libc::SYS_mprotect),
    ("mremap", libc::SYS_mremap),
    ("madvise", libc::SYS_madvise),
    ("msync", libc::SYS_msync),
    ("mincore", libc::SYS_mincore),
    ("mlock2", libc::SYS_mlock2),
    ("mbind", libc::SYS_mbind),
    ("get_mempolicy", libc::SYS_get_mempolicy),
    ("move_pages", libc::SYS_move_pages),
    ("getcpu", libc::SYS_getcpu),
    ("sched_getaffinity", libc::SYS_sched_getaffinity),
    ("sched_setaffinity", libc::SYS_sched_setaffinity),
    ("sched_setscheduler", libc::SYS_sched_setscheduler),
    ("sysinfo", libc::SYS_sysinfo),
    ("getrandom", libc::SYS_getrandom),
    ("openat", libc::SYS_openat),
    ("read", libc::SYS_read),
    ("pread64", libc::SYS_pread64),
    ("fstat", libc::SYS_fstat),
    ("memfd_create", libc::SYS_memfd_create),
    ("ftruncate", libc::SYS_ftruncate),
    ("clone", libc::SYS_clone),
    ("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    ("prctl", libc::SYS_prctl),
    ("userfaultfd", libc::SYS_userfaultfd),
];

/// Calls that the guide lists besides.
const MORE: &[(&str, i64)] = &[("mmap", libc::SYS_mmap), ("futex", libc::SYS_futex)];

/// Installs a filter for this thread and those that it starts.
fn install(
    rules: impl IntoIterator<Item = (i64, Vec<SeccompRule>)>,
    other: SeccompAction,
    these: SeccompAction,
) {
    let arch = TargetArch::try_from(env::consts::ARCH).unwrap();
    let rules: BTreeMap<_, _> = rules.into_iter().collect();
    let filter = SeccompFilter::new(rules, other, these, arch).unwrap();
    let program = BpfProgram::try_from(filter).unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// The rule that finds madvise with this advice.
fn advice(advice: i32) -> SeccompRule {
    let value = advice as u64;
    let is = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap();
    SeccompRule::new(vec![is]).unwrap()
}

/// Fills a block at both ends; the heap must have one.
fn block(size: usize) -> *mut u8 {
    filled(raw::alloc(size), size)
}

fn filled(block: *mut u8, size: usize) -> *mut u8 {
    assert!(!block.is_null(), "no {size} bytes");
    // SAFETY: a live block of this size.
    unsafe {
        block.write(size as u8);
        block.add(size - 1).write(size as u8);
    }
    block
}

/// Resizes a block, whose first byte must stay.
fn resized(block: *mut u8, old: usize, new: usize) -> *mut u8 {
    // SAFETY: a live block, whose old address is not used any more.
    let block = unsafe { raw::realloc(block, new) };
    assert!(!block.is_null(), "no {new} bytes instead of {old}");
    // SAFETY: a live block.
    assert_eq!(unsafe { block.read() }, old as u8);
    filled(block, new)
}

fn free(block: *mut u8) {
    // SAFETY: a live block, which nobody uses any more.
    unsafe { raw::free(block) }
}

/// What a program does with a heap: growth, all kinds of blocks, and giving back.
fn work() {
    let mut all = Vec::with_capacity(4000);
    for round in 0..2 {
        for number in 0..600 {
            all.extend(SIZES[..5].iter().map(|&size| block(size)));
            if number % 60 == 0 {
                all.push(block(SIZES[5]));
                all.push(filled(raw::alloc_aligned(10_000, 4096), 10_000));
            }
        }
        let zeroed = raw::alloc_zeroed(3 * MIB);
        assert!(!zeroed.is_null());
        // SAFETY: a live block.
        assert_eq!(unsafe { zeroed.add(2 * MIB).read() }, 0);
        free(zeroed);
        // Whole SuperSlabs that move, and a run beyond the range that does.
        let (first, behind) = (block(5 * MIB), block(3 * MIB));
        let moved = resized(first, 5 * MIB, 13 * MIB);
        let moved = resized(moved, 13 * MIB, MIB);
        let outside = resized(block(300 * MIB), 300 * MIB, 400 * MIB);
        let outside = resized(outside, 400 * MIB, 290 * MIB);
        [behind, moved, outside].into_iter().for_each(free);
        all.drain(round * 100..).for_each(free);
        if round == 0 {
            theap::purge();
        }
    }
    all.into_iter().for_each(free);
}

/// A fork whose child writes to all that it shares with its parent.
fn work_after_fork() {
    let shared: Vec<_> = (0..40).map(|_| block(MIB)).collect();
    let passed = in_child(|| {
        for &block in &shared {
            // SAFETY: a live block of this size.
            unsafe { block.write_bytes(1, MIB) };
        }
        free(block(100));
    });
    assert!(passed);
    shared.into_iter().for_each(free);
}

/// Runs `body` in a forked process. Whether it ended well.
fn in_child(body: impl FnOnce()) -> bool {
    // SAFETY: the child runs `body` and ends.
    match unsafe { libc::fork() } {
        0 => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: nothing of the parent's is to be done again.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the kernel writes the status.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            if status != 0 {
                eprintln!("the child ended with status {status:#x}");
            }
            status == 0
        }
    }
}

/// Refuses each call and each kind of advice in turn.
fn refused() {
    let calls = CALLS
        .iter()
        .map(|&(name, call)| (name.to_owned(), call, vec![]));
    let kinds = ADVICE.iter().map(|&kind| {
        let name = format!("madvise({kind})");
        (name, libc::SYS_madvise, vec![advice(kind)])
    });
    for (name, call, rules) in calls.chain(kinds) {
        for errno in [libc::EPERM, libc::ENOSYS, libc::EINVAL, libc::ENOMEM] {
            for from_start in [true, false] {
                let rules = rules.clone();
                let passed = in_child(move || {
                    if !from_start {
                        free(block(1000));
                    }
                    let action = SeccompAction::Errno(errno as u32);
                    install([(call, rules)], SeccompAction::Allow, action);
                    work();
                    work_after_fork();
                });
                assert!(
                    passed,
                    "{name} refused with {errno}, from the start: {from_start}"
                );
            }
        }
    }
}

/// A program that kills itself for opening a file, or for any advice but the classic ones.
fn killed() {
    let opening = [libc::SYS_openat, libc::SYS_openat2];
    #[cfg(target_arch = "x86_64")]
    let opening = opening.into_iter().chain([libc::SYS_open]);
    let opening: Vec<_> = opening.into_iter().map(|call| (call, vec![])).collect();
    let unusual =
        (0..200).filter(|advice| ![libc::MADV_DONTNEED, libc::MADV_FREE].contains(advice));
    let advising = vec![(libc::SYS_madvise, unusual.map(advice).collect::<Vec<_>>())];
    for rules in [opening, advising] {
        let passed = in_child(move || {
            free(block(1000));
            install(rules, SeccompAction::Allow, SeccompAction::KillProcess);
            work();
        });
        assert!(passed);
    }
}

/// The calls that a row of docs/guide.md lists, in the order of the row.
fn row(phase: &str) -> Vec<i64> {
    let guide = include_str!("../docs/guide.md");
    let start = format!("| {phase} |");
    let row = guide.lines().find(|line| line.starts_with(&start)).unwrap();
    let named = |word: &str| (CALLS.iter().chain(MORE)).find(|(name, _)| *name == word);
    let words = row[start.len()..].split('`');
    words.filter_map(named).map(|&(_, call)| call).collect()
}

/// A program with no other calls than those of these rows, and with the classic advice; everything
/// else kills.
fn listed(phases: &[&str]) {
    let mut calls: Vec<_> = phases.iter().flat_map(|phase| row(phase)).collect();
    assert!(calls.contains(&libc::SYS_mmap));
    calls.retain(|&call| call != libc::SYS_madvise);
    calls.push(libc::SYS_exit_group);
    let mut rules: Vec<_> = calls.into_iter().map(|call| (call, vec![])).collect();
    let classic = [libc::MADV_DONTNEED, libc::MADV_FREE].map(advice);
    rules.push((libc::SYS_madvise, classic.to_vec()));
    let passed = in_child(move || {
        free(block(1000));
        install(rules, SeccompAction::KillProcess, SeccompAction::Allow);
        work();
    });
    assert!(passed);
}

/// Threads that start in the sandbox, with the calls that the C library needs for them.
fn threads() {
    free(block(1000));
    let plain = [libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect];
    let of_threads = [
        libc::SYS_clone3,
        libc::SYS_clone,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sched_getaffinity,
        libc::SYS_gettid,
        libc::SYS_futex,
        libc::SYS_write,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let classic = [libc::MADV_DONTNEED, libc::MADV_FREE].map(advice);
    let rules = (plain.into_iter().chain(of_threads))
        .map(|call| (call, vec![]))
        .chain([(libc::SYS_madvise, classic.to_vec())]);
    install(rules, SeccompAction::KillProcess, SeccompAction::Allow);
    let all: Vec<_> = (0..4).map(|_| thread::spawn(work)).collect();
    all.into_iter().for_each(|one| one.join().unwrap());
    process::exit(0);
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test sandbox"]
fn scenario() {
    // The C library's own heap shall need nothing that is refused.
    // SAFETY: both are settings of the C library's malloc.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
        libc::free(ptr::null_mut());
    }
    match child::role().as_deref() {
        Some("refused") => refused(),
        Some("killed") => killed(),
        Some("listed") => listed(&["use", "growth, resizing", "giving back"]),
        Some("plain") => listed(&["`calls=plain`"]),
        Some("threads") => threads(),
        _ => {}
    }
}

/// Runs a scenario in each page mode; the pool of hugetlb pages has some.
fn in_all_modes(scenario: &str, modes: &[&str], options: &[(&str, &str)]) {
    let pool = hugepages::Pool::take();
    let pages = pool.as_ref().is_some_and(|pool| pool.set(48));
    if !pages {
        eprintln!("skipped in part: there are no hugetlb pages");
    }
    for mode in modes {
        let mut all = vec![("THEAP_PAGES", *mode), ("THEAP_ADDRESS_SPACE", "256M")];
        all.extend_from_slice(options);
        passes(scenario, &all);
    }
}

/// Limits that the work of a program meets again and again, and never exceeds.
const LIMITS: [(&str, &str); 3] = [
    ("THEAP_MESSAGES", "0"),
    ("THEAP_SOFT_LIMIT", "32M"),
    ("THEAP_LIMIT", "900M"),
];

#[test]
fn what_is_refused_costs_no_block() {
    in_all_modes("refused", &MODES, &[("THEAP_MESSAGES", "0")]);
}

#[test]
fn no_file_and_no_advice_in_the_middle_of_a_run() {
    in_all_modes("killed", &MODES, &[("THEAP_MESSAGES", "0")]);
}

#[test]
fn the_list_of_calls_is_complete() {
    in_all_modes("listed", &MODES, &[("THEAP_MESSAGES", "0")]);
    in_all_modes("listed", &MODES, &LIMITS);
}

#[test]
fn plain_calls_are_enough() {
    let options = [("THEAP_CALLS", "plain"), ("THEAP_MESSAGES", "0")];
    in_all_modes("plain", &MODES, &options);
    in_all_modes("plain", &MODES, &[&options[..], &LIMITS].concat());
    in_all_modes("threads", &MODES, &options);
}
