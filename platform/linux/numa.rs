//! The nodes from which memory comes, on machines with several.
#![allow(unsafe_code)] // Raw system calls.

use libc::c_int;
use rustix::io::Errno;

use super::call::call;
use crate::node_set::NodeSet;
use crate::{Cpu, Error, NodeId};

/// A set of nodes as the kernel takes it: one bit for every value of [`NodeId`].
const MASK_WORDS: usize = 4;
/// The length of such a set that the kernel is told; it reads one bit less.
const MASK_BITS: usize = MASK_WORDS * 64 + 1;

/// Words of a set that the kernel writes: it needs room for all nodes that the kernel was built
/// for, at most 1024.
const ANSWER_WORDS: usize = 16;

const MPOL_F_NODE: c_int = 1;
const MPOL_F_ADDR: c_int = 2;
const MPOL_F_MEMS_ALLOWED: c_int = 4;
/// Flags in the upper bits of a policy's mode.
const MPOL_MODE: c_int = 0xff;

/// Pages about which one call of move_pages asks.
const BATCH: usize = 64;

/// See [`crate::Os::bind`].
pub fn bind(addr: usize, len: usize, node: NodeId) -> Result<(), Error> {
    let mut mask = [0u64; MASK_WORDS];
    mask[usize::from(node.0 / 64)] = 1 << (node.0 % 64);
    let policy = libc::MPOL_PREFERRED as usize;
    let arguments = [addr, len, policy, mask.as_ptr().addr(), MASK_BITS, 0];
    // SAFETY: a policy changes no contents, whose range it ever is; the kernel reads the mask,
    // which outlives the call and has the stated length.
    match unsafe { call(libc::SYS_mbind, arguments) } {
        Ok(_) => Ok(()),
        // There may be memory for a range that is not bound.
        Err(errno) => Err(Error::Other(errno.raw_os_error())),
    }
}

/// See [`crate::Os::node_of`].
pub fn node_of(addr: usize) -> Result<NodeId, Error> {
    let mut node: c_int = 0;
    let flags = (MPOL_F_NODE | MPOL_F_ADDR) as usize;
    let arguments = [(&raw mut node).addr(), 0, 0, addr, flags];
    // SAFETY: the kernel writes one int to `node` and nothing through the null mask.
    match unsafe { call(libc::SYS_get_mempolicy, arguments) } {
        Err(Errno::NOSYS) => Err(Error::Unsupported),
        Err(errno) => Err(errno.into()),
        Ok(_) => u8::try_from(node)
            .map(NodeId)
            .map_err(|_| Error::Unsupported),
    }
}

/// The nodes whose memory this thread may use: the nodes of its cpuset that are also in its policy,
/// if that is MPOL_BIND. All nodes where the kernel does not say.
pub fn allowed() -> NodeSet {
    let Some((_, cpuset)) = policy(MPOL_F_MEMS_ALLOWED) else {
        return NodeSet::ALL;
    };
    match policy(0) {
        Some((mode, nodes)) if mode & MPOL_MODE == libc::MPOL_BIND => {
            NodeSet(core::array::from_fn(|i| cpuset.0[i] & nodes.0[i]))
        }
        _ => cpuset,
    }
}

/// The answer of get_mempolicy for no address: a policy's mode and its nodes.
fn policy(flags: c_int) -> Option<(c_int, NodeSet)> {
    let mut mode: c_int = 0;
    let mut mask = [0u64; ANSWER_WORDS];
    let (told, nodes) = ((&raw mut mode).addr(), mask.as_mut_ptr().addr());
    let arguments = [told, nodes, ANSWER_WORDS * 64 + 1, 0, flags as usize];
    // SAFETY: the kernel writes an int and at most the stated bits, rounded up to words.
    unsafe { call(libc::SYS_get_mempolicy, arguments) }.ok()?;
    Some((mode, NodeSet(core::array::from_fn(|i| mask[i]))))
}

/// See [`crate::Os::nodes_of`].
pub fn nodes_of(addr: usize, step: usize, nodes: &mut [Option<NodeId>]) -> Result<(), Error> {
    for (batch, nodes) in nodes.chunks_mut(BATCH).enumerate() {
        let pages: [usize; BATCH] = core::array::from_fn(|i| addr + (batch * BATCH + i) * step);
        let mut status = [-1 as c_int; BATCH];
        let (pages, answer) = (pages.as_ptr().addr(), status.as_mut_ptr().addr());
        let arguments = [0, nodes.len(), pages, 0, answer, 0];
        // SAFETY: without target nodes nothing is moved; both arrays have room for the stated
        // number.
        match unsafe { call(libc::SYS_move_pages, arguments) } {
            Err(Errno::NOSYS) => return Err(Error::Unsupported),
            other => other?,
        };
        for (node, status) in nodes.iter_mut().zip(status) {
            *node = u8::try_from(status).ok().map(NodeId);
        }
    }
    Ok(())
}

/// See [`crate::Os::current_place`].
pub fn current_place() -> Option<(Cpu, NodeId)> {
    let (mut cpu, mut node) = (0u32, 0u32);
    let arguments = [(&raw mut cpu).addr(), (&raw mut node).addr(), 0];
    // SAFETY: the kernel writes the two numbers.
    unsafe { call(libc::SYS_getcpu, arguments) }.ok()?;
    Some((Cpu(cpu), NodeId(u8::try_from(node).ok()?)))
}
