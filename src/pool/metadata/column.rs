//! A table with a value for each SuperSlab of a part or for each heap, whose memory comes to be
//! accessible from the front on, as SuperSlabs and heaps come to be.
#![allow(unsafe_code)] // Reaches values by pointer, as the rest of the table may not be there.

use core::marker::PhantomData;

/// The table. Unlike a slice it promises nothing of the values that nobody asks for.
#[derive(Debug)]
pub struct Column<'a, T> {
    first: *const T,
    len: usize,
    values: PhantomData<&'a [T]>,
}

impl<T> Clone for Column<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Column<'_, T> {}

// SAFETY: a column lends shared references, as a slice does.
unsafe impl<T: Sync> Send for Column<'_, T> {}
// SAFETY: as for Send.
unsafe impl<T: Sync> Sync for Column<'_, T> {}

impl<'a, T> From<&'a [T]> for Column<'a, T> {
    fn from(values: &'a [T]) -> Self {
        Self {
            first: values.as_ptr(),
            len: values.len(),
            values: PhantomData,
        }
    }
}

impl<'a, T> Column<'a, T> {
    /// The table of `len` values at an address.
    ///
    /// # Safety
    /// The addresses are the table's for `'a`. Nobody asks for a value before it is accessible and
    /// valid, which it then stays.
    pub const unsafe fn new(address: usize, len: usize) -> Self {
        Self {
            first: core::ptr::with_exposed_provenance(address),
            len,
            values: PhantomData,
        }
    }

    /// The number of values that there is room for.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// A value.
    #[inline]
    pub fn at(&self, index: usize) -> &'a T {
        assert!(index < self.len);
        // SAFETY: a place of the table, of which nobody asks before it is accessible (`new`), or of
        // a slice.
        unsafe { &*self.first.add(index) }
    }
}
