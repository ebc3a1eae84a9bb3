//! Things that the machine takes away while a program runs: hugetlb pages that another process
//! maps, the memory of a control group, threads that cannot be started. Each scenario runs in a
//! process of its own, with theap as the global allocator.
#![allow(unsafe_code)] // Sets limits of the process, and maps hugetlb pages beside the heap's.

mod cgroup;
mod child;
mod hugepages;

use cgroup::Group;
use nix::sys::resource::{Resource, setrlimit};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{hint, io, ptr, thread};
use theap::Theap;

#[global_allocator]
static HEAP: Theap = Theap::new();

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Blocks of all kinds with about `bytes` in all, every byte of them written.
fn filled(bytes: usize) -> Vec<Box<[u8]>> {
    let sizes = [100, 3000, 40 * KIB, 300 * KIB, 3 * MIB];
    sizes
        .into_iter()
        .flat_map(|size| (0..bytes / sizes.len() / size).map(move |_| vec![0x5A; size].into()))
        .collect()
}

fn check(blocks: &[Box<[u8]>]) {
    let whole = |block: &[u8]| block.iter().step_by(64).all(|&byte| byte == 0x5A);
    assert!(blocks.iter().all(|block| whole(block)));
}

/// Prints how many MiB are mapped on hugetlb pages, and waits for a line of input.
fn report() {
    println!("hugetlb {}", theap::stats().mapped_hugetlb as usize / MIB);
    io::stdin().lock().read_line(&mut String::new()).unwrap();
}

/// Runs two threads that never rest, while this one allocates three times: the parent drains the
/// pool after the first time and fills it after the second.
fn drained() {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    check(&filled(8 * MIB));
                }
            });
        }
        // The pool is full at first, then it is empty, then it has its pages back.
        let held: Vec<_> = (0..3)
            .map(|_| {
                let blocks = filled(40 * MIB);
                report();
                blocks
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        held.iter().for_each(|blocks| check(blocks));
    });
    theap::collect();
    theap::purge();
    report();
}

/// Frees and allocates a working set of 40 MiB again and again.
fn turns_over() {
    for _ in 0..20 {
        check(&filled(40 * MIB));
    }
}

/// Allocates until the answer is null.
fn uses_up() {
    let mut blocks = Vec::new();
    while let Some(block) = ptr::NonNull::new(theap::raw::alloc(MIB)) {
        // SAFETY: the block has this size.
        unsafe { block.as_ptr().write_bytes(1, MIB) };
        blocks.push(block);
    }
    println!("null after {} MiB", blocks.len());
    // SAFETY: this function's own blocks are live.
    blocks
        .iter()
        .for_each(|b| unsafe { theap::raw::free(b.as_ptr()) });
    check(&filled(20 * MIB));
}

/// Warms up more than the group may use, which must fail, and then less, which must succeed.
fn warms_too_much() {
    assert!(theap::warm_up(200 * MIB).is_err());
    assert!(theap::warm_up(10 * MIB).is_ok());
}

/// Tries to start threads beyond the limit: they must leave nothing behind.
fn no_threads() {
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).unwrap();
    // SAFETY: the call has no precondition. It is here because the limit counts only for users
    // without privileges.
    assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0);
    let try_one = || {
        let parcel = hint::black_box(vec![1; 5000]);
        let started = thread::Builder::new().spawn(move || drop(parcel));
        assert!(started.is_err(), "a thread beyond the limit");
    };
    (0..100).for_each(|_| try_one());
    let before = theap::stats();
    (0..5000).for_each(|_| try_one());
    let after = theap::stats();
    assert_eq!((after.heaps, after.active), (before.heaps, before.active));
    assert_eq!(after.mapped(), before.mapped());
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test faults"]
fn scenario() {
    let Some(role) = child::role() else { return };
    match role.as_str() {
        "drained" => drained(),
        "turns-over" => turns_over(),
        "uses-up" => uses_up(),
        "warms-too-much" => warms_too_much(),
        "no-threads" => no_threads(),
        _ => unreachable!("{role}"),
    }
}

/// Hugetlb pages that this process has mapped: their address and their bytes.
struct Taken(*mut libc::c_void, usize);

impl Taken {
    fn all(pool: &hugepages::Pool) -> Self {
        let bytes = pool.free() * 2 * MIB;
        let flags =
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_POPULATE;
        // SAFETY: the kernel chooses the place, so the call touches no existing mapping.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Self(at, bytes)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: `all` made the mapping, and nobody else knows of it.
        unsafe { libc::munmap(self.0, self.1) };
    }
}

#[test]
fn a_pool_that_somebody_else_drains_in_mid_run() {
    const PAGES: usize = 120;
    let Some(pool) = hugepages::Pool::take() else {
        return;
    };
    if !pool.set(PAGES) {
        return;
    }
    let mut child = child::command("drained", &[("THEAP_PAGES", "hugetlb")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut go_on = child.stdin.take().unwrap();
    let mut mapped = || -> usize {
        let line = lines.by_ref().map(Result::unwrap).find_map(|line| {
            line.split_once("hugetlb ")
                .map(|(_, mib)| mib.trim().to_owned())
        });
        line.expect("a report").parse().unwrap()
    };
    let first = mapped();
    assert!(first >= 40, "{first} MiB before");
    let taken = Taken::all(&pool);
    writeln!(go_on).unwrap();
    let meanwhile = mapped();
    drop(taken);
    writeln!(go_on).unwrap();
    let again = mapped();
    writeln!(go_on).unwrap();
    let end = mapped();
    writeln!(go_on).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = child::text(&output.stderr);
    println!(
        "hugetlb MiB: {first} before, {meanwhile} while it is dry, {again} after, {end} at the end\n{said}"
    );
    assert!(output.status.success(), "{}", output.status);
    assert!(
        said.starts_with("theap: fewer than ") && said.lines().count() == 1,
        "{said}"
    );
    assert!(meanwhile < first + 40, "the pool was dry");
    assert!(again > meanwhile, "pages that came back are used");
    assert!(end <= 8, "what the test itself needs");
    assert!(pool.returns_to(PAGES));
}

#[test]
fn a_memory_group_counts_what_is_freed_as_free() {
    let Some(group) = Group::of_memory(128) else {
        return;
    };
    let ways = [
        ("small", "off"),
        ("thp", "off"),
        ("thp", "grow"),
        ("small", "ahead"),
        ("thp", "ahead"),
    ];
    for (pages, prefault) in ways {
        let options = [
            ("THEAP_PAGES", pages),
            ("THEAP_PREFAULT", prefault),
            ("THEAP_AHEAD", "16M"),
        ];
        let output = group.run(child::command("turns-over", &options));
        assert!(
            output.status.success(),
            "{pages} {prefault}: {}",
            output.status
        );
    }
    for pages in ["small", "thp"] {
        let output = group.run(child::command("warms-too-much", &[("THEAP_PAGES", pages)]));
        assert!(output.status.success(), "{pages}: {}", output.status);
    }
    assert_ne!(group.has_killed(), Some(true));
}

/// The documentation says that the kernel kills a process at its group's limit, whether a thread
/// touches the page or populates it, and that a heap with fewer addresses than the limit answers
/// null instead.
#[test]
fn a_memory_group_kills_unless_the_heap_ends_before() {
    let Some(group) = Group::of_memory(104) else {
        return;
    };
    let bounded = group.run(child::command("uses-up", &[("THEAP_ADDRESS_SPACE", "64M")]));
    assert!(bounded.status.success(), "{}", bounded.status);
    assert!(child::text(&bounded.stdout).contains("null after "));
    assert_eq!(child::text(&bounded.stderr).lines().count(), 1);
    assert_ne!(group.has_killed(), Some(true));
    for prefault in ["off", "grow"] {
        let output = group.run(child::command("uses-up", &[("THEAP_PREFAULT", prefault)]));
        assert_eq!(
            output.status.signal(),
            Some(libc::SIGKILL),
            "{}",
            output.status
        );
        assert_eq!(child::text(&output.stderr), "");
    }
}

#[test]
fn threads_that_do_not_start_leave_nothing_behind() {
    let output = child::run("no-threads", &[]);
    assert!(output.status.success(), "{}", child::text(&output.stderr));
}
