//! The warmer as a program sees it: it is the thread that the options describe, it takes the page
//! faults and system calls of growth, it ends when the heap is sealed, and a fork waits until it
//! has finished its step. Each scenario runs in a process of its own.
#![allow(unsafe_code)] // Calls the allocator directly, getrusage and fork.

mod child;
mod hugepages;

use std::fs;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use theap::raw;

const MIB: usize = 1 << 20;
const SLOT: usize = 64 << 10;

/// The directories below /proc of the threads that have the warmer's name.
fn warmers() -> Vec<PathBuf> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks
        .map(|task| task.unwrap().path())
        .filter(|task| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "theap-warmer\n")
        })
        .collect()
}

/// Waits until the condition holds, for at most 10 s.
fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{what}: {:?}",
            theap::stats()
        );
        thread::sleep(Duration::from_millis(1));
    }
}

fn stock_is_there() -> bool {
    let stats = theap::stats();
    stats.stock > 0 && stats.stock >= stats.stock_target
}

/// Allocates whole slots and touches every page of them, so that each allocation is a step of
/// growth.
fn use_up(bytes: usize) {
    for _ in 0..bytes / SLOT {
        let block = raw::alloc(SLOT);
        assert!(!block.is_null());
        for page in (0..SLOT).step_by(4096) {
            // SAFETY: the page lies within the new block.
            unsafe { block.add(page).write(1) };
        }
    }
}

/// Starts the warmer, and waits until its stock is there. What was mapped before is used up.
fn begin() {
    use_up(6 * MIB);
    until("the stock comes to be", stock_is_there);
}

/// The page faults of this thread so far.
fn faults() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: zero is a valid `rusage`, which is live and writable.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    usage.ru_minflt + usage.ru_majflt
}

fn thread_is_as_told() {
    begin();
    let [warmer] = &warmers()[..] else {
        panic!("not one warmer")
    };
    let status = fs::read_to_string(warmer.join("status")).unwrap();
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let stat = fs::read_to_string(warmer.join("stat")).unwrap();
    let policy = stat.rsplit(')').next().unwrap().split_whitespace().nth(38);
    println!(
        "policy {} cpus {} blocked {}",
        policy.unwrap(),
        line("Cpus_allowed_list:"),
        line("SigBlk:"),
    );
}

/// Growth from the stock takes no fault and no system call: a filter like that of `steady.rs` would
/// kill the process.
fn growth_is_free() {
    begin();
    // The thread touches its own counters and this code for the first time here, and what is left
    // of a SuperSlab that was mapped before there was a warmer.
    use_up(3 * MIB);
    faults();
    until("the stock comes back", stock_is_there);
    forbid_system_calls();
    let before = faults();
    use_up(32 * MIB);
    tell_and_end(faults() - before);
}

/// From now on the kernel kills the process if this thread makes a system call that the end of the
/// test does not need.
fn forbid_system_calls() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
    let allowed = [libc::SYS_exit_group, libc::SYS_write, libc::SYS_getrusage];
    let filter = SeccompFilter::new(
        allowed.map(|call| (call, Vec::new())).into(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )
    .unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
    std::mem::forget(program);
}

fn tell_and_end(faults: i64) -> ! {
    let stats = theap::stats();
    let line = format!(
        "faults {} grown {} prepared {}\n",
        faults,
        stats.totals.stage_grow,
        stats.totals.stage_prepared > 0
    );
    // SAFETY: the call writes the line. The exit runs no handlers, whose system calls the filter
    // would forbid.
    unsafe {
        libc::write(1, line.as_ptr().cast(), line.len());
        libc::_exit(0)
    }
}

fn sealing_ends_it() {
    begin();
    until("it has its name", || warmers().len() == 1);
    theap::seal();
    assert_eq!(warmers().len(), 0);
    assert!(theap::warm_up(1).is_err(), "it would need system calls");
    theap::unseal();
    until("it starts again", || warmers().len() == 1);
    use_up(100 * MIB);
    until("it goes on", stock_is_there);
    assert_eq!(theap::stats().warmer_starts, 2);
    assert_eq!(theap::stats().refusals, 1);
}

/// Forks up to two hundred times while another thread makes the heap grow and the warmer works. The
/// heap of each child grows and starts a warmer.
fn forks() {
    begin();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                let blocks: Vec<_> = (0..512).map(|_| raw::alloc(SLOT)).collect();
                for block in blocks {
                    // SAFETY: the block is live, and this thread allocated it.
                    unsafe {
                        block.write(1);
                        raw::free(block);
                    }
                }
                thread::sleep(Duration::from_micros(50));
                rounds += 1;
                if rounds % 64 == 0 {
                    theap::purge();
                }
            }
        });
        let (start, mut forks) = (Instant::now(), 0);
        // On a busy machine a fork may wait long, because the warmer runs only when no other thread
        // wants the CPU.
        while forks < 200 && start.elapsed() < Duration::from_secs(8) {
            forks += 1;
            // SAFETY: the child uses theap, whose fork handlers make it usable there, and std only
            // where that takes no lock.
            match unsafe { libc::fork() } {
                -1 => panic!("fork"),
                0 => {
                    let starts = theap::stats().warmer_starts;
                    while theap::stats().warmer_starts == starts {
                        use_up(MIB);
                    }
                    // SAFETY: the call ends the child and does not run the parent's exit handlers.
                    unsafe { libc::_exit(0) }
                }
                pid => {
                    let mut status = 0;
                    // SAFETY: `status` is live and writable.
                    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
                    assert_eq!(status, 0, "the child died: {status:#x}");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        println!("{forks} forks in {:?}", start.elapsed());
    });
    assert_eq!(theap::stats().warmer_starts, 1);
}

/// Memory that a burst leaves free goes back to the system after the decay, except for the stock.
fn shrinks() {
    begin();
    let blocks: Vec<_> = (0..200).map(|_| raw::alloc(MIB)).collect();
    for block in blocks {
        // SAFETY: the block is live, and has this size.
        unsafe {
            block.write_bytes(1, MIB);
            raw::free(block);
        }
    }
    until("the stock shrinks", || {
        let stats = theap::stats();
        let stock = 64 * MIB as u64;
        stats.given_back > 0 && stats.stock_target == stock && stats.stock == stock
    });
    // Free slots of SuperSlabs that are in use go back as well, when their time is over.
    thread::sleep(Duration::from_millis(700));
    let back = theap::stats().given_back;
    thread::sleep(Duration::from_millis(700));
    assert_eq!(theap::stats().given_back, back, "no more goes back");
}

/// The bytes on hugepages of the mappings that are part of the 8 MiB from this address on.
fn huge_bytes(start: usize) -> usize {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut is_part, mut bytes) = (false, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if let Some((from, to)) = first.split_once('-') {
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            is_part = number(from) < start + 8 * MIB && number(to) > start;
        } else if is_part && first == "AnonHugePages:" {
            bytes += second.parse::<usize>().unwrap() << 10;
        }
    }
    bytes
}

/// The first SuperSlabs of `auto` are on small pages, until they have been filled up for a while.
fn small_pages_are_collapsed() {
    let first = raw::alloc(SLOT) as usize & !(2 * MIB - 1);
    use_up(7 * MIB + MIB / 2);
    let stats = theap::stats();
    let before = (stats.mapped_small, stats.collapsed, huge_bytes(first));
    assert_eq!(before, (8 * MIB as u64, 0, 0));
    until("the first SuperSlabs are collapsed", || {
        theap::stats().collapsed >= 6 * MIB as u64
    });
    let (stats, huge) = (theap::stats(), huge_bytes(first));
    assert_eq!(stats.mapped_small + stats.collapsed, 8 * MIB as u64);
    assert_eq!(stats.mapped_thp, stats.collapsed);
    assert_eq!(huge as u64, stats.collapsed, "the kernel has them");
    println!("collapsed {}", stats.collapsed > 0);
}

fn without_a_thread() {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the calls have no precondition. The process changes its user because the limit counts
    // only for users without privileges.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_NPROC, &none), 0);
        assert_eq!(libc::setresuid(65534, 65534, 65534), 0);
    }
    use_up(20 * MIB);
    println!(
        "warmers {} prepared {}",
        warmers().len(),
        theap::stats().prepared
    );
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test warmer"]
fn scenario() {
    match child::role().as_deref() {
        Some("thread") => thread_is_as_told(),
        Some("growth") => growth_is_free(),
        Some("seal") => sealing_ends_it(),
        Some("forks") => forks(),
        Some("shrink") => shrinks(),
        Some("collapse") => small_pages_are_collapsed(),
        Some("refused") => without_a_thread(),
        role => panic!("no such scenario: {role:?}"),
    }
}

/// Runs a scenario with the warmer and these variables. Returns what it wrote to standard output
/// and to standard error.
fn run(scenario: &str, variables: &[(&str, &str)]) -> (String, String) {
    let variables = [&[("THEAP_PREFAULT", "ahead")], variables].concat();
    let output = child::run(scenario, &variables);
    let (out, err) = (child::text(&output.stdout), child::text(&output.stderr));
    assert!(
        output.status.success(),
        "{scenario} {variables:?}: {}\n{out}{err}",
        output.status
    );
    (out, err)
}

const MODES: [&str; 3] = ["small", "thp", "auto"];

#[test]
fn it_is_an_idle_thread_on_the_named_cpus() {
    let (out, err) = run("thread", &[("THEAP_WARMER_CPUS", "0")]);
    assert!(out.contains("policy 5 cpus 0 blocked fffffff"), "{out}");
    assert_eq!(err, "");
    let (out, err) = run("thread", &[("THEAP_WARMER_CPUS", "1022")]);
    assert!(out.contains("policy 5 cpus 0"), "{out}");
    assert_eq!(
        err.matches("theap: the warmer may run on no CPU").count(),
        1,
        "{err}"
    );
}

#[test]
fn growth_out_of_the_stock_has_no_fault_and_no_system_call() {
    for pages in MODES {
        let (out, _) = run("growth", &[("THEAP_PAGES", pages)]);
        assert!(out.contains("faults 0 grown"), "{pages}: {out}");
        assert!(out.contains("prepared true"), "{pages}: {out}");
    }
}

#[test]
fn a_sealed_heap_has_no_warmer() {
    run("seal", &[]);
}

#[test]
fn forks_do_not_meet_a_step() {
    for pages in ["small", "thp"] {
        run("forks", &[("THEAP_PAGES", pages), ("THEAP_AHEAD", "8M")]);
    }
}

#[test]
fn forks_on_hugetlb_pages() {
    if let Some(pool) = hugepages::Pool::take()
        && pool.set(100)
    {
        run(
            "forks",
            &[("THEAP_PAGES", "hugetlb"), ("THEAP_AHEAD", "8M")],
        );
    }
}

#[test]
fn what_is_not_needed_for_long_goes_back() {
    for pages in ["small", "thp"] {
        run(
            "shrink",
            &[
                ("THEAP_PAGES", pages),
                ("THEAP_DECAY", "300"),
                ("THEAP_RETAIN", "0"),
            ],
        );
    }
}

#[test]
fn small_pages_that_filled_up_become_huge() {
    let (out, _) = run(
        "collapse",
        &[
            ("THEAP_PAGES", "auto"),
            ("THEAP_DECAY", "300"),
            ("THEAP_PREFAULT", "off"),
            ("THEAP_BACKGROUND", "1"),
        ],
    );
    assert!(out.contains("collapsed true"), "{out}");
}

#[test]
fn where_no_thread_is_to_be_had_growth_goes_on() {
    let (out, err) = run("refused", &[("THEAP_PAGES", "small")]);
    assert!(out.contains("warmers 0 prepared 0"), "{out}");
    assert_eq!(
        err.matches("theap: no thread for the warmer").count(),
        1,
        "{err}"
    );
}
