//! This process publishes files that are no statistics, or lie about what they have.
#![allow(unsafe_code)] // Maps a file that lies.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::{Running, published_by, refused};

/// Publishes a file of `len` bytes that begins with `content`, and hands the process to `observe`.
fn published(content: &[u8], len: u64, seals: SealFlag, observe: impl FnOnce(&str)) {
    let file: File = memfd_create(c"theap-stats", MFdFlags::MFD_ALLOW_SEALING)
        .unwrap()
        .into();
    file.write_all_at(content, 0).unwrap();
    file.set_len(len).unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    let len = NonZeroUsize::new(len as usize).unwrap();
    // SAFETY: the kernel chooses free addresses, and nobody reads or writes there.
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
    observe(&std::process::id().to_string());
    // SAFETY: `map` and `len` are those of the mapping above, which nobody uses.
    unsafe { munmap(map, len.get()) }.unwrap();
}

/// An open FIFO that has the name of the file and no writer: who opens it to read waits.
fn fifo() -> Option<File> {
    let path = "/memfd:theap-stats";
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).ok()?;
    let open = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    std::fs::remove_file(path).unwrap();
    Some(open.unwrap())
}

/// The beginning of the file that a real process publishes, and the length of the whole.
fn real() -> (Vec<u8>, u64) {
    let running = Running::start(&[]);
    let file = File::open(published_by(&running.pid)).unwrap();
    let len = file.metadata().unwrap().len();
    let mut bytes = Vec::new();
    file.take(1 << 20).read_to_end(&mut bytes).unwrap();
    (bytes, len)
}

/// One test has all cases, because the files are those of this one process.
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
    // The layout's number, and the counts of nodes, heaps, places for heaps, and rings: see
    // `Header`.
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
    // The file has room for these counts, which are more than a reader accepts.
    for (at, lie) in [(48, 65_537), (56, 1025)] {
        published(&changed(at, lie), 1 << 30, sealed, |pid| {
            refused(pid, "cut off")
        });
    }
    // The test opens this file first, so a reader meets it first.
    if let Some(_fifo) = fifo() {
        published(&real, len, sealed, |pid| {
            let output = crate::stats(pid, "text");
            assert!(output.status.success(), "{output:?}");
        });
    } else {
        eprintln!("skipped: a FIFO of that name needs root");
    }
    // Any bits are a number.
    let mut wild = real.clone();
    wild[64..].fill(0xFF);
    published(&wild, len, sealed, |pid| {
        for format in ["text", "json", "prometheus"] {
            let output = crate::stats(pid, format);
            assert!(output.status.success(), "{output:?}");
        }
    });
}
