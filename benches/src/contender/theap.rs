//! theap as a contender: its address range and its tables prove a block.

use std::ptr::NonNull;

use theap::Theap;

use super::Contender;
use crate::error::Error;

impl Contender for Theap {
    const NAME: &'static str = "theap";

    fn owns(&self, block: NonNull<u8>, size: usize) -> bool {
        theap::owns(block.as_ptr()) && theap::usable_size(block.as_ptr()) >= size
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
