//! Text in a fixed buffer: what does not fit is cut off, but counted.

use core::fmt;

/// A buffer and what was written to it.
pub struct Text<'a> {
    buffer: &'a mut [u8],
    /// Bytes of the whole text, which may be more than the buffer takes.
    len: usize,
}

impl<'a> Text<'a> {
    /// No text yet.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Adds text.
    pub fn add(&mut self, text: fmt::Arguments<'_>) {
        // Writing to this buffer does not fail.
        let _ = fmt::write(self, text);
    }

    /// What the buffer holds.
    pub fn held(&self) -> &[u8] {
        &self.buffer[..self.len.min(self.buffer.len())]
    }

    /// Ends the text with a zero byte, over its last byte if it fills the buffer. The length of the whole text
    /// without it.
    pub fn terminate(self) -> usize {
        if let Some(last) = self.buffer.len().checked_sub(1) {
            self.buffer[self.len.min(last)] = 0;
        }
        self.len
    }

    /// Writes the text to standard error, as far as that takes it. Keeps `errno`.
    pub fn send(&self) {
        let mut rest = self.held();
        // SAFETY: the thread's own `errno`; `rest` is readable.
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

/// Says what happened, and ends the process.
#[cold]
pub fn fatal(what: fmt::Arguments<'_>) -> ! {
    let mut buffer = [0; 512];
    let mut text = Text::new(&mut buffer);
    text.add(format_args!("theap: {what}\n"));
    text.send();
    // SAFETY: no precondition.
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
