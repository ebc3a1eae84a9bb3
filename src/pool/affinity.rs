//! Affinity: the CPUs that threads run on, the NUMA nodes of these CPUs, and the node that each
//! SuperSlab is bound to.
//!
//! With `numa=local` each node of the topology has a part of the range, bound to it. With
//! `interleave` there is one part, whose SuperSlabs (or pages of 1 GiB) are bound to the nodes in
//! turn. With `off`, or a single node, there is one part that is bound to nothing. Bindings are
//! preferences: a node that is full serves from the next one, and memory is never refused for a
//! binding.
//!
//! A CPU that the topology does not know came online after start. The kernel is asked once for its
//! node, and the answer is kept in `learned`, a byte a CPU that any thread may write, always with
//! the same value.

use super::addresses::AddressMap;
use super::policy::Policy;
use crate::config::{Numa, Pages};
use crate::geometry::{NodeIndex, SUPER, SuperId};
use core::sync::atomic::{AtomicU8, Ordering};
use theap_platform::{Cpu, HUGE_1G, NodeId, Topology};

/// The affinity of a heap. Immutable but for `learned`.
pub struct Affinity {
    policy: &'static Policy,
    addresses: AddressMap,
    topology: &'static Topology,
    /// For each CPU that the topology does not know: its node plus one once a thread was found on
    /// it, or 0.
    learned: &'static [AtomicU8],
}

impl Affinity {
    /// The affinity on a machine with this topology. `learned` has a zero byte for each CPU.
    pub fn new(
        policy: &'static Policy,
        addresses: AddressMap,
        topology: &'static Topology,
        learned: &'static [AtomicU8],
    ) -> Self {
        Self {
            policy,
            addresses,
            topology,
            learned,
        }
    }

    /// The CPU that this thread runs on.
    pub fn current_cpu(&self) -> Cpu {
        // Unit tests ask the fake.
        let cpu = if cfg!(test) {
            None
        } else {
            theap_arch::cpu_number()
        };
        cpu.map_or_else(|| self.policy.os().current_cpu(), Cpu)
    }

    /// The number of CPUs that were possible at start.
    pub fn cpus(&self) -> usize {
        self.learned.len()
    }

    /// The node that a CPU belongs to; `None` if no thread was seen yet on a CPU that came online
    /// after start.
    pub fn node_of_cpu(&self, cpu: Cpu) -> Option<NodeIndex> {
        if !self.addresses.has_parts() {
            return Some(NodeIndex(0));
        }
        let known = self.topology.node_of_cpu(cpu).map(|node| node as u8);
        known
            .or_else(|| {
                let learned = self.learned.get(cpu.0 as usize)?;
                learned.load(Ordering::Relaxed).checked_sub(1)
            })
            .map(NodeIndex)
    }

    /// The node that this thread runs on; `None` if that cannot be known now, as a sealed heap does
    /// not ask the system.
    pub fn current_node(&self) -> Option<NodeIndex> {
        self.node_of_cpu(self.current_cpu())
            .or_else(|| self.learn())
    }

    #[cold]
    fn learn(&self) -> Option<NodeIndex> {
        if self.policy.is_sealed() {
            return None;
        }
        let (cpu, node) = self.policy.os().current_place()?;
        let node = self.topology.home_of(node) as u8;
        if let Some(learned) = self.learned.get(cpu.0 as usize) {
            learned.store(node + 1, Ordering::Relaxed);
        }
        Some(NodeIndex(node))
    }

    /// Whether SuperSlabs are bound to the nodes in turn.
    pub fn interleaves(&self) -> bool {
        self.bound_nodes() > 1 && self.policy.config().numa == Numa::Interleave
    }

    /// The number of adjacent SuperSlabs that one node gets when nodes take turns: no page lies on
    /// two nodes.
    fn turn(&self) -> usize {
        match self.policy.config().pages {
            Pages::Hugetlb1g => HUGE_1G / SUPER,
            _ => 1,
        }
    }

    /// The number of nodes that memory is bound to; 1 if it is bound to none.
    pub fn bound_nodes(&self) -> usize {
        match self.policy.config().numa {
            Numa::Local | Numa::Interleave if cfg!(feature = "numa") => self.topology.nodes(),
            _ => 1,
        }
    }

    fn bound_to(&self, super_id: SuperId) -> Option<NodeIndex> {
        match self.bound_nodes() {
            1 => None,
            nodes if self.interleaves() => {
                Some(NodeIndex((super_id.index() / self.turn() % nodes) as u8))
            }
            _ => Some(self.addresses.node_of(super_id.slot(0))),
        }
    }

    /// The node that a SuperSlab is bound to, by the kernel's number; `None` if it is bound to
    /// none.
    pub fn binding(&self, super_id: SuperId) -> Option<NodeId> {
        self.bound_to(super_id).map(|node| self.kernel_node(node))
    }

    /// The kernel's number of a node of the topology.
    pub fn kernel_node(&self, node: NodeIndex) -> NodeId {
        self.topology.kernel_node(node.index())
    }
}
