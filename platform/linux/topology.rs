//! Which NUMA nodes there are and which CPU belongs to which, as the kernel lists them under
//! `/sys/devices/system`.
//!
//! Only nodes with memory *and* CPUs count: a node without CPUs is nobody's home, and its memory is
//! still used, since bindings are a preference. CPUs of a node without memory belong to node 0.

use super::file;
use crate::{Cpu, Line, NodeId};

const MAX_NODES: usize = 64;
const MAX_CPUS: usize = 4096;

/// Nodes under dense indices, and the index of each CPU's node.
#[derive(Clone)]
pub struct Topology {
    /// How many of `kernel` are in use, at least 1.
    nodes: usize,
    /// The kernel's number of each node.
    kernel: [NodeId; MAX_NODES],
    /// Highest possible CPU number plus one, at least 1, at most `MAX_CPUS`.
    cpus: usize,
    /// The dense index of each CPU's node.
    node_of_cpu: [u8; MAX_CPUS],
}

impl Topology {
    /// One node, numbered 0, and as many CPUs as can be told apart.
    pub const fn single() -> Self {
        Topology {
            nodes: 1,
            kernel: [NodeId(0); MAX_NODES],
            cpus: MAX_CPUS,
            node_of_cpu: [0; MAX_CPUS],
        }
    }

    /// From `(first CPU, last CPU, kernel's node number)`; indices follow the first mention of a node.
    /// Parts beyond 64 nodes or 4096 CPUs are ignored.
    pub fn from_parts(parts: &[(u32, u32, u8)]) -> Self {
        let mut topology = Topology::empty();
        for &(first, last, node) in parts {
            topology.add(first, last, NodeId(node));
        }
        topology.finish()
    }

    /// The number of nodes, at least 1.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// The dense index of a CPU's node; 0 if unknown.
    pub fn node_of_cpu(&self, cpu: Cpu) -> usize {
        self.node_of_cpu
            .get(cpu.0 as usize)
            .copied()
            .unwrap_or(0)
            .into()
    }

    /// The kernel's number of the node with a dense index below [`Topology::nodes`].
    pub fn kernel_node(&self, index: usize) -> NodeId {
        self.kernel[index]
    }

    /// The highest possible CPU number plus one, at most 4096.
    pub fn cpus(&self) -> usize {
        self.cpus
    }

    const fn empty() -> Self {
        Topology {
            nodes: 0,
            cpus: 0,
            ..Topology::single()
        }
    }

    fn add(&mut self, first: u32, last: u32, node: NodeId) {
        let known = self.kernel[..self.nodes].iter().position(|&k| k == node);
        let index = known.unwrap_or(self.nodes);
        let range = first as usize..=(last as usize).min(MAX_CPUS - 1);
        if index == MAX_NODES || range.is_empty() {
            return;
        }
        self.kernel[index] = node;
        self.nodes = self.nodes.max(index + 1);
        self.cpus = self.cpus.max(range.end() + 1);
        self.node_of_cpu[range].fill(index as u8);
    }

    fn finish(self) -> Self {
        if self.nodes == 0 {
            Topology::single()
        } else {
            self
        }
    }
}

/// See [`crate::Os::topology`].
pub fn read() -> Topology {
    let mut topology = Topology::empty();
    let add_node = |first: u32, last: u32| {
        for node in first..=last.min(u8::MAX.into()) {
            let path = Line::<64>::sized()
                .str("/sys/devices/system/node/node")
                .dec(node.into())
                .str("/cpulist");
            read_list(path.as_bytes(), |first, last| {
                topology.add(first, last, NodeId(node as u8))
            });
        }
    };
    let mut add_node = add_node;
    if !read_list(b"/sys/devices/system/node/has_memory", &mut add_node) {
        read_list(b"/sys/devices/system/node/online", &mut add_node);
    }
    let mut topology = topology.finish();
    let mut possible = 0;
    read_list(b"/sys/devices/system/cpu/possible", |_, last| {
        possible = last as usize + 1
    });
    if possible != 0 {
        topology.cpus = possible.min(MAX_CPUS);
    }
    topology
}

/// Reads a file that holds a list like `0-3,8` and calls `each` with the ends of every range. Answers
/// whether the file could be read.
fn read_list(path: &[u8], mut each: impl FnMut(u32, u32)) -> bool {
    let mut buffer = [0; 4096];
    let Some(text) = file::read(path, &mut buffer) else {
        return false;
    };
    parse_list(text, &mut each);
    true
}

/// Calls `each` with the ends of every well-formed range of a list like `0-3,8`.
fn parse_list(text: &[u8], mut each: impl FnMut(u32, u32)) {
    for range in text.trim_ascii().split(|&byte| byte == b',') {
        let mut ends = range.splitn(2, |&byte| byte == b'-').map(number);
        if let Some(Some(first)) = ends.next()
            && let Some(last) = ends.next().unwrap_or(Some(first))
        {
            each(first, last);
        }
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    core::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn parsed(text: &[u8]) -> Vec<(u32, u32)> {
        let mut ranges = Vec::new();
        parse_list(text, |first, last| ranges.push((first, last)));
        ranges
    }

    #[test]
    fn lists_are_parsed() {
        assert_eq!(parsed(b"0\n"), [(0, 0)]);
        assert_eq!(parsed(b"0-3,8,10-11\n"), [(0, 3), (8, 8), (10, 11)]);
        assert_eq!(parsed(b"\n"), []);
        assert_eq!(parsed(b"x,1-,-2,3-4-5,99999999999,7"), [(7, 7)]);
    }

    #[test]
    fn a_missing_file_is_told() {
        assert!(!read_list(b"/sys/devices/system/node/none", |_, _| panic!(
            "no range"
        )));
    }
}
