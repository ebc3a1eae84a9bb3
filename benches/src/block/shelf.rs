//! Many blocks in memory of the harness's own, which no contender sees: after a row about memory
//! that is left, the list of its blocks must not be part of what is left.
#![allow(unsafe_code)] // maps memory and reads what it has written there

use std::io::Error as OsError;
use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null_mut};
use std::slice;

use super::{Block, Slot};
use crate::error::Error;

/// A list of slots in a mapping of its own. Dropping it unmaps the list and leaks the blocks.
///
/// Invariant: `slots` is the start of a private mapping with room for `room` slots, and the first
/// `len` of them are written.
pub(crate) struct Shelf<A> {
    slots: NonNull<Slot<A>>,
    len: usize,
    room: usize,
}

// SAFETY: the shelf owns its mapping and the blocks in it, and a block may be sent.
unsafe impl<A> Send for Shelf<A> {}

impl<A> Shelf<A> {
    /// An empty shelf for `room` blocks.
    ///
    /// # Errors
    /// Fails if the kernel refuses the memory.
    pub(crate) fn with_room(room: usize) -> Result<Self, Error> {
        let bytes = room.max(1) * size_of::<Slot<A>>();
        // SAFETY: a new private mapping at an address that the kernel chooses touches no other
        // memory.
        let start = unsafe {
            libc::mmap(
                null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let refused = || {
            let error = OsError::last_os_error();
            Error::Setup(format!("cannot map {bytes} bytes for the harness: {error}"))
        };
        if start == libc::MAP_FAILED {
            return Err(refused());
        }
        let slots = NonNull::new(start.cast()).ok_or_else(refused)?;
        let (len, room) = (0, room.max(1));
        Ok(Self { slots, len, room })
    }

    /// Adds a block behind the others.
    ///
    /// # Panics
    /// Panics if the shelf is full.
    pub(crate) fn push(&mut self, block: Block<A>) {
        assert!(self.len < self.room, "the shelf is full");
        // SAFETY: `len` is below `room`, so the slot is within the mapping, which this value alone
        // uses.
        unsafe { self.slots.add(self.len).write(Some(block)) };
        self.len += 1;
    }

    /// Forgets all slots. Blocks that are still in them leak.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }
}

impl<A> Deref for Shelf<A> {
    type Target = [Slot<A>];

    fn deref(&self) -> &[Slot<A>] {
        // SAFETY: by the type's invariant the first `len` slots are written, and they live as long
        // as `self`.
        unsafe { slice::from_raw_parts(self.slots.as_ptr(), self.len) }
    }
}

impl<A> DerefMut for Shelf<A> {
    fn deref_mut(&mut self) -> &mut [Slot<A>] {
        // SAFETY: by the type's invariant the first `len` slots are written, and `self` is borrowed
        // alone.
        unsafe { slice::from_raw_parts_mut(self.slots.as_ptr(), self.len) }
    }
}

impl<A> Drop for Shelf<A> {
    fn drop(&mut self) {
        let bytes = self.room * size_of::<Slot<A>>();
        // SAFETY: this is the mapping of `with_room`, and nobody can use the shelf any more.
        // Slots need no drop: dropping a block only leaks it.
        unsafe { libc::munmap(self.slots.as_ptr().cast(), bytes) };
    }
}
