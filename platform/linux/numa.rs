//! The nodes from which memory comes, on machines with several.
//!
//! rustix has none of these calls and libc's `syscall` reports errors in `errno`, which an
//! allocator must not change: [`policy_call`] saves and restores it.
#![allow(unsafe_code)] // Raw system calls.

use libc::{c_int, c_long};

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

/// Runs a libc system call and returns its error, leaving `errno` as it was.
fn policy_call(call: impl FnOnce() -> c_long) -> Result<(), Error> {
    // SAFETY: the C library's `errno` of this thread is valid as long as the thread runs, and only
    // this thread, here and in `call`, accesses it.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        if call() == 0 {
            return Ok(());
        }
        Err(match errno.replace(before) {
            libc::ENOMEM => Error::NoMemory,
            other => Error::Other(other),
        })
    }
}

/// See [`crate::Os::bind`].
pub fn bind(addr: usize, len: usize, node: NodeId) -> Result<(), Error> {
    let mut mask = [0u64; MASK_WORDS];
    mask[usize::from(node.0 / 64)] = 1 << (node.0 % 64);
    policy_call(|| {
        // SAFETY: a policy changes no contents, whose range it ever is; the kernel reads the mask,
        // which outlives the call and has the stated length.
        unsafe {
            libc::syscall(
                libc::SYS_mbind,
                addr,
                len,
                libc::MPOL_PREFERRED,
                mask.as_ptr(),
                MASK_BITS,
                0,
            )
        }
    })
}

/// See [`crate::Os::node_of`].
pub fn node_of(addr: usize) -> Result<NodeId, Error> {
    let mut node: c_int = 0;
    let asked = policy_call(|| {
        // SAFETY: the kernel writes one int to `node` and nothing through the null mask.
        unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut node,
                core::ptr::null_mut::<u64>(),
                0,
                addr,
                MPOL_F_NODE | MPOL_F_ADDR,
            )
        }
    });
    match asked {
        Err(Error::Other(libc::ENOSYS)) => Err(Error::Unsupported),
        Err(error) => Err(error),
        Ok(()) => u8::try_from(node)
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
    policy_call(|| {
        // SAFETY: the kernel writes an int and at most the stated bits, rounded up to words.
        unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut mode,
                mask.as_mut_ptr(),
                ANSWER_WORDS * 64 + 1,
                0,
                flags,
            )
        }
    })
    .ok()?;
    Some((mode, NodeSet(core::array::from_fn(|i| mask[i]))))
}

/// See [`crate::Os::nodes_of`].
pub fn nodes_of(addr: usize, step: usize, nodes: &mut [Option<NodeId>]) -> Result<(), Error> {
    for (batch, nodes) in nodes.chunks_mut(BATCH).enumerate() {
        let pages: [usize; BATCH] = core::array::from_fn(|i| addr + (batch * BATCH + i) * step);
        let mut status = [-1 as c_int; BATCH];
        let asked = policy_call(|| {
            // SAFETY: without target nodes nothing is moved; both arrays have room for the stated
            // number.
            unsafe {
                libc::syscall(
                    libc::SYS_move_pages,
                    0,
                    nodes.len(),
                    pages.as_ptr(),
                    core::ptr::null::<c_int>(),
                    status.as_mut_ptr(),
                    0,
                )
            }
        });
        match asked {
            Err(Error::Other(libc::ENOSYS)) => return Err(Error::Unsupported),
            other => other?,
        }
        for (node, status) in nodes.iter_mut().zip(status) {
            *node = u8::try_from(status).ok().map(NodeId);
        }
    }
    Ok(())
}

/// See [`crate::Os::current_place`].
pub fn current_place() -> Option<(Cpu, NodeId)> {
    let (mut cpu, mut node) = (0u32, 0u32);
    policy_call(|| {
        // SAFETY: the kernel writes the two numbers.
        unsafe {
            libc::syscall(
                libc::SYS_getcpu,
                &raw mut cpu,
                &raw mut node,
                core::ptr::null::<u8>(),
            )
        }
    })
    .ok()?;
    Some((Cpu(cpu), NodeId(u8::try_from(node).ok()?)))
}
