//! Reading small files of /proc and /sys.
#![allow(unsafe_code)] // Maps room for a text.

use core::ffi::CStr;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::PAGE;

/// Bytes of the longest path that [`read`] takes, and a zero.
const NAME: usize = 128;
/// Bytes of room for texts, and those where there is no memory for so many.
const ROOM: usize = 2 * PAGE;
const FEW: usize = 512;

/// Calls `work` with room for texts: two pages, not on the stack, which may be small, but mapped
/// for as long as that takes.
pub fn with_room<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: the kernel chooses a place where nothing is.
    match unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), ROOM, access, flags) } {
        Ok(room) => {
            // SAFETY: mapped just now, zero, and nobody else's until it is unmapped below.
            let done = work(unsafe { core::slice::from_raw_parts_mut(room.cast(), ROOM) });
            // SAFETY: mapped above; the slice has ended.
            let _ = unsafe { rustix::mm::munmap(room, ROOM) };
            done
        }
        Err(_) => work(&mut [0; FEW]),
    }
}

/// Reads the beginning of a file, as much as the buffer takes; `None` if the file cannot be read.
#[inline(never)]
pub fn read<'a>(path: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    // rustix copies a path that does not end with a zero, a long one to the heap.
    let mut name = [0; NAME];
    name.get_mut(..path.len())?.copy_from_slice(path);
    read_at(CStr::from_bytes_until_nul(&name).ok()?, buffer)
}

/// Reads a file as [`read`] does, by a path of any length.
pub fn read_at<'a>(path: &CStr, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut len = 0;
    // The kernel gives these files in whole lines and in one piece: a piece that ends with the end
    // of a line is the last.
    while len < buffer.len() && !buffer[..len].ends_with(b"\n") {
        match rustix::io::read(&file, &mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(&buffer[..len])
}

/// The number after `name` at the start of a line of the text; `None` if no line starts so.
pub fn field(text: &[u8], name: &[u8]) -> Option<usize> {
    let line = text
        .split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(name))?;
    let digits = line
        .trim_ascii_start()
        .iter()
        .take_while(|b| b.is_ascii_digit());
    Some(digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}
