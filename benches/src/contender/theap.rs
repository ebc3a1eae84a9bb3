//! theap as a contender: its address range and its tables prove a block.

use std::ptr::NonNull;

use theap::Theap;

use super::Contender;
use crate::error::Error;

/// The unit of blocks that are larger than every class.
const SLOT: usize = 64 << 10;

impl Contender for Theap {
    const NAME: &'static str = "theap";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        theap::owns(block.as_ptr()) && theap::usable_size(block.as_ptr()) >= size
    }

    fn taken(&self, size: usize) -> usize {
        let classes = (0..).map_while(theap::class_size);
        let fits = |&class: &usize| class >= size;
        { classes }
            .find(fits)
            .unwrap_or(size.next_multiple_of(SLOT))
    }

    fn warm_up(&self, bytes: usize) -> Result<bool, Error> {
        match theap::warm_up(bytes) {
            Ok(()) => Ok(true),
            Err(error) => Err(Error::Setup(format!(
                "theap cannot warm up {bytes} bytes: {error}"
            ))),
        }
    }

    fn trim(&self) -> bool {
        theap::purge();
        true
    }
}
