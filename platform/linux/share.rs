//! Memory of this process that other processes may read: a file in memory (memfd) in the place of a
//! reservation.
//!
//! The file has no name that somebody could take, and disappears with the last process that maps
//! it. A process that may look into this one finds the file under `/proc/PID/fd`; its mode is 0600.
//! The file is sealed against a change of its size, so no access to the mapping can fail. This
//! module keeps the descriptor open only so that others find the file; a program that closes
//! descriptors which it did not open loses nothing but that.
#![allow(unsafe_code)] // Replaces mappings.

use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use rustix::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use rustix::fs::{self, MemfdFlags, Mode, SealFlags};
use rustix::io::{self, Errno};
use rustix::mm::{self, MapFlags, MremapFlags, ProtFlags};

use super::map::{close_hole, pointer, unreserve};
use crate::Error;

/// The lowest number of the file's descriptor: programs use some of the lower ones by number.
const FIRST_DESCRIPTOR: i32 = 200;

/// The file behind a shared range, or no file.
#[derive(Debug)]
pub struct Shared {
    /// The file's descriptor, or -1. The program may have closed it, and opened another file under
    /// the same number.
    descriptor: AtomicI32,
    /// Device and inode together tell the file from others.
    device: AtomicU64,
    inode: AtomicU64,
}

impl Shared {
    /// No file.
    pub const fn none() -> Self {
        Shared {
            descriptor: AtomicI32::new(-1),
            device: AtomicU64::new(0),
            inode: AtomicU64::new(0),
        }
    }

    /// Whether there is a file.
    pub fn is_some(&self) -> bool {
        self.descriptor.load(Ordering::Relaxed) >= 0
    }

    fn set(&self, file: OwnedFd) {
        let (device, inode) = fs::fstat(&file).map_or((0, 0), |stat| (stat.st_dev, stat.st_ino));
        self.device.store(device, Ordering::Relaxed);
        self.inode.store(inode, Ordering::Relaxed);
        self.descriptor.store(file.into_raw_fd(), Ordering::Relaxed);
    }

    /// Closes the descriptor if it is still the file's.
    ///
    /// # Safety
    /// No other thread of this process runs, which could close or open descriptors meanwhile.
    unsafe fn close(&self) {
        let descriptor = self.descriptor.swap(-1, Ordering::Relaxed);
        if descriptor < 0 {
            return;
        }
        // SAFETY: nobody closes or opens descriptors meanwhile (`# Safety`). The borrowed one is
        // only asked for its file; if it is closed, the answer is an error.
        let file = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let ours = (
            self.device.load(Ordering::Relaxed),
            self.inode.load(Ordering::Relaxed),
        );
        if fs::fstat(file).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == ours) {
            // SAFETY: it is the file that `set` took over, and no other thread runs that could
            // close it.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
}

/// See [`crate::Os::share`].
///
/// # Safety
/// The conditions of [`crate::Os::share`].
pub unsafe fn share(addr: usize, len: usize) -> Result<Shared, Error> {
    let file = create(len)?;
    let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
    // SAFETY: the range is page-aligned and reserved (`# Safety`), so the file replaces nothing of
    // value.
    let mapped = unsafe {
        mm::mmap(
            pointer(addr),
            len,
            ProtFlags::empty(),
            flags,
            file.as_fd(),
            0,
        )
    };
    if let Err(errno) = mapped {
        // SAFETY: the range is the caller's and reserved, so it holds nothing of value.
        unsafe { close_hole(addr, len) }?;
        return Err(errno.into());
    }
    let shared = Shared::none();
    shared.set(file);
    Ok(shared)
}

/// See [`crate::Os::share_anew`].
///
/// # Safety
/// The conditions of [`crate::Os::share_anew`].
pub unsafe fn share_anew(shared: &Shared, addr: usize, len: usize, used: usize) -> bool {
    // SAFETY: no other thread of this process runs (`# Safety`).
    unsafe { shared.close() };
    let file = create(len).ok();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::NORESERVE;
    // SAFETY: the kernel chooses the place of the new mapping. `used` bytes of the old range are
    // committed and can be read (`# Safety`). The new mapping takes the place of the old one, and
    // no other thread runs that could notice.
    unsafe {
        let built = match &file {
            Some(file) => {
                let flags = flags | MapFlags::SHARED;
                mm::mmap(core::ptr::null_mut(), len, access, flags, file, 0)
            }
            None => {
                let flags = flags | MapFlags::PRIVATE;
                mm::mmap_anonymous(core::ptr::null_mut(), len, access, flags)
            }
        };
        let Ok(built) = built else { return false };
        core::ptr::copy_nonoverlapping(pointer(addr).cast::<u8>(), built.cast(), used);
        let flags = MremapFlags::MAYMOVE;
        if mm::mremap_fixed(built, len, len, flags, pointer(addr)).is_err() {
            unreserve(built.expose_provenance(), len);
            return false;
        }
    }
    if let Some(file) = file {
        shared.set(file);
    }
    true
}

/// Creates a file of `len` zero bytes.
fn create(len: usize) -> Result<OwnedFd, Error> {
    // The kernel sends a signal to a process whose file grows beyond this limit.
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes the structure that it is given.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    if limit.rlim_cur < len as u64 {
        return Err(Error::Other(libc::EFBIG));
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match fs::memfd_create(c"theap-stats", flags | MemfdFlags::NOEXEC_SEAL) {
        // Linux before 6.3 does not know NOEXEC_SEAL.
        Err(Errno::INVAL) => fs::memfd_create(c"theap-stats", flags),
        answer => answer,
    }?;
    fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
    fs::ftruncate(&file, len as u64)?;
    fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    // Where the limit of descriptors is lower, the file keeps its first descriptor.
    Ok(io::fcntl_dupfd_cloexec(&file, FIRST_DESCRIPTOR).unwrap_or(file))
}
