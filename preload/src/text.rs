//! Text in a fixed buffer. A text that does not fit ends early, but its whole length counts.
#![allow(unsafe_code)] // Writes to standard error by the C library, and keeps `errno`.

use core::fmt;

/// A buffer and the text in it.
pub struct Text<'a> {
    buffer: &'a mut [u8],
    /// Bytes of the whole text, which may be more than the buffer takes.
    len: usize,
}

impl<'a> Text<'a> {
    /// An empty text in a buffer.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Adds text.
    pub fn add(&mut self, text: fmt::Arguments<'_>) {
        // Writing to this buffer does not fail.
        let _ = fmt::write(self, text);
    }

    /// The part of the text that the buffer holds.
    pub fn held(&self) -> &[u8] {
        &self.buffer[..self.len.min(self.buffer.len())]
    }

    /// Ends the text with a zero byte, which replaces the last byte if the text fills the buffer.
    /// Answers the length of the whole text without the zero.
    pub fn terminate(self) -> usize {
        if let Some(last) = self.buffer.len().checked_sub(1) {
            self.buffer[self.len.min(last)] = 0;
        }
        self.len
    }

    /// Writes the text to standard error, or as much as standard error takes. Keeps `errno`.
    pub fn send(&self) {
        let mut rest = self.held();
        // SAFETY: `errno` is this thread's own and always valid; `rest` is a slice.
        unsafe {
            let errno = libc::__errno_location();
            let kept = *errno;
            while !rest.is_empty() {
                match libc::write(libc::STDERR_FILENO, rest.as_ptr().cast(), rest.len()) {
                    written @ 1.. => rest = &rest[written as usize..],
                    _ if *errno == libc::EINTR => {}
                    _ => break,
                }
            }
            *errno = kept;
        }
    }
}

/// Writes what happened to standard error, and ends the process.
#[cold]
pub fn fatal(what: fmt::Arguments<'_>) -> ! {
    let mut buffer = [0; 512];
    let mut text = Text::new(&mut buffer);
    text.add(format_args!("theap: {what}\n"));
    text.send();
    // SAFETY: abort has no precondition.
    unsafe { libc::abort() }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let at = self.len.min(self.buffer.len());
        let room = &mut self.buffer[at..];
        let part = text.len().min(room.len());
        room[..part].copy_from_slice(&text.as_bytes()[..part]);
        self.len += text.len();
        Ok(())
    }
}
