//! Messages without allocation.

use core::fmt;

/// One line of text of at most `N` bytes, built by chained calls and sent with [`Line::send`]. The
/// line ends early if the text does not fit.
///
/// ```
/// use theap_platform::{Line, Os};
/// Line::new().str("theap: ").dec(3).str(" of ").bytes(6 << 20).send(Os::LINUX);
/// ```
#[derive(Clone)]
pub struct Line<const N: usize> {
    text: [u8; N],
    len: usize,
}

impl Line<256> {
    /// An empty line of the usual size.
    pub const fn new() -> Self {
        Line::sized()
    }
}

impl Default for Line<256> {
    fn default() -> Self {
        Line::new()
    }
}

impl<const N: usize> Line<N> {
    /// An empty line of any size.
    pub const fn sized() -> Self {
        Line {
            text: [0; N],
            len: 0,
        }
    }

    /// Adds text.
    pub fn str(self, text: &str) -> Self {
        self.raw(text.as_bytes())
    }

    /// Adds bytes as they are, for instance a value of the environment.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.push(bytes);
        self
    }

    /// Adds a number in decimal.
    pub fn dec(mut self, number: u64) -> Self {
        self.digits(number, 10);
        self
    }

    /// Adds a number in hexadecimal, with `0x`.
    pub fn hex(self, number: u64) -> Self {
        let mut line = self.str("0x");
        line.digits(number, 16);
        line
    }

    /// Adds a number of bytes: in MiB or KiB if it is a whole number of them, else in bytes.
    pub fn bytes(self, number: u64) -> Self {
        const MIB: u64 = 1 << 20;
        const KIB: u64 = 1 << 10;
        match number {
            0 => self.str("0 bytes"),
            n if n % MIB == 0 => self.dec(n / MIB).str(" MiB"),
            n if n % KIB == 0 => self.dec(n / KIB).str(" KiB"),
            n => self.dec(n).str(" bytes"),
        }
    }

    /// Adds anything printable whose `fmt` does not allocate, such as [`crate::Error`].
    pub fn show(mut self, value: impl fmt::Display) -> Self {
        // Only the `fmt` of `value` can fail; the text of `value` then ends early.
        let _ = fmt::write(&mut self, format_args!("{value}"));
        self
    }

    /// The text so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }

    /// Ends the line with a newline, which always fits.
    pub(crate) fn end(&mut self) {
        self.len = self.len.min(N.saturating_sub(1));
        self.push(b"\n");
    }

    /// Out of line, as messages are many, and their code is to be small.
    #[inline(never)]
    fn push(&mut self, bytes: &[u8]) {
        let n = bytes.len().min(N - self.len);
        self.text[self.len..self.len + n].copy_from_slice(&bytes[..n]);
        self.len += n;
    }

    #[inline(never)]
    fn digits(&mut self, mut number: u64, base: u64) {
        let mut digits = [0; 20];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b"0123456789abcdef"[(number % base) as usize];
            number /= base;
            if number == 0 {
                return self.push(&digits[first..]);
            }
        }
    }
}

impl<const N: usize> fmt::Write for Line<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}
