//! The size of a block whose address a caller names, as the tables have it.

use crate::classes::CLASSES;
use crate::pool::Location;
use crate::pool::global::existing_arena;

/// Bytes of the block or run that starts at the address, its tail included; 0 for what is no block
/// of the heap, as far as that is known.
pub fn whole_size(block: *const u8) -> usize {
    let address = block as usize;
    let Some(arena) = existing_arena() else {
        return 0;
    };
    match arena.addresses().locate(address) {
        Location::Free => 0,
        Location::Run(_) | Location::Foreign => arena.runs().bytes_at(address).unwrap_or(0),
        Location::Block(part) => {
            let size = CLASSES[part.class.index()].size as usize;
            part.index_of(address).map_or(0, |_| size)
        }
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(debug_assertions, feature = "hardened"))] {
        use crate::classes;
        use crate::geometry::SLOT;
        use crate::messages::{Misuse, misuse};

        /// Ends the process if no block of `size` bytes is at the address, but for what the free
        /// itself finds wrong.
        pub fn check_size(block: *mut u8, size: usize) {
            let address = block as usize;
            let Some(arena) = existing_arena() else {
                return;
            };
            let fits = match arena.addresses().locate(address) {
                Location::Free => true,
                Location::Run(_) | Location::Foreign => {
                    let bytes = arena.runs().bytes_at(address);
                    bytes.is_none_or(|bytes| bytes == size.next_multiple_of(SLOT))
                }
                Location::Block(part) => {
                    classes::class_for(size, 1) == Some(part.class)
                }
            };
            // A block that stayed although its owner made it smaller is larger than the size.
            let is_outsized = || arena.policy().has_outsized() && whole_size(block) >= size;
            if !fits && !is_outsized() {
                misuse(arena.os(), Misuse::WrongSize, address);
            }
        }
    } else {
        /// Release builds trust the size.
        #[inline(always)]
        pub fn check_size(_block: *mut u8, _size: usize) {}
    }
}
