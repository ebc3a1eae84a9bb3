//! The mappings of this process, as `/proc/self/smaps` tells of them.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::file;
use crate::{Error, Mapping};

/// A reader of lines, which come in pieces.
struct Lines<'a> {
    room: &'a mut [u8],
    /// Bytes of a line that has not ended yet.
    held: usize,
    /// The rest of this line did not fit, and is left out.
    cut: bool,
}

/// See [`crate::Os::each_mapping`].
pub fn each(each: &mut dyn FnMut(&Mapping)) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(c"/proc/self/smaps", flags, Mode::empty()) else {
        return Err(Error::Unsupported);
    };
    file::with_room(|room| {
        let mut lines = Lines {
            room,
            held: 0,
            cut: false,
        };
        let mut mapped = Mapping::default();
        loop {
            match rustix::io::read(&file, &mut lines.room[lines.held..]) {
                Ok(0) => break,
                Ok(more) => lines.take(more, &mut |line| understand(line, &mut mapped, each)),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Error::Unsupported),
            }
        }
        if mapped.end != 0 {
            each(&mapped);
        }
        Ok(())
    })
}

impl Lines<'_> {
    /// Gives `each` the lines that end in the next `more` bytes, and moves the rest to the front. A
    /// line longer than the room is cut.
    fn take(&mut self, more: usize, each: &mut dyn FnMut(&[u8])) {
        let end = self.held + more;
        let mut from = 0;
        while let Some(len) = self.room[from..end].iter().position(|&byte| byte == b'\n') {
            if !core::mem::take(&mut self.cut) {
                each(&self.room[from..from + len]);
            }
            from += len + 1;
        }
        if from == 0 && end == self.room.len() {
            if !core::mem::replace(&mut self.cut, true) {
                each(self.room);
            }
            self.held = 0;
            return;
        }
        self.room.copy_within(from..end, 0);
        self.held = end - from;
    }
}

/// Adds what a line tells to its mapping. The line that begins another mapping ends the one before.
fn understand(line: &[u8], mapped: &mut Mapping, each: &mut dyn FnMut(&Mapping)) {
    if let Some((start, end)) = range(line) {
        if mapped.end != 0 {
            each(mapped);
        }
        *mapped = Mapping {
            start,
            end,
            ..Mapping::default()
        };
        return;
    }
    let kib = |name: &[u8]| file::field(line, name).map_or(0, |kib| kib as u64 * 1024);
    mapped.rss += kib(b"Rss:");
    mapped.thp += kib(b"AnonHugePages:") + kib(b"ShmemPmdMapped:");
    mapped.hugetlb += kib(b"Shared_Hugetlb:") + kib(b"Private_Hugetlb:");
    mapped.swapped += kib(b"Swap:");
}

/// The addresses at the beginning of a line; `None` for a line with another beginning.
fn range(line: &[u8]) -> Option<(usize, usize)> {
    let word = line.split(|&byte| byte == b' ').next()?;
    let mut ends = word.split(|&byte| byte == b'-').map(|digits| {
        let text = core::str::from_utf8(digits).ok()?;
        usize::from_str_radix(text, 16).ok()
    });
    Some((ends.next()??, ends.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const TEXT: &str = "55d0a000-55d0c000 r--p 00000000 08:01 77 /a file\nSize: 8 kB\nRss:    8 kB\n\
        AnonHugePages: 4 kB\nSwap: 12 kB\nVmFlags: rd mr\n\
        7f00-8f00 rw-p 0 00:00 0\nRss: 16 kB\nPrivate_Hugetlb: 2048 kB\nShared_Hugetlb: 2048 kB\n";

    /// The mappings of the text, read in pieces of so many bytes into room for so many.
    fn read(text: &str, piece: usize, room: usize) -> Vec<(usize, usize, [u64; 4])> {
        let mut seen = Vec::new();
        let mut mapped = Mapping::default();
        let mut each = |m: &Mapping| {
            seen.push((
                m.start,
                m.end,
                [m.rss, m.thp, m.hugetlb, m.swapped].map(|b| b >> 10),
            ));
        };
        let mut room = vec![0; room];
        let mut lines = Lines {
            room: &mut room,
            held: 0,
            cut: false,
        };
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let held = lines.held;
            let n = piece.min(rest.len()).min(lines.room.len() - held);
            lines.room[held..held + n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            lines.take(n, &mut |line| understand(line, &mut mapped, &mut each));
        }
        each(&mapped);
        seen
    }

    #[test]
    fn every_piece_gives_the_same() {
        let wanted = [
            (0x55d0_a000, 0x55d0_c000, [8, 4, 0, 12]),
            (0x7f00, 0x8f00, [16, 0, 4096, 0]),
        ];
        for piece in [1, 7, 30, 4096] {
            assert_eq!(read(TEXT, piece, 4096), wanted, "pieces of {piece}");
            assert_eq!(read(TEXT, piece, 64), wanted, "pieces of {piece}");
        }
    }

    #[test]
    fn a_long_name_is_cut() {
        let text = TEXT.replace("/a file", &"x".repeat(500));
        assert_eq!(read(&text, 50, 100), read(TEXT, 50, 100));
    }
}
