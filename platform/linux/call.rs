//! System calls that rustix does not have, as system calls: a program may put functions of its own
//! in the place of the C library's, which must not see what an allocator does.
#![allow(unsafe_code)] // Raw system calls.

use libc::c_long;
use rustix::io::Errno;

/// Makes a system call with up to six arguments. `errno`, which is the program's, stays as it was.
///
/// # Safety
/// The conditions of the system call.
pub unsafe fn call<const N: usize>(number: c_long, arguments: [usize; N]) -> Result<usize, Errno> {
    let at = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: the C library's `errno` of this thread is valid as long as the thread runs, and only
    // this thread accesses it; the caller answers for the call itself (`# Safety`).
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let done = libc::syscall(number, at(0), at(1), at(2), at(3), at(4), at(5));
        match errno.replace(before) {
            error if done == -1 => Err(Errno::from_raw_os_error(error)),
            _ => Ok(done as usize),
        }
    }
}
