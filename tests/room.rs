//! Memory where there is little: what a heap keeps in a small control group, what it reserves, and
//! that its own limit comes before the group's. Each scenario is a process of its own.
#![allow(unsafe_code)] // Calls the allocator directly, and sets limits.

mod cgroup;
mod child;

use cgroup::Group;
use child::{passes, text};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use std::process::Output;
use theap::raw;

const MIB: usize = 1 << 20;
const PAGES: [&str; 3] = ["small", "thp", "auto"];
const HARD: (&str, &str) = ("THEAP_LIMIT", "64M");

/// Up to `most` blocks of 1 MiB, of which every byte is written; fewer where there are no more.
fn fill(most: usize) -> Vec<*mut u8> {
    let block = || Some(raw::alloc(MIB)).filter(|block| !block.is_null());
    let blocks: Vec<_> = std::iter::from_fn(block).take(most).collect();
    for &block in &blocks {
        // SAFETY: a new block of this size.
        unsafe { block.write_bytes(1, MIB) };
    }
    blocks
}

fn free(blocks: &[*mut u8]) {
    for &block in blocks {
        // SAFETY: live, and not used any more.
        unsafe { raw::free(block) };
    }
}

/// The figures of memory that is freed: the option `retain` bounds what stays.
fn keeps(most: usize) {
    free(&fill(100));
    theap::collect();
    let empty = theap::stats().empty as usize;
    assert!(empty <= most, "{empty} bytes stay");
}

/// Bytes that are there at the start, by the option `reserve`.
fn reserved(limited: bool) {
    if limited {
        let most = (child::memory("VmSize") + 100 * MIB) as u64;
        setrlimit(Resource::RLIMIT_AS, most, RLIM_INFINITY).unwrap();
    }
    let before = child::memory("VmRSS");
    free(&[raw::alloc(100)]);
    println!("resident {}", (child::memory("VmRSS") - before) / MIB);
    let left = raw::alloc(3 * MIB);
    assert!(!left.is_null(), "memory is left");
    free(&[left]);
}

/// Uses up all that the heap gives, and touches every page of it.
fn uses_up() {
    let blocks = fill(usize::MAX);
    println!("null after {}", blocks.len());
    free(&blocks);
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test room"]
fn scenario() {
    match child::role().as_deref() {
        Some("keeps-16") => keeps(16 * MIB),
        Some("reserved") => reserved(false),
        Some("reserved-limited") => reserved(true),
        Some("uses-up") => uses_up(),
        _ => {}
    }
}

#[test]
fn the_heap_alone_never_meets_its_groups_limit() {
    let Some(group) = Group::of_memory(112) else {
        return;
    };
    for pages in PAGES {
        let output = group.run(child::command("uses-up", &[HARD, ("THEAP_PAGES", pages)]));
        assert!(output.status.success(), "{pages}: {}", output.status);
        assert!(text(&output.stdout).contains("null after "));
    }
    assert_ne!(group.has_killed(), Some(true));
}

#[test]
fn a_small_group_keeps_little() {
    let small = [("THEAP_PAGES", "small"), ("THEAP_LEARN", "0")];
    passes(
        "keeps-16",
        &[&small[..], &[("THEAP_LIMIT", "256M")]].concat(),
    );
    let Some(group) = Group::of_memory(256) else {
        return;
    };
    let output = group.run(child::command("keeps-16", &small));
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The MiB that a process has at its start, and what it says.
fn reserve(output: &Output) -> (usize, String) {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let rest = said.split_once("resident ").map(|(_, rest)| rest);
    let resident = rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let resident = resident.expect("a number");
    (resident, text(&output.stderr))
}

/// The bytes that a line says were reserved.
fn told(line: &str) -> usize {
    let rest = line
        .strip_prefix("theap: reserved ")
        .unwrap_or_else(|| panic!("{line}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn what_could_not_be_reserved_is_told() {
    let small = ("THEAP_PAGES", "small");
    let whole = child::run("reserved", &[small, ("THEAP_RESERVE", "64M")]);
    let (resident, said) = reserve(&whole);
    assert!(
        (64..=110).contains(&resident) && said.is_empty(),
        "{resident}: {said}"
    );

    let wanted = ("THEAP_RESERVE", "512M");
    let all = [
        (
            child::run("reserved-limited", &[small, wanted]),
            "ulimit -v",
        ),
        (
            child::run("reserved", &[small, wanted, ("THEAP_LIMIT", "96M")]),
            "THEAP_LIMIT",
        ),
        (
            child::run("reserved", &[small, wanted, ("THEAP_SOFT_LIMIT", "96M")]),
            "THEAP_LIMIT",
        ),
    ];
    for (output, why) in all {
        let (resident, said) = reserve(&output);
        assert!(said.lines().count() == 1 && said.contains(why), "{said}");
        assert!(
            said.contains(&format!(" of {} bytes: ", 512 * MIB)),
            "{said}"
        );
        let told = told(&said) / MIB;
        assert!((30..=100).contains(&told), "{said}");
        assert!(
            (told..=told + told / 4 + 30).contains(&resident),
            "{resident}: {said}"
        );
    }
}

#[test]
fn a_group_bounds_what_is_reserved() {
    let Some(group) = Group::of_memory(192) else {
        return;
    };
    let options = [("THEAP_PAGES", "small"), ("THEAP_RESERVE", "1G")];
    let (resident, said) = reserve(&group.run(child::command("reserved", &options)));
    assert!(said.contains("the control group leaves no more"), "{said}");
    let told = told(&said) / MIB;
    assert!(
        (80..=180).contains(&told) && resident >= told,
        "{resident}: {said}"
    );
    assert_ne!(group.has_killed(), Some(true));
}
