//! How a heap is looked through for what is idle there, a few spans at a time. The reclaimer has
//! the heap's lock meanwhile, and the heap's own code does the rest.
#![allow(unsafe_code)] // Names a function that is.

use crate::classes::CLASS_COUNT;
use crate::geometry::{ClassId, SpanId};

/// Takes what is idle out of the heap with this memory, or a part of it.
///
/// # Safety
/// The memory is that of a heap in use, whose lock the caller has as a reclaimer.
pub type TakeIdle = unsafe fn(memory: *mut u8, scan: &mut Scan) -> Look;

/// How far a heap was looked through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// The class at which it goes on.
    pub class: usize,
    /// The partial spans of the class that are left, or `None` at its beginning.
    pub left: Option<usize>,
    /// The thread has rested for long: its spans go to the pool if they have a free block, without
    /// their free pages, and the heap forgets what it has learned. Else those go of which half is
    /// free, as they are.
    pub long: bool,
    /// The part of `decay`, modulo 256, since which the thread has rested.
    pub since: u8,
    /// Bytes of the pages that went.
    pub bytes: usize,
}

/// The outcome of a look into a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A wholly free span was taken out of the heap; it is the pool's and on no list.
    Free(SpanId),
    /// A span of which some blocks are free was; it is the pool's and on no list.
    Partial(SpanId),
    /// There may be more.
    More,
    /// The heap was looked through.
    Done,
}

impl Scan {
    /// The class at which it goes on; `None` at the end.
    pub fn class(&self) -> Option<ClassId> {
        (self.class < CLASS_COUNT).then(|| ClassId::new(self.class))
    }

    /// Goes on with the next class.
    pub fn next_class(&mut self) {
        (self.class, self.left) = (self.class + 1, None);
    }
}
