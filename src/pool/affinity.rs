//! Where threads run and where memory belongs: CPUs, nodes, and what each SuperSlab is bound to.
//!
//! With `numa=local` each home of the topology has a part of the range, bound to it. With `interleave` there is one
//! part, whose SuperSlabs (or pages of 1 GiB) are bound to the homes in turn; with `off`, or a single home, one part that is bound to
//! nothing. Bindings are preferences: a node that is full serves from the next one, and memory is never refused for it.
//!
//! CPUs that the topology does not know came online after start: their node is asked of the kernel once and kept in
//! `learned`, a byte a CPU that any thread may write, always with the same value.

use super::{Arena, SLOTS, SUPER};
use crate::config::{Numa, Pages};
use core::sync::atomic::{AtomicU8, Ordering};
use theap_platform::{Cpu, Error, HUGE_1G, NodeId, PAGE, PageMode};

/// Pages of one question where they lie.
const BATCH: usize = 128;

impl Arena {
    /// This thread's CPU.
    pub fn current_cpu(&self) -> Cpu {
        // Unit tests ask the fake.
        let cpu = if cfg!(test) {
            None
        } else {
            theap_arch::cpu_number()
        };
        cpu.map_or_else(|| self.os.current_cpu(), Cpu)
    }

    /// The node that a CPU belongs to; `None` if no thread was seen yet on a CPU that came online after start.
    pub fn node_of_cpu(&self, cpu: Cpu) -> Option<usize> {
        if self.node_count() == 1 {
            return Some(0);
        }
        self.topology.node_of_cpu(cpu).or_else(|| {
            let learned = self.learned(cpu)?.load(Ordering::Relaxed);
            learned.checked_sub(1).map(usize::from)
        })
    }

    /// The node that this thread runs on; `None` if that cannot be known now: a sealed heap does not ask the system.
    pub fn current_node(&self) -> Option<usize> {
        self.node_of_cpu(self.current_cpu())
            .or_else(|| self.learn())
    }

    #[cold]
    fn learn(&self) -> Option<usize> {
        if self.is_sealed() {
            return None;
        }
        let (cpu, node) = self.os.current_place()?;
        let home = self.topology.home_of(node);
        if let Some(learned) = self.learned(cpu) {
            learned.store(home as u8 + 1, Ordering::Relaxed);
        }
        Some(home)
    }

    fn learned(&self, cpu: Cpu) -> Option<&AtomicU8> {
        // SAFETY: the table has a byte for each of `cpus` CPUs.
        ((cpu.0 as usize) < self.cpus).then(|| unsafe { &*self.learned.add(cpu.0 as usize) })
    }

    /// Whether SuperSlabs are bound to the nodes in turn.
    pub fn interleaves(&self) -> bool {
        self.bound_nodes() > 1 && self.config.numa == Numa::Interleave
    }

    /// SuperSlabs in a row that one node gets when nodes take turns: no page lies on two.
    fn turn(&self) -> usize {
        match self.config.pages {
            Pages::Hugetlb1g => HUGE_1G / SUPER,
            _ => 1,
        }
    }

    /// Number of nodes that memory is bound to; 1 if it is bound to none.
    pub fn bound_nodes(&self) -> usize {
        match self.config.numa {
            Numa::Local | Numa::Interleave if cfg!(feature = "numa") => self.topology.nodes(),
            _ => 1,
        }
    }

    /// The node that a SuperSlab is bound to: its index in the topology.
    pub fn bound_to(&self, super_index: usize) -> Option<usize> {
        match self.bound_nodes() {
            1 => None,
            nodes if self.interleaves() => Some(super_index / self.turn() % nodes),
            _ => Some(self.node_of_slot(super_index * SLOTS)),
        }
    }

    /// As `bound_to`, by the kernel's number.
    pub fn binding(&self, super_index: usize) -> Option<NodeId> {
        self.bound_to(super_index)
            .map(|node| self.kernel_node(node))
    }

    /// Maps SuperSlabs of one binding. A kernel or a container that refuses the binding serves without it.
    ///
    /// # Errors
    /// As `Os::map`.
    ///
    /// # Safety
    /// They are reserved and not mapped, and nobody else maps them.
    pub(super) unsafe fn map(
        &self,
        super_index: usize,
        count: usize,
        mode: PageMode,
    ) -> Result<(), Error> {
        let address = self.address_of(super_index * SLOTS);
        let bind = self.binding(super_index);
        // SAFETY: the caller's promise; after an error other than Lost the range is still reserved.
        unsafe {
            match self.os.map(address, count * SUPER, mode, bind) {
                Err(Error::Other(_)) if bind.is_some() => {
                    self.os.map(address, count * SUPER, mode, None)
                }
                answer => answer,
            }
        }
    }

    /// The kernel's number of a node of the topology.
    pub fn kernel_node(&self, index: usize) -> NodeId {
        self.topology.kernel_node(index)
    }
}

/// Visiting memory.
impl Arena {
    /// Calls `each` with every SuperSlab that is mapped, and its bytes.
    pub fn each_mapped(&self, mut each: impl FnMut(usize, u64)) {
        for node in self.nodes() {
            node.mapped_supers()
                .for_each(|i| each(node.first + i, SUPER as u64));
        }
    }

    /// Calls `each` with every piece of memory that is touched: its SuperSlab, the node it lies on, and bytes.
    ///
    /// # Errors
    /// As `Os::nodes_of`.
    pub fn each_resident(&self, mut each: impl FnMut(usize, NodeId, u64)) -> Result<(), Error> {
        for node in self.nodes() {
            for i in node.mapped_supers() {
                let address = self.address_of((node.first + i) * SLOTS);
                // A hugetlb page is one; what looks like a transparent one may be in pieces.
                let (step, pages) = match node.mode(i) {
                    Some(mode) if mode.is_hugetlb() => (SUPER, 1),
                    _ => (PAGE, BATCH),
                };
                for at in (0..SUPER).step_by(step * pages) {
                    let mut nodes = [None; BATCH];
                    self.os.nodes_of(address + at, step, &mut nodes[..pages])?;
                    for on in nodes.into_iter().flatten() {
                        each(node.first + i, on, step as u64);
                    }
                }
            }
        }
        Ok(())
    }
}
