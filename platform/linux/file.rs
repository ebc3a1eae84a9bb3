//! Reading small files of /proc and /sys.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The beginning of a file, as much as the buffer takes; `None` if it cannot be read.
pub fn read<'a>(path: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
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
