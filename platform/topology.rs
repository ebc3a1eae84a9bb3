//! The NUMA nodes on which the process can be at home, and the home of each CPU, as the kernel
//! lists them under `/sys/devices/system`.
//!
//! A node is a home if it has CPUs, and memory that this process may use (its cpuset and a
//! `MPOL_BIND` policy count). The CPUs of every other node are at home on the nearest home by the
//! kernel's table of distances. A node without CPUs is nobody's home; the process still uses its
//! memory, since bindings are a preference. Only where all CPUs are on nodes without usable memory,
//! the nodes with memory are the homes.
//!
//! The kernel lists the CPUs that are online now. A CPU that comes online later is unknown here:
//! when a thread is found on it, the allocator asks the kernel for its node, and
//! [`Topology::home_of`] tells that node's home.
//!
//! A topology takes more than 4 KiB, and so do the texts that it is read from. Both lie in a
//! static: whoever makes the first allocation of a process may have a stack of a few KiB.
#![allow(unsafe_code)] // Hands out a reference to what is never written again.

use core::cell::UnsafeCell;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Release};

use crate::node_set::{NODE_IDS, NodeSet, node_file};
use crate::system::{file, futex, numa};
use crate::{Cpu, NodeId};

/// The most nodes that can be homes.
pub const MAX_NODES: usize = 64;
const MAX_CPUS: usize = 4096;
/// Bytes of a file of the kernel's that are read.
const TEXT: usize = 3 << 10;
/// Stands for a home that is not known.
const UNKNOWN: u8 = u8::MAX;

/// Homes under dense indices, and the index of each CPU's home.
#[derive(Clone)]
pub struct Topology {
    /// Number of homes, at least 1.
    nodes: usize,
    /// The kernel's number of each home; the first `nodes` count.
    kernel: [NodeId; MAX_NODES],
    /// Highest possible CPU number plus one, at least 1, at most `MAX_CPUS`.
    cpus: usize,
    /// The dense index of each CPU's home.
    node_of_cpu: [u8; MAX_CPUS],
    /// The dense index of the home of each of the kernel's nodes.
    home_of: [u8; NODE_IDS],
}

impl Topology {
    /// One node, numbered 0, and as many CPUs as can be told apart.
    pub const fn single() -> Self {
        Topology {
            nodes: 1,
            kernel: [NodeId(0); MAX_NODES],
            cpus: MAX_CPUS,
            node_of_cpu: [0; MAX_CPUS],
            home_of: [0; NODE_IDS],
        }
    }

    /// A topology of parts `(first CPU, last CPU, kernel's node number)`. A node's index follows
    /// from its first mention, and CPUs that no part mentions are unknown. Parts beyond 64 nodes or
    /// 4096 CPUs do not count.
    pub fn from_parts(parts: &[(u32, u32, u8)]) -> Self {
        let mut topology = Topology::empty();
        for &(first, last, node) in parts {
            if (first as usize) < MAX_CPUS
                && let Some(home) = topology.add_home(NodeId(node))
            {
                topology.add_cpus(first, last, home);
            }
        }
        topology.finish();
        topology
    }

    /// The number of homes, at least 1.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// The dense index of a CPU's home; `None` if the CPU was not online when the topology was
    /// read.
    pub fn node_of_cpu(&self, cpu: Cpu) -> Option<usize> {
        let home = self.node_of_cpu.get(cpu.0 as usize).copied();
        home.filter(|&home| home != UNKNOWN).map(usize::from)
    }

    /// The dense index of the home of the CPUs of one of the kernel's nodes; 0 if the node is
    /// unknown.
    pub fn home_of(&self, node: NodeId) -> usize {
        match self.home_of[usize::from(node.0)] {
            UNKNOWN => 0,
            home => home.into(),
        }
    }

    /// The kernel's number of the home with this dense index.
    ///
    /// # Panics
    /// If the index is not below [`Topology::nodes`].
    pub fn kernel_node(&self, index: usize) -> NodeId {
        self.kernel[..self.nodes][index]
    }

    /// The highest possible CPU number plus one, at most 4096.
    pub fn cpus(&self) -> usize {
        self.cpus
    }

    const fn empty() -> Self {
        Topology {
            nodes: 0,
            kernel: [NodeId(0); MAX_NODES],
            cpus: 0,
            node_of_cpu: [UNKNOWN; MAX_CPUS],
            home_of: [UNKNOWN; NODE_IDS],
        }
    }

    /// Makes a node a home and answers its index; `None` if there are too many homes.
    fn add_home(&mut self, node: NodeId) -> Option<u8> {
        let home = &mut self.home_of[usize::from(node.0)];
        if *home == UNKNOWN {
            if self.nodes == MAX_NODES {
                return None;
            }
            *home = self.nodes as u8;
            self.kernel[self.nodes] = node;
            self.nodes += 1;
        }
        Some(*home)
    }

    fn add_cpus(&mut self, first: u32, last: u32, home: u8) {
        let range = first as usize..=(last as usize).min(MAX_CPUS - 1);
        if !range.is_empty() {
            self.cpus = self.cpus.max(range.end() + 1);
            self.node_of_cpu[range].fill(home);
        }
    }

    /// Makes a topology without nodes that of [`Topology::single`].
    fn finish(&mut self) {
        if self.nodes == 0 {
            self.settle_all(NodeId(0));
        }
    }

    /// Makes a node the home of all CPUs and nodes.
    fn settle_all(&mut self, node: NodeId) {
        self.nodes = 1;
        self.kernel[0] = node;
        self.cpus = MAX_CPUS;
        self.node_of_cpu.fill(0);
        self.home_of.fill(0);
    }
}

/// The host's topology, and room for the files that it is read from. Whoever moves `state` from
/// UNREAD to READING has the rest alone until it is READ; from then on nobody writes to it.
struct Host {
    state: AtomicU32,
    topology: UnsafeCell<Topology>,
    text: UnsafeCell<[u8; TEXT]>,
}

const UNREAD: u32 = 0;
const READING: u32 = 1;
const READ: u32 = 2;
/// Nanoseconds after which a thread looks again whether another one has read it all.
const WAIT: u64 = 1_000_000;

// SAFETY: `state` says which thread writes to the other fields, and when all may read them.
unsafe impl Sync for Host {}

/// See [`crate::Os::topology`].
#[inline(never)]
pub fn host() -> &'static Topology {
    static HOST: Host = Host {
        state: AtomicU32::new(UNREAD),
        topology: UnsafeCell::new(Topology::empty()),
        text: UnsafeCell::new([0; TEXT]),
    };
    loop {
        match HOST
            .state
            .compare_exchange(UNREAD, READING, Acquire, Acquire)
        {
            Ok(_) => {
                // SAFETY: this thread has moved `state` to READING.
                let (topology, text) =
                    unsafe { (&mut *HOST.topology.get(), &mut *HOST.text.get()) };
                scan(&file::read, numa::allowed(), topology, text);
                HOST.state.store(READ, Release);
            }
            // SAFETY: `state` is READ.
            Err(READ) => return unsafe { &*HOST.topology.get() },
            Err(_) => futex::wait(&HOST.state, READING, Some(WAIT)),
        }
    }
}

/// Reads the beginning of a file into the buffer.
type ReadFile<'f> = &'f dyn for<'a> Fn(&[u8], &'a mut [u8]) -> Option<&'a [u8]>;

/// Fills an empty topology with what the files show to a process that may use the memory of these
/// nodes. `text` is room for the files.
fn scan(read: ReadFile<'_>, allowed: NodeSet, topology: &mut Topology, text: &mut [u8]) {
    if let Some(node) = allowed.only() {
        topology.settle_all(node);
    } else {
        scan_nodes(read, allowed, topology, text);
    }
    let mut possible = 0;
    read_list(
        read,
        b"/sys/devices/system/cpu/possible",
        text,
        |_, last| possible = last as usize + 1,
    );
    if possible == 0 {
        possible = read(b"/proc/stat", text).map_or(0, cpus_of_stat);
    }
    if possible != 0 {
        topology.cpus = possible.min(MAX_CPUS);
    }
}

/// The highest CPU number plus one that the beginning of /proc/stat names: of those online. 0 if
/// their lines were cut off.
fn cpus_of_stat(text: &[u8]) -> usize {
    let mut cpus = 0;
    for line in text.split(|&byte| byte == b'\n') {
        let Some(rest) = line.strip_prefix(b"cpu") else {
            return cpus;
        };
        let digits = rest.split(|&byte| byte == b' ').next();
        let cpu = digits.and_then(number).map_or(0, |cpu| cpu as usize + 1);
        cpus = cpus.max(cpu);
    }
    0
}

/// Fills an empty topology with the homes, as `scan` does.
fn scan_nodes(read: ReadFile<'_>, allowed: NodeSet, topology: &mut Topology, text: &mut [u8]) {
    let (mut online, mut memory) = (NodeSet::NONE, NodeSet::NONE);
    let mut add = |set: &mut NodeSet, name: &[u8]| {
        read_list(read, name, text, |first, last| set.add(first, last))
    };
    add(&mut online, b"/sys/devices/system/node/online");
    if !add(&mut memory, b"/sys/devices/system/node/has_memory") {
        memory = online;
    }
    let usable = |node: &NodeId| memory.has(*node) && allowed.has(*node);
    for node in online.iter().filter(usable) {
        let mut any = false;
        each_cpu(read, node, text, |_, _| any = true);
        if any {
            topology.add_home(node);
        }
    }
    if topology.nodes == 0 {
        for node in online.iter().filter(usable) {
            topology.add_home(node);
        }
    }
    if topology.nodes > 0 {
        for node in online.iter() {
            let known = topology.home_of[usize::from(node.0)];
            let home = if known == UNKNOWN {
                nearest(read, node, &online, topology, text)
            } else {
                known
            };
            topology.home_of[usize::from(node.0)] = home;
            each_cpu(read, node, text, |first, last| {
                topology.add_cpus(first, last, home)
            });
        }
    }
    topology.finish();
}

/// Calls `each` with the first and the last CPU of every range of a node's CPUs.
fn each_cpu(read: ReadFile<'_>, node: NodeId, text: &mut [u8], each: impl FnMut(u32, u32)) {
    read_list(read, node_file(node, "/cpulist").as_bytes(), text, each);
}

/// The index of the home nearest to a node. The node's file has a distance for each online node, in
/// the order of their numbers.
fn nearest(
    read: ReadFile<'_>,
    node: NodeId,
    online: &NodeSet,
    topology: &Topology,
    text: &mut [u8],
) -> u8 {
    let text = read(node_file(node, "/distance").as_bytes(), text).unwrap_or_default();
    let distances = text.split(u8::is_ascii_whitespace).filter_map(number);
    let homes = online
        .iter()
        .zip(distances)
        .filter_map(|(other, distance)| {
            let home = topology.kernel[..topology.nodes]
                .iter()
                .position(|&k| k == other)?;
            Some((distance, home as u8))
        });
    homes.min().map_or(0, |(_, home)| home)
}

/// Reads a file that holds a list like `0-3,8` and calls `each` with the ends of every range.
/// Answers whether the file could be read.
fn read_list(read: ReadFile<'_>, path: &[u8], text: &mut [u8], each: impl FnMut(u32, u32)) -> bool {
    let Some(text) = read(path, text) else {
        return false;
    };
    parse_list(text, each);
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
    use std::vec;
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
        assert!(!read_list(
            &file::read,
            b"/sys/devices/system/node/none",
            &mut [0; TEXT],
            |_, _| panic!("no range")
        ));
    }

    /// The topology that `scan` reads from files below `/sys/devices/system` with these contents.
    fn scanned(files: &[(&str, &str)], allowed: &[(u32, u32)]) -> Topology {
        let mut set = NodeSet::NONE;
        allowed
            .iter()
            .for_each(|&(first, last)| set.add(first, last));
        let read = |path: &[u8], buffer: &mut [u8]| {
            let name = core::str::from_utf8(path)
                .ok()?
                .strip_prefix("/sys/devices/system/")?;
            let (_, text) = files.iter().find(|(known, _)| *known == name)?;
            buffer[..text.len()].copy_from_slice(text.as_bytes());
            Some(text.len())
        };
        let mut topology = Topology::empty();
        scan(
            &|path, buffer| read(path, buffer).map(|len| &buffer[..len]),
            set,
            &mut topology,
            &mut [0; TEXT],
        );
        topology
    }

    /// The kernel's node numbers of the homes, and the home of each CPU (by the kernel's number).
    fn homes(topology: &Topology, cpus: &[u32]) -> (Vec<u8>, Vec<Option<u8>>) {
        let kernel = |home| topology.kernel_node(home).0;
        let of_cpu = |&cpu: &u32| topology.node_of_cpu(Cpu(cpu)).map(kernel);
        (
            (0..topology.nodes()).map(kernel).collect(),
            cpus.iter().map(of_cpu).collect(),
        )
    }

    /// Three nodes with odd numbers; node 4 has no memory and is nearer to node 9 than to node 2.
    /// CPU 6 is offline.
    const ODD: [(&str, &str); 9] = [
        ("node/online", "2,4,9\n"),
        ("node/has_memory", "2,9\n"),
        ("node/node2/cpulist", "0-1,16\n"),
        ("node/node4/cpulist", "4-5\n"),
        ("node/node9/cpulist", "7,40-41\n"),
        ("node/node2/distance", "10 20 30\n"),
        ("node/node4/distance", "20 10 12\n"),
        ("node/node9/distance", "30 12 10\n"),
        ("cpu/possible", "0-47\n"),
    ];

    #[test]
    fn numbers_may_have_gaps_and_a_node_without_memory_has_a_neighbour() {
        let topology = scanned(&ODD, &[(0, 255)]);
        let (nodes, cpus) = homes(&topology, &[0, 16, 4, 5, 7, 41, 6, 47, 5000]);
        assert_eq!(nodes, [2, 9]);
        assert_eq!(
            cpus,
            [
                Some(2),
                Some(2),
                Some(9),
                Some(9),
                Some(9),
                Some(9),
                None,
                None,
                None
            ]
        );
        assert_eq!(topology.cpus(), 48);
        let home_of = |node| topology.kernel_node(topology.home_of(NodeId(node))).0;
        assert_eq!(
            [2, 4, 9, 7].map(home_of),
            [2, 9, 9, 2],
            "an unknown node is the first home's"
        );
    }

    #[test]
    fn a_node_that_is_not_allowed_is_no_home() {
        let (nodes, cpus) = homes(&scanned(&ODD, &[(0, 8)]), &[0, 4, 7]);
        assert_eq!((nodes, cpus), (vec![2], vec![Some(2); 3]));
        let (nodes, cpus) = homes(&scanned(&ODD, &[(9, 9)]), &[0, 4, 7]);
        assert_eq!((nodes, cpus), (vec![9], vec![Some(9); 3]));
        // The answer is that of an unknown topology: no memory could be had anyway.
        assert_eq!(scanned(&ODD, &[(3, 3)]).nodes(), 1);
    }

    #[test]
    fn memory_without_cpus_is_a_home_only_if_there_is_no_other() {
        let mut files = ODD;
        files[4].1 = "\n";
        let (nodes, cpus) = homes(&scanned(&files, &[(0, 255)]), &[0, 4]);
        assert_eq!((nodes, cpus), (vec![2], vec![Some(2); 2]));
        let (nodes, cpus) = homes(&scanned(&files, &[(9, 9)]), &[0, 4]);
        assert_eq!((nodes, cpus), (vec![9], vec![Some(9); 2]));
    }

    #[test]
    fn without_sysfs_the_cpus_online_count() {
        let stat = b"cpu  9 0 9\ncpu0 4 0 4\ncpu5 5 0 5\nintr 7 8 9\nctxt 1\n";
        assert_eq!(cpus_of_stat(stat), 6);
        assert_eq!(cpus_of_stat(b"\n"), 0);
        assert_eq!(cpus_of_stat(&stat[..29]), 0, "it was cut off");
    }

    #[test]
    fn files_may_be_missing() {
        assert_eq!(scanned(&[], &[(0, 255)]).nodes(), 1);
        let (nodes, cpus) = homes(&scanned(&ODD[..1], &[(0, 255)]), &[0]);
        assert_eq!((nodes, cpus), (vec![2, 4, 9], vec![None]));
        let without: Vec<_> = ODD
            .into_iter()
            .filter(|(name, _)| !name.ends_with("distance"))
            .collect();
        let (_, cpus) = homes(&scanned(&without, &[(0, 255)]), &[4]);
        assert_eq!(
            cpus,
            [Some(2)],
            "without distances the first home is as near as any"
        );
    }
}
