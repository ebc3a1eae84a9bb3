//! The numbers by which the kernel knows the parts of a machine.

/// A NUMA node by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(pub u8);

/// A CPU by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu(pub u32);
