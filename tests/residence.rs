//! Memory that stays where it is: pages of 1 GiB, and locked memory. Each scenario runs in a
//! process of its own.
#![allow(unsafe_code)] // Calls the allocator directly, sets limits and forks.

mod child;
mod hugepages;

use theap::raw;

const GIB: u64 = 1 << 30;

/// Allocates a block, fills it, and answers its first address.
fn filled(bytes: usize) -> *mut u8 {
    let block = raw::alloc(bytes);
    assert!(!block.is_null());
    // SAFETY: the block is new and has that size.
    unsafe { block.write_bytes(0xA5, bytes) };
    block
}

/// A figure of /proc/self/status, in KiB.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Allocates small blocks, a run of less than a page, and a run that needs `more` pages beside
/// that.
fn gigantic(more: usize) {
    let small: Vec<_> = (0..1000).map(|_| filled(1000)).collect();
    assert_eq!(theap::stats().mapped_hugetlb_1g, GIB);
    let large = filled(600 << 20);
    let huge = filled((more << 30) - (424 << 20));
    println!("mapped {}", theap::stats().mapped_hugetlb_1g / GIB);
    for block in small.into_iter().chain([large, huge]) {
        // SAFETY: the blocks are live.
        unsafe { raw::free(block) };
    }
    theap::purge();
    let stats = theap::stats();
    println!("after purge {}", stats.mapped_hugetlb_1g / GIB);
    println!(
        "other {}",
        (stats.mapped_hugetlb + stats.mapped_thp + stats.mapped_small) >> 20
    );
}

/// Forks a child that writes all over a heap whose page the pool may not be able to copy.
fn gigantic_fork() {
    let block = filled(100 << 20);
    // SAFETY: the child only writes to its copy of the block, and ends.
    unsafe {
        let child = libc::fork();
        block.write_bytes(if child == 0 { 1 } else { 2 }, 100 << 20);
        if child == 0 {
            libc::_exit(i32::from(*block.add(5_000_000) != 1));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        assert_eq!(status, 0, "the child ended well");
        assert_eq!(*block.add(5_000_000), 2);
    }
    println!("mapped {}", theap::stats().mapped_hugetlb_1g / GIB);
}

fn locked() {
    let block = filled(64 << 20);
    println!("locked {}", status("VmLck:") >> 10);
    // SAFETY: the block is live.
    unsafe { raw::free(block) };
    println!("given back {}", theap::purge() >> 20);
    filled(64 << 20);
    println!("locked again {}", status("VmLck:") >> 10);
}

/// Does the work of `locked` as a user who may lock 1 MiB.
fn limited() {
    let limit = libc::rlimit {
        rlim_cur: 1 << 20,
        rlim_max: 1 << 20,
    };
    // SAFETY: the calls change this process's limits and user; they only read `limit`.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit), 0);
        assert_eq!(libc::setgid(65534), 0);
        assert_eq!(libc::setuid(65534), 0);
    }
    filled(64 << 20);
    println!("locked {}", status("VmLck:") >> 10);
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test residence"]
fn scenario() {
    match child::role().as_deref() {
        Some("2 pages") => gigantic(1),
        Some("3 pages") => gigantic(2),
        Some("gigantic fork") => gigantic_fork(),
        Some("locked") => locked(),
        Some("limited") => limited(),
        role => panic!("no such scenario: {role:?}"),
    }
}

/// Runs a scenario and returns what it wrote to standard output and to standard error.
fn run(scenario: &str, variables: &[(&str, &str)]) -> (String, String) {
    let output = child::run(scenario, variables);
    let (out, err) = (child::text(&output.stdout), child::text(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    (out, err)
}

fn figure(out: &str, name: &str) -> u64 {
    let line = out.lines().find_map(|line| line.split_once(name));
    line.unwrap_or_else(|| panic!("no {name} in {out}"))
        .1
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn pages_of_1_gib() {
    let Some(pool) = hugepages::Pool::take_1g() else {
        return;
    };
    let pages = &[("THEAP_PAGES", "hugetlb-1g")];
    for (count, scenario) in [(2, "2 pages"), (3, "3 pages")] {
        if pool.set(count) {
            let (out, err) = run(scenario, pages);
            assert_eq!(figure(&out, "mapped "), count as u64);
            assert_eq!(
                figure(&out, "after purge "),
                count as u64,
                "never given back"
            );
            assert_eq!(figure(&out, "other "), 0);
            assert_eq!(err, "");
            assert_eq!(
                pool.free(),
                count,
                "the pool has them back after the process"
            );
        }
    }
    if pool.set(1) {
        let (out, err) = run("2 pages", pages);
        assert_eq!(figure(&out, "mapped "), 1, "what the pool has is used");
        assert!(
            err.contains(
                "theap: no hugetlb page of 1 GiB is free; theap uses pages of 2 MiB instead."
            ),
            "{err}"
        );
        assert_eq!(err.matches("1 GiB").count(), 1, "said once: {err}");
        let (out, err) = run("gigantic fork", pages);
        assert_eq!(figure(&out, "mapped "), 0, "the page moved before the fork");
        assert!(err.contains("theap: fork: 1 hugetlb pages"), "{err}");
    }
    if pool.set(2) {
        let (out, err) = run("gigantic fork", pages);
        assert_eq!(
            figure(&out, "mapped "),
            1,
            "the pool has a page for the copy"
        );
        assert_eq!(err, "");
    }
}

#[test]
fn memory_is_locked_where_allowed() {
    for pages in ["small", "thp"] {
        let options = [("THEAP_PAGES", pages), ("THEAP_LOCK", "1")];
        let (out, err) = run("locked", &options);
        if err.contains("cannot lock") {
            eprintln!("skipped: this user may not lock memory");
            return;
        }
        let locked = figure(&out, "locked ");
        assert!((64..256).contains(&locked), "{out}");
        assert!(
            figure(&out, "given back ") >= 60,
            "locked memory can be purged: {out}"
        );
        assert!(figure(&out, "locked again ") >= 64, "{out}");
        assert_eq!(err, "");
        let (out, _) = run("locked", &options[..1]);
        assert_eq!(figure(&out, "locked "), 0, "off by default");
    }
}

#[test]
fn a_limit_on_locking_is_said_once() {
    // SAFETY: the call has no precondition.
    if unsafe { libc::geteuid() } != 0 {
        return eprintln!("skipped: only root can become a user with a limit of its own");
    }
    let (out, err) = run("limited", &[("THEAP_PAGES", "small"), ("THEAP_LOCK", "1")]);
    assert!(figure(&out, "locked ") <= 1, "{out}");
    assert_eq!(err.matches("theap: cannot lock ").count(), 1, "{err}");
    assert!(
        err.contains("Raise RLIMIT_MEMLOCK: ulimit -l unlimited"),
        "{err}"
    );
}
