//! A [`Frame`] tells where an address on the stack lies.

/// The place of an address in the file that it was loaded from. The names are the loader's.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Path of the program or the library, as the loader has it.
    pub file: &'static [u8],
    /// Bytes from the beginning of what was loaded.
    pub offset: usize,
    /// The function, if the file exports it.
    pub name: Option<&'static [u8]>,
}
