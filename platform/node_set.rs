//! Sets of NUMA nodes, and the files that the kernel has for a node.

use crate::{Line, NodeId};

/// Number of values of [`NodeId`].
pub const NODE_IDS: usize = 256;

/// Nodes, by the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSet(pub [u64; NODE_IDS / 64]);

impl NodeSet {
    /// No node.
    pub const NONE: Self = Self([0; NODE_IDS / 64]);
    /// Every node.
    pub const ALL: Self = Self([u64::MAX; NODE_IDS / 64]);

    /// Adds the nodes from `first` to `last`; numbers that no node can have do not count.
    pub fn add(&mut self, first: u32, last: u32) {
        for node in first as usize..=(last as usize).min(NODE_IDS - 1) {
            self.0[node / 64] |= 1 << (node % 64);
        }
    }

    /// Whether the node is in the set.
    pub fn has(&self, node: NodeId) -> bool {
        self.0[usize::from(node.0 / 64)] >> (node.0 % 64) & 1 == 1
    }

    /// The node of a set of one.
    pub fn only(&self) -> Option<NodeId> {
        let mut nodes = self.iter();
        nodes.next().filter(|_| nodes.next().is_none())
    }

    /// The nodes in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> {
        (0..=u8::MAX).map(NodeId).filter(|&node| self.has(node))
    }
}

/// The path of a node's file.
pub fn node_file(node: NodeId, name: &str) -> Line<96> {
    Line::sized()
        .str("/sys/devices/system/node/node")
        .dec(node.0.into())
        .str(name)
}
