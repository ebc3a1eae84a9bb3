//! The NUMA nodes: their memory and CPUs, their distances, and what the kernel moves between them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::host::{Host, list, parse_list, size};
use super::{Answer, Check, Section};

pub const SECTION: Section = Section {
    title: "NUMA",
    checks: &[
        Check {
            id: "numa.nodes",
            subject: "NUMA nodes",
            brings: "memory near every thread",
            examine: present,
        },
        Check {
            id: "numa.distances",
            subject: "node distances",
            brings: "",
            examine: distances,
        },
        Check {
            id: "numa.allowed",
            subject: "nodes allowed",
            brings: "every thread's heap on its own node",
            examine: allowed,
        },
        Check {
            id: "numa.balancing",
            subject: "NUMA balancing",
            brings: "no hint faults, no migrations",
            examine: balancing,
        },
        Check {
            id: "numa.zone_reclaim",
            subject: "zone reclaim",
            brings: "a full node borrows instead of reclaiming at a first touch",
            examine: zone_reclaim,
        },
    ],
};

const DIRECTORY: &str = "/sys/devices/system/node";
const ONE: &str = "one node";

/// A node.
pub struct Node {
    /// The number that the kernel gives the node.
    pub number: u32,
    /// Bytes of memory that are free.
    pub free: u64,
    /// Bytes of memory.
    total: u64,
    cpus: BTreeSet<u32>,
}

/// All nodes; none on a kernel without NUMA.
fn nodes(host: &Host) -> Result<Vec<Node>> {
    let online = host.list(&format!("{DIRECTORY}/online"))?;
    let numbers = online.unwrap_or_default().into_iter();
    numbers
        .map(|number| {
            let meminfo = format!("{DIRECTORY}/node{number}/meminfo");
            let memory = |key: &str| {
                let bytes = host.memory_field(&meminfo, key)?;
                bytes.with_context(|| format!("{meminfo} has no {key}"))
            };
            let cpus = host.list(&format!("{DIRECTORY}/node{number}/cpulist"))?;
            Ok(Node {
                number,
                free: memory("MemFree")?,
                total: memory("MemTotal")?,
                cpus: cpus.unwrap_or_default(),
            })
        })
        .collect()
}

/// The nodes that can have a heap: those with memory and CPUs.
pub fn usable(host: &Host) -> Result<Vec<Node>> {
    let mut nodes = nodes(host)?;
    nodes.retain(|node| node.total > 0 && !node.cpus.is_empty());
    Ok(nodes)
}

fn present(host: &Host) -> Result<Answer> {
    let nodes = nodes(host)?;
    if nodes.is_empty() {
        return Ok(Answer::good("one node (a kernel without NUMA)"));
    }
    let describe = |node: &Node| {
        let memory = match node.total {
            0 => "no memory".to_owned(),
            bytes => size(bytes),
        };
        let cpus = match node.cpus.is_empty() {
            true => "no CPUs".to_owned(),
            false => format!("CPUs {}", list(&node.cpus)),
        };
        format!("node {}: {memory}, {cpus}", node.number)
    };
    let found = nodes.iter().map(describe).collect::<Vec<_>>().join("; ");
    let mut bare = nodes
        .iter()
        .filter(|node| node.total == 0 && !node.cpus.is_empty());
    Ok(match bare.next() {
        None => Answer::good(found),
        Some(node) => Answer::note(
            found,
            format!(
                "pin to CPUs of other nodes than {}, or fit it with memory",
                node.number
            ),
        ),
    })
}

fn distances(host: &Host) -> Result<Answer> {
    let nodes = nodes(host)?;
    if nodes.len() < 2 {
        return Ok(Answer::good(ONE));
    }
    let row = |node: &Node| {
        let path = format!("{DIRECTORY}/node{}/distance", node.number);
        let text = host.text(&path)?;
        let row: Vec<&str> = text.split_whitespace().collect();
        let whole = row.len() == nodes.len() && row.iter().all(|word| word.parse::<u8>().is_ok());
        ensure!(
            whole,
            "{path} has {text:?} for distances of {} nodes",
            nodes.len()
        );
        Ok(format!("from node {}: {}", node.number, row.join(" ")))
    };
    let rows: Result<Vec<String>> = nodes.iter().map(row).collect();
    Ok(Answer::good(rows?.join("; ")))
}

fn allowed(host: &Host) -> Result<Answer> {
    let usable = usable(host)?;
    if usable.len() < 2 {
        return Ok(Answer::good(ONE));
    }
    let path = "/proc/self/status";
    let text = host.field(path, "Mems_allowed_list")?;
    let text = text.with_context(|| format!("{path} has no Mems_allowed_list"))?;
    let allowed = parse_list(&text, path)?;
    let all = usable
        .iter()
        .map(|node| node.number)
        .collect::<BTreeSet<_>>();
    let found = format!("of nodes {text}");
    Ok(if all.is_subset(&allowed) {
        Answer::good(found)
    } else {
        let fix = format!(
            "put {} into cpuset.mems of the process's control group",
            list(&all)
        );
        Answer::note(found, fix)
    })
}

/// The answer about a switch that should be 0, and that matters only where there are several nodes.
fn switch(host: &Host, path: &str, name: &str) -> Result<Answer> {
    if nodes(host)?.len() < 2 {
        return Ok(Answer::good(ONE));
    }
    Ok(match host.optional(path)?.as_deref() {
        None => Answer::good("not supported by this kernel"),
        Some("0") => Answer::good("off"),
        Some(_) => Answer::note(
            format!("on ({})", host.number(path)?),
            format!("sysctl -w {name}=0"),
        ),
    })
}

fn balancing(host: &Host) -> Result<Answer> {
    switch(
        host,
        "/proc/sys/kernel/numa_balancing",
        "kernel.numa_balancing",
    )
}

fn zone_reclaim(host: &Host) -> Result<Answer> {
    switch(
        host,
        "/proc/sys/vm/zone_reclaim_mode",
        "vm.zone_reclaim_mode",
    )
}
