//! Several NUMA nodes of a real kernel: where memory lies is asked of the kernel, page by page, and
//! compared with what theap says. Each case is a process of its own, as options and nodes are read
//! once.
//!
//! `tests/numa-vm.sh` boots a machine for this: two nodes with memory and one without, CPU numbers
//! with gaps, a CPU to unplug. Elsewhere tests that find no second node, or that would change the
//! machine, say that they are skipped.
#![allow(unsafe_code)] // Calls the allocator directly, and the kernel.

mod cases;
#[path = "../child/mod.rs"]
mod child;
mod kernel;

use kernel::{CpuSet, Pool, Replug, cpus, nodes, plug, pluggable, without_memory};
use std::os::unix::process::CommandExt;
use std::{env, fs, io};

/// Whether these tests have a machine of their own, in which nothing may be skipped.
fn own_machine() -> bool {
    env::var_os("NUMA_VM").is_some()
}

/// Says that a test is skipped unless there are nodes to tell apart.
fn one_node() -> bool {
    let homes = nodes().into_iter().filter(|&node| !cpus(node).is_empty());
    let one = homes.count() < 2;
    assert!(!(one && own_machine()), "one node");
    if one {
        eprintln!("skipped: this machine has no two NUMA nodes with memory and CPUs");
    }
    one
}

/// Says that a test is skipped unless it may change the machine: hugetlb pools, CPUs, control
/// groups.
fn not_our_own() -> bool {
    if !own_machine() {
        eprintln!("skipped: changes the machine; tests/numa-vm.sh boots one for it");
    }
    !own_machine()
}

/// Runs a case in a process of its own, and its assertions with it.
fn case(name: &str, variables: &[(&str, &str)]) {
    prepared_case(name, variables, || Ok(()));
}

/// As `case`, with something done in the process before the program starts.
fn prepared_case(
    name: &str,
    variables: &[(&str, &str)],
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    let mut command = child::command(name, variables);
    // SAFETY: what is prepared are system calls alone.
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

/// Not a test: what the processes that the tests start do.
#[test]
#[ignore = "run by the other tests"]
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
