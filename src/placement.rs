//! The NUMA nodes on which the memory of the heap really lies. A binding is a preference: where a
//! node has no free memory, or no free hugetlb pages, the kernel takes pages of another node, and
//! only the kernel knows which.

use crate::geometry::{NodeIndex, SUPER};
use crate::pool::Arena;
use core::fmt::{self, Write};
use theap_platform::{Error, MAX_NODES, NodeId};

/// The memory of the heap on one NUMA node, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodePlacement {
    /// The kernel's number of the node.
    pub node: u8,
    /// Bytes of mapped memory that is bound to the node, touched or not.
    pub bound: u64,
    /// Bytes of memory that lies on the node, whatever node it is bound to.
    pub resident: u64,
    /// Bytes of memory that is bound to the node and lies on another one.
    pub strayed: u64,
}

/// The answer of [`crate::placement`]: a row for each node that the heap binds memory to (one node
/// if it binds to none), and for each other node on which memory was found.
#[derive(Clone, Debug)]
pub struct Placement {
    nodes: [NodePlacement; MAX_NODES],
    len: usize,
}

impl Placement {
    pub(crate) const NONE: Self = Self {
        nodes: [NodePlacement {
            node: 0,
            bound: 0,
            resident: 0,
            strayed: 0,
        }; MAX_NODES],
        len: 0,
    };

    /// Writes three lines for each node, with figures in bytes.
    ///
    /// # Errors
    /// The error that `out` returned.
    pub fn write_text(&self, out: &mut impl Write) -> fmt::Result {
        for row in self.nodes() {
            for (name, bytes) in [
                ("bound", row.bound),
                ("resident", row.resident),
                ("strayed", row.strayed),
            ] {
                writeln!(out, "node {:<3} {name:<11} {bytes:>16} bytes", row.node)?;
            }
        }
        Ok(())
    }

    /// The rows, one for each node; none before the first allocation.
    pub fn nodes(&self) -> &[NodePlacement] {
        &self.nodes[..self.len]
    }

    /// Asks the kernel about every page of the heap.
    ///
    /// # Errors
    /// The error of the kernel's answer, as [`crate::placement`] returns it.
    pub(crate) fn gather(arena: &Arena) -> Result<Self, Error> {
        let mut this = Self::NONE;
        let affinity = arena.affinity();
        for node in 0..affinity.bound_nodes() {
            this.row(affinity.kernel_node(NodeIndex(node as u8)));
        }
        for node in arena.nodes() {
            let bound = |i| affinity.binding(node.supers().id(i));
            for bound in node.pages().mapped_supers().filter_map(bound) {
                this.row(bound).bound += SUPER as u64;
            }
            node.pages().each_resident(|i, on, bytes| {
                this.row(on).resident += bytes;
                if let Some(bound) = bound(i).filter(|&bound| bound != on) {
                    this.row(bound).strayed += bytes;
                }
            })?;
        }
        Ok(this)
    }

    /// The row of a node. If there are more nodes than rows, the last row takes the rest.
    fn row(&mut self, NodeId(node): NodeId) -> &mut NodePlacement {
        let known = self.nodes().iter().position(|row| row.node == node);
        let at = known.unwrap_or_else(|| {
            let at = self.len.min(MAX_NODES - 1);
            self.nodes[at].node = node;
            self.len = at + 1;
            at
        });
        &mut self.nodes[at]
    }
}
