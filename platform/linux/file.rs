//! Reading small files of /proc and /sys.

use core::ffi::CStr;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The beginning of a file, as much as the buffer takes; `None` if it cannot be read.
pub fn read<'a>(path: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    // A path without its zero would be copied, a long one to the heap.
    let mut name = [0; 1025];
    name.get_mut(..path.len())?.copy_from_slice(path);
    let path = CStr::from_bytes_until_nul(&name).ok()?;
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut len = 0;
    // These files come whole lines at a time and in one piece: what ends a line ends the file.
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
