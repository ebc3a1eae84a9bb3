//! This process publishes files that are no statistics, or lie about what they have.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::{Running, published_by, refused};

/// Publishes a file of `len` bytes that begins with `content`, and hands the process to `look`.
fn published(content: &[u8], len: u64, seals: SealFlag, look: impl FnOnce(&str)) {
    let file: File = memfd_create(c"theap-stats", MFdFlags::MFD_ALLOW_SEALING)
        .unwrap()
        .into();
    file.write_all_at(content, 0).unwrap();
    file.set_len(len).unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    let len = NonZeroUsize::new(len as usize).unwrap();
    // SAFETY: the kernel chooses the place; nobody touches it.
    let map = unsafe {
        mmap(
            None,
            len,
            ProtFlags::PROT_READ,
            MapFlags::MAP_SHARED,
            &file,
            0,
        )
    };
    let map = map.unwrap();
    look(&std::process::id().to_string());
    // SAFETY: mapped above.
    unsafe { munmap(map, len.get()) }.unwrap();
}

/// The beginning of what a real process publishes, and the length of the whole.
fn real() -> (Vec<u8>, u64) {
    let running = Running::start(&[]);
    let file = File::open(published_by(&running.pid)).unwrap();
    let len = file.metadata().unwrap().len();
    let mut bytes = Vec::new();
    file.take(1 << 20).read_to_end(&mut bytes).unwrap();
    (bytes, len)
}

/// One test, as all of it is this one process's appearance.
#[test]
fn a_liar_is_refused() {
    let sealed = SealFlag::F_SEAL_SHRINK;
    let (real, len) = real();
    let changed = |at: usize, value: u64| {
        let mut bytes = real.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    published(&real, len, SealFlag::empty(), |pid| {
        refused(pid, "could become shorter while it is read")
    });
    published(b"x", 1, sealed, |pid| refused(pid, "cut off"));
    published(&[0xA5; 1 << 20], 1 << 20, sealed, |pid| {
        refused(pid, "no statistics of theap")
    });
    published(&real[..4096], 4096, sealed, |pid| refused(pid, "cut off"));
    // The layout's number, and the counts of nodes, heaps, places for heaps, and rings: see `Header`.
    published(&changed(8, 1), len, sealed, |pid| {
        refused(pid, "another build of theap")
    });
    for at in [32, 40, 48, 56] {
        for lie in [1 << 30, u64::MAX, 1 << 60] {
            published(&changed(at, lie), len, sealed, |pid| {
                refused(pid, "cut off")
            });
        }
    }
    // Any number is a number.
    let mut wild = real.clone();
    wild[64..].fill(0xFF);
    published(&wild, len, sealed, |pid| {
        for format in ["text", "json", "prometheus"] {
            let output = crate::stats(pid, format);
            assert!(output.status.success(), "{output:?}");
        }
    });
}
