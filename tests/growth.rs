//! Growth on hugetlb pages: a thread gets a page at a time from the pool, which promises the others
//! of a step, and promises nothing beyond a purge or a fork. Each scenario runs in a process of its
//! own.
#![allow(unsafe_code)] // Calls the allocator and fork.

mod child;
mod hugepages;

use std::fs;

use theap::raw;

const MIB: usize = 1 << 20;
/// Hugetlb pages that the test's pool has.
const PAGES: usize = 100;

/// A number of the pool of 2 MiB pages.
fn pool(name: &str) -> usize {
    let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}_hugepages");
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// Allocates and writes blocks of 1 MiB. The most pages that the pool lost by one of them, and the
/// most that it had promised.
fn grow(blocks: usize) -> (usize, usize) {
    let (mut most, mut promised) = (0, 0);
    for _ in 0..blocks {
        let before = pool("free");
        let block = raw::alloc(MIB);
        assert!(!block.is_null());
        most = most.max(before - pool("free"));
        promised = promised.max(pool("resv"));
        // SAFETY: a new block of this size.
        unsafe { block.write_bytes(1, MIB) };
        assert!(before - pool("free") <= most, "it is there already");
    }
    (most, promised)
}

fn one_by_one() {
    let (most, promised) = grow(70);
    println!("{most} at once, {promised} promised");
    assert!(theap::stats().mapped_hugetlb >= (60 * MIB) as u64);
    grow(3);
    theap::purge();
    assert_eq!(pool("resv"), 0, "after a purge");
    grow(5);
    // SAFETY: the child makes calls of its own alone, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        grow(20);
        // SAFETY: the call ends the process.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: a child of this process, and a live place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!((status, pool("resv")), (0, 0), "after a fork");
    grow(20);
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test growth"]
fn scenario() {
    match child::role().as_deref() {
        Some("one by one") => one_by_one(),
        role => panic!("no such scenario: {role:?}"),
    }
}

#[test]
fn a_thread_takes_a_page_at_a_time_of_the_pool() {
    let Some(pool) = hugepages::Pool::take() else {
        return;
    };
    if pool.set(PAGES) {
        let output = child::run("one by one", &[("THEAP_PAGES", "hugetlb")]);
        let said = child::text(&output.stdout) + &child::text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("1 at once, 15 promised"), "{said}");
        assert!(pool.returns_to(PAGES), "all pages are back in the pool");
    }
}
