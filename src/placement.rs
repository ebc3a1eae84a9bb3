//! On which nodes the heap's memory really lies. Bindings are preferences: a node without free memory, or without free
//! hugetlb pages, serves from another one, and only the kernel knows.

use crate::Error;
use crate::pool::Arena;
use core::fmt::{self, Write};
use theap_platform::{MAX_NODES, NodeId};

/// One NUMA node's memory of the heap, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodePlacement {
    /// The kernel's number of the node.
    pub node: u8,
    /// Mapped memory that is bound to the node, touched or not.
    pub bound: u64,
    /// Memory that lies on the node, bound to whichever.
    pub resident: u64,
    /// Memory that is bound to the node and lies on another one.
    pub strayed: u64,
}

/// What [`crate::placement`] found: the nodes that the heap binds memory to (one if it binds to none), and those that
/// memory was found on besides.
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

    /// Writes three lines for each node.
    ///
    /// # Errors
    /// What `out` answered.
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

    /// A row for each node; none before the first allocation.
    pub fn nodes(&self) -> &[NodePlacement] {
        &self.nodes[..self.len]
    }

    /// Asks the kernel about every page of the heap.
    ///
    /// # Errors
    /// As for `crate::placement`.
    pub(crate) fn gather(arena: &Arena) -> Result<Self, Error> {
        let mut this = Self::NONE;
        for node in 0..arena.bound_nodes() {
            this.row(arena.kernel_node(node));
        }
        arena.each_mapped(|super_index, bytes| {
            if let Some(node) = arena.binding(super_index) {
                this.row(node).bound += bytes;
            }
        });
        arena.each_resident(|super_index, node, bytes| {
            this.row(node).resident += bytes;
            if let Some(bound) = arena.binding(super_index).filter(|&bound| bound != node) {
                this.row(bound).strayed += bytes;
            }
        })?;
        Ok(this)
    }

    /// The row of a node. With more nodes than rows the last one takes the rest.
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
