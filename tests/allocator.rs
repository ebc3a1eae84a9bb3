//! Vectors and boxes that take [`Theap`] as an `Allocator` of the crate allocator-api2.
#![cfg(feature = "allocator-api2")]
#![allow(unsafe_code)] // Shrinks and frees blocks.

use allocator_api2::alloc::{Allocator, Layout};
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use std::sync::{Mutex, PoisonError};
use theap::Theap;

/// Held by each test, as one of them seals the heap of all.
static HEAP: Mutex<()> = Mutex::new(());

#[test]
fn vectors_and_boxes_live_on_the_heap() {
    let _alone = HEAP.lock().unwrap_or_else(PoisonError::into_inner);
    let mut numbers = Vec::new_in(Theap::new());
    for i in 0..100_000u64 {
        numbers.push(i);
    }
    numbers.truncate(10);
    numbers.shrink_to_fit();
    assert!(theap::owns(numbers.as_ptr().cast()));
    assert_eq!(numbers.as_slice(), (0..10).collect::<std::vec::Vec<u64>>());
    let boxed = Box::new_in([7u8; 5000], Theap::new());
    assert!(theap::owns(boxed.as_ptr()));
}

#[test]
fn what_cannot_be_had_is_an_error() {
    let _alone = HEAP.lock().unwrap_or_else(PoisonError::into_inner);
    let huge = Layout::from_size_align(isize::MAX as usize - 4095, 4096).unwrap();
    assert!(Theap::new().allocate(huge).is_err());
}

/// To shrink to a smaller alignment leaves the block where it is when there is no other.
#[test]
fn shrinking_never_fails() {
    let _alone = HEAP.lock().unwrap_or_else(PoisonError::into_inner);
    let heap = Theap::new();
    let layout = |size, align| Layout::from_size_align(size, align).unwrap();
    let (old, new) = (layout(1000, 64), layout(800, 8));
    let blocks: std::vec::Vec<_> = (0..500)
        .map(|_| heap.allocate(old).unwrap().cast::<u8>())
        .collect();
    theap::seal();
    let mut filled = std::vec::Vec::new();
    while let Ok(block) = heap.allocate(new) {
        filled.push(block.cast::<u8>());
    }
    // SAFETY: live blocks of these layouts.
    unsafe {
        for block in blocks {
            block.write_bytes(7, old.size());
            let smaller = heap.shrink(block, old, new).unwrap().cast::<u8>();
            assert_eq!(smaller.add(new.size() - 1).read(), 7);
            heap.deallocate(smaller, new);
        }
        for block in filled {
            heap.deallocate(block, new);
        }
    }
    theap::unseal();
    theap::collect();
}
