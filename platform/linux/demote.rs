//! Moving memory off hugetlb pages in place, while other threads may write to it.
//!
//! Before a fork whose copies the hugetlb pool could not serve, SuperSlabs move to transparent or small pages: the
//! contents are copied to new memory, which then takes the old one's addresses by one `mremap`. A write of another
//! thread in between would be lost, so the old pages are write-protected by userfaultfd for the time of the copy: a
//! writer waits and then continues on the new pages. Where userfaultfd is not to be had, only a process of one thread
//! can be helped.
#![allow(unsafe_code)] // Replaces mappings.

use core::ffi::c_ulong;
use core::mem::size_of;

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::mm::{self, Advice, MapFlags, MremapFlags, ProtFlags, UserfaultfdFlags};

use super::map::{self, pointer};
use super::topology::{self, NodeSet};
use super::{cgroup, file, numa, worker};
use crate::{Error, HUGE, NodeId, PAGE, PageMode};

const API: u64 = 0xAA;
const FEATURE_WP: u64 = 1 << 0;
const FEATURE_WP_HUGETLB: u64 = 1 << 12;
const USER_MODE_ONLY: u32 = 1;
const REGISTER_WP: u64 = 1 << 1;
const PROTECT: u64 = 1 << 0;

/// An ioctl number of userfaultfd that reads and writes `T`.
const fn request<T>(number: c_ulong) -> c_ulong {
    3 << 30 | (size_of::<T>() as c_ulong) << 16 | (API as c_ulong) << 8 | number
}

#[repr(C)]
struct Handshake {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Protect {
    start: u64,
    len: u64,
    mode: u64,
}

/// See [`crate::Os::demote`].
///
/// # Safety
/// As there.
pub unsafe fn demote(
    addr: usize,
    len: usize,
    bind: Option<NodeId>,
    workers: usize,
) -> Result<(), Error> {
    let stack = (&raw const bind).addr();
    if (addr..addr + len).contains(&stack) {
        // A program that gives its threads stacks from the heap: this one would wait for itself.
        return Err(Error::Unsupported);
    }
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place, so no existing mapping is touched. The hugepage more leaves room to align.
    let room = unsafe { mm::mmap_anonymous(core::ptr::null_mut(), len + HUGE, access, flags)? };
    let room = room.expose_provenance();
    let copy = room.next_multiple_of(HUGE);
    if let Some(node) = bind {
        // Better somewhere than not at all.
        let _ = numa::bind(copy, len, node);
    }
    // SAFETY: `copy` lies within the fresh mapping, and `addr` is the caller's.
    let done = unsafe { copy_and_replace(copy, addr, len, workers) };
    // SAFETY: the rest of the fresh mapping, all of it if nothing was moved.
    unsafe {
        if done.is_err() {
            map::unreserve(room, len + HUGE);
        } else {
            if copy > room {
                map::unreserve(room, copy - room);
            }
            map::unreserve(copy + len, room + HUGE - copy);
        }
    }
    done
}

/// # Safety
/// As [`demote`]; `copy` is a fresh mapping of at least `len` bytes.
unsafe fn copy_and_replace(
    copy: usize,
    addr: usize,
    len: usize,
    workers: usize,
) -> Result<(), Error> {
    // SAFETY: the fresh mapping.
    unsafe {
        // Advice: a kernel without transparent hugepages gives small ones.
        let _ = mm::madvise(pointer(copy), len, Advice::LinuxHugepage);
        map::populate(copy, len)?;
    }
    // A handler of this thread that writes to the range would wait for ever, or its write would be lost.
    let mask = worker::set_signal_mask(!0);
    // SAFETY: the caller's promise.
    let done = unsafe { replace(copy, addr, len, workers) };
    worker::set_signal_mask(mask);
    done
}

/// # Safety
/// As for [`copy_and_replace`]; the new mapping is populated, and signals of this thread wait.
unsafe fn replace(copy: usize, addr: usize, len: usize, workers: usize) -> Result<(), Error> {
    let guard = match protect(addr, len) {
        Ok(guard) => Some(guard),
        Err(_) if threads() == Some(1 + workers) => None,
        Err(error) => return Err(error),
    };
    // SAFETY: both are mapped and do not overlap; no other thread writes while `guard` lives. The old mapping is
    // replaced at once; waiting writers go on when `guard` is closed.
    unsafe {
        core::ptr::copy_nonoverlapping(addr as *const u8, copy as *mut u8, len);
        mm::mremap_fixed(pointer(copy), len, len, MremapFlags::MAYMOVE, pointer(addr))?;
    }
    drop(guard);
    Ok(())
}

/// Lets writers to the range wait until the descriptor is closed.
fn protect(addr: usize, len: usize) -> Result<OwnedFd, Error> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    // SAFETY: the descriptor is used for this range only.
    let open = |flags| unsafe { mm::userfaultfd(flags) };
    // Without privileges only writes from user mode wait; a system call that writes gets EFAULT.
    let guard = open(flags)
        .or_else(|_| open(flags | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY)))?;
    let (start, len) = (addr as u64, len as u64);
    let features = FEATURE_WP | FEATURE_WP_HUGETLB;
    ioctl(
        &guard,
        0x3F,
        &mut Handshake {
            api: API,
            features,
            ioctls: 0,
        },
    )?;
    ioctl(
        &guard,
        0x00,
        &mut Register {
            start,
            len,
            mode: REGISTER_WP,
            ioctls: 0,
        },
    )?;
    ioctl(
        &guard,
        0x06,
        &mut Protect {
            start,
            len,
            mode: PROTECT,
        },
    )?;
    Ok(guard)
}

fn ioctl<T>(guard: &OwnedFd, number: c_ulong, argument: &mut T) -> Result<(), Error> {
    loop {
        // SAFETY: the number says the size of the argument, which the kernel reads and writes.
        match unsafe { libc::ioctl(guard.as_raw_fd(), request::<T>(number), &raw mut *argument) } {
            0 => return Ok(()),
            // SAFETY: the C library's errno of this thread.
            _ => match unsafe { *libc::__errno_location() } {
                libc::EINTR | libc::EAGAIN => {}
                libc::ENOMEM => return Err(Error::NoMemory),
                _ => return Err(Error::Unsupported),
            },
        }
    }
}

/// See [`crate::Os::hugetlb_free`].
pub fn hugetlb_free(mode: PageMode) -> usize {
    let (free, reserved): (&[u8], &[u8]) = match mode {
        PageMode::Small | PageMode::Thp => return 0,
        PageMode::Hugetlb => (
            b"/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
            b"/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages",
        ),
        PageMode::Hugetlb1g => (
            b"/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages",
            b"/sys/kernel/mm/hugepages/hugepages-1048576kB/resv_hugepages",
        ),
    };
    let number = |path| field(file::read(path, &mut [0; 64]).unwrap_or_default(), b"").unwrap_or(0);
    let free = number(free).saturating_sub(number(reserved));
    if mode != PageMode::Hugetlb || free == 0 {
        return free;
    }
    let group = cgroup::hugetlb_left() / HUGE as u64;
    free.min(group.try_into().unwrap_or(usize::MAX))
        .min(free_on(&numa::allowed()))
}

/// Free hugetlb pages of 2 MiB of these nodes; no limit where the kernel does not say.
fn free_on(nodes: &NodeSet) -> usize {
    if *nodes == NodeSet::ALL {
        return usize::MAX;
    }
    let free = |node| {
        let path = topology::node_file(node, "/hugepages/hugepages-2048kB/free_hugepages");
        field(file::read(path.as_bytes(), &mut [0; 32])?, b"")
    };
    let told = nodes.iter().filter_map(free);
    told.reduce(|sum, free| sum + free).unwrap_or(usize::MAX)
}

/// Threads of this process.
fn threads() -> Option<usize> {
    let mut buffer = [0; 4096];
    field(file::read(b"/proc/self/status", &mut buffer)?, b"Threads:")
}

/// See [`crate::Os::is_shared`].
pub fn is_shared(addr: usize) -> bool {
    const EXCLUSIVE: u64 = 1 << 56;
    const PRESENT: u64 = 1 << 63;
    let Ok(file) = rustix::fs::open(
        c"/proc/self/pagemap",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return true;
    };
    let mut entry = [0; 8];
    match rustix::io::pread(&file, &mut entry, (addr / PAGE * 8) as u64) {
        Ok(8) => {
            let entry = u64::from_ne_bytes(entry);
            entry & PRESENT != 0 && entry & EXCLUSIVE == 0
        }
        _ => true,
    }
}

/// The number after `name` at the start of a line.
fn field(text: &[u8], name: &[u8]) -> Option<usize> {
    let line = text
        .split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(name))?;
    let digits = line
        .trim_ascii_start()
        .iter()
        .take_while(|b| b.is_ascii_digit());
    Some(digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}
