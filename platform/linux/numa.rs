//! Where memory comes from on machines with several nodes.
//!
//! rustix has none of these calls and libc's `syscall` reports errors in `errno`, which an allocator
//! must not change: [`policy_call`] saves and restores it.
#![allow(unsafe_code)] // Raw system calls.

use libc::{c_int, c_long};

use crate::{Error, NodeId};

/// A set of nodes as the kernel takes it: one bit for every value of [`NodeId`].
const MASK_WORDS: usize = 4;
/// The kernel reads one bit less than it is told.
const MASK_BITS: usize = MASK_WORDS * 64 + 1;

const MPOL_F_NODE: c_int = 1;
const MPOL_F_ADDR: c_int = 2;

/// Runs a libc system call and returns its error, leaving `errno` as it was.
fn policy_call(call: impl FnOnce() -> c_long) -> Result<(), Error> {
    // SAFETY: the location is this thread's and always valid.
    let errno = unsafe { &mut *libc::__errno_location() };
    let before = *errno;
    if call() == 0 {
        return Ok(());
    }
    Err(match core::mem::replace(errno, before) {
        libc::ENOMEM => Error::NoMemory,
        other => Error::Other(other),
    })
}

/// Makes a range prefer the memory of `node` for the pages that it does not have yet.
///
/// # Errors
/// [`Error::Other`] when the kernel, or a filter in front of it, refuses.
pub fn bind(addr: usize, len: usize, node: NodeId) -> Result<(), Error> {
    let mut mask = [0u64; MASK_WORDS];
    mask[usize::from(node.0 / 64)] = 1 << (node.0 % 64);
    policy_call(|| {
        // SAFETY: a policy changes no contents; the mask outlives the call and has the stated length.
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
