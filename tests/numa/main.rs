//! Several NUMA nodes of a real kernel. The tests ask the kernel, page by page, where memory lies,
//! and compare that with theap's own account. Each case is a process of its own, because a process
//! reads options and nodes once.
//!
//! `tests/numa-vm.sh` boots a machine for these tests: two nodes with memory and one without, CPU
//! numbers with gaps, a CPU to unplug. On another machine a test that finds no second node, or that
//! would change the machine, says that it is skipped.
#![allow(unsafe_code)] // Calls the allocator directly, and the kernel.

mod cases;
#[path = "../child/mod.rs"]
mod child;
mod kernel;

use kernel::{CpuSet, Pool, Replug, cpus, nodes, plug, pluggable, without_memory};
use std::os::unix::process::CommandExt;
use std::{env, fs, io};

/// Whether these tests have a machine of their own, on which they may not skip anything.
fn own_machine() -> bool {
    env::var_os("NUMA_VM").is_some()
}

/// Whether fewer than two nodes have memory and CPUs; if so, says that the test is skipped.
fn one_node() -> bool {
    let homes = nodes().into_iter().filter(|&node| !cpus(node).is_empty());
    let one = homes.count() < 2;
    assert!(!(one && own_machine()), "one node");
    if one {
        eprintln!("skipped: this machine has no two NUMA nodes with memory and CPUs");
    }
    one
}

/// Whether the test may not change the machine (hugetlb pools, CPUs, control groups); if so, says
/// that the test is skipped.
fn not_our_own() -> bool {
    if !own_machine() {
        eprintln!("skipped: changes the machine; tests/numa-vm.sh boots one for it");
    }
    !own_machine()
}

/// Runs a case in a process of its own, which must succeed.
fn case(name: &str, variables: &[(&str, &str)]) {
    prepared_case(name, variables, || Ok(()));
}

/// Runs a case like `case`; `prepare` runs in the new process before the program starts.
fn prepared_case(
    name: &str,
    variables: &[(&str, &str)],
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    let mut command = child::command(name, variables);
    // SAFETY: the callers' closures only make system calls, so they are async-signal-safe.
    let output = unsafe { command.pre_exec(prepare) }.output().unwrap();
    let said = child::text(&output.stdout) + &child::text(&output.stderr);
    assert!(output.status.success(), "{name} {variables:?}\n{said}");
}

/// Runs a case with a hugetlb pool on every node.
fn hugetlb_case(name: &str, variables: &[(&str, &str)]) {
    let _pools: Vec<_> = nodes()
        .into_iter()
        .map(|node| Pool::set(node, 40))
        .collect();
    case(name, &[variables, &[("THEAP_PAGES", "hugetlb")]].concat());
}

#[test]
fn memory_lies_on_the_node_of_its_thread() {
    if !one_node() {
        for pages in ["small", "thp"] {
            case("local", &[("THEAP_NUMA", "local"), ("THEAP_PAGES", pages)]);
        }
    }
}

#[test]
fn hugetlb_pages_lie_on_the_node_of_their_thread() {
    if !not_our_own() {
        hugetlb_case("local", &[("THEAP_NUMA", "local")]);
    }
}

#[test]
fn interleave_spreads_superslabs() {
    if !one_node() {
        for pages in ["small", "thp"] {
            case(
                "interleave",
                &[("THEAP_NUMA", "interleave"), ("THEAP_PAGES", pages)],
            );
        }
    }
}

#[test]
fn interleave_spreads_hugetlb_pages() {
    if !not_our_own() {
        hugetlb_case("interleave", &[("THEAP_NUMA", "interleave")]);
    }
}

#[test]
fn off_leaves_placement_to_the_kernel() {
    if !one_node() {
        case("off", &[("THEAP_NUMA", "off"), ("THEAP_PAGES", "small")]);
    }
}

#[test]
fn a_thread_that_moves_is_followed_and_blocks_go_home() {
    if !one_node() {
        for pages in ["small", "thp"] {
            case("moves", &[("THEAP_PAGES", pages)]);
        }
    }
}

#[test]
fn a_thread_that_moves_is_followed_on_hugetlb_pages() {
    if !not_our_own() {
        hugetlb_case("moves", &[]);
    }
}

#[test]
fn strayed_memory_is_told() {
    if !not_our_own() {
        let _pools = (Pool::set(nodes()[0], 40), Pool::set(nodes()[1], 0));
        case("dry", &[("THEAP_PAGES", "hugetlb")]);
    }
}

#[test]
fn cpus_without_memory_take_it_from_the_nearest_node() {
    if one_node() {
        return;
    }
    if without_memory().is_empty() {
        assert!(!own_machine(), "a node without memory is missing");
        eprintln!("skipped: no node has CPUs and no memory");
        return;
    }
    case("homeless", &[]);
}

#[test]
fn a_node_that_the_cpuset_forbids_is_none() {
    if not_our_own() {
        return;
    }
    for node in nodes() {
        let set = CpuSet::new(node);
        let node = node.to_string();
        for numa in ["local", "interleave"] {
            let procs = set.0.join("cgroup.procs");
            let variables = [("ONLY_NODE", node.as_str()), ("THEAP_NUMA", numa)];
            prepared_case("only", &variables, move || fs::write(&procs, "0"));
        }
    }
}

#[test]
fn a_node_that_the_policy_forbids_is_none() {
    if one_node() {
        return;
    }
    for node in nodes() {
        let mask = 1u64 << node;
        let bind = move || {
            // SAFETY: the mask has one word; the kernel reads one bit less than it is told.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_set_mempolicy,
                    libc::MPOL_BIND,
                    &raw const mask,
                    65,
                )
            };
            if done == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        };
        prepared_case("only", &[("ONLY_NODE", &node.to_string())], bind);
    }
}

#[test]
fn cpus_come_and_go() {
    if not_our_own() {
        return;
    }
    case("replugged", &[("THEAP_PAGES", "small")]);
    let (node, cpu) = pluggable();
    let _replug = Replug(cpu);
    plug(cpu, false);
    case(
        "late",
        &[
            ("LATE_CPU", &cpu.to_string()),
            ("LATE_NODE", &node.to_string()),
        ],
    );
}

/// The work of the processes that the tests start. It is no test of its own.
#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test numa"]
fn scenario() {
    match child::role().as_deref() {
        Some("local") => cases::local(),
        Some("interleave") => cases::interleave(),
        Some("off") => cases::off(),
        Some("moves") => cases::moves(),
        Some("dry") => cases::dry_pool_of_a_node(),
        Some("homeless") => cases::homeless(),
        Some("only") => cases::only_one_node(),
        Some("replugged") => cases::replugged(),
        Some("late") => cases::late(),
        other => assert!(other.is_none(), "{other:?}"),
    }
}
