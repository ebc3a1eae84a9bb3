//! Reading small files of /proc and /sys.

use core::ffi::CStr;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Reads the beginning of a file, as much as the buffer takes; `None` if the file cannot be read.
pub fn read<'a>(path: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    // rustix copies a path that does not end with a zero, a long one to the heap.
    let mut name = [0; 1025];
    name.get_mut(..path.len())?.copy_from_slice(path);
    let path = CStr::from_bytes_until_nul(&name).ok()?;
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
