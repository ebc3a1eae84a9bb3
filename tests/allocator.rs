//! `Theap` as the `Allocator` of allocator-api2: vectors and boxes that name it.
#![cfg(feature = "allocator-api2")]

use allocator_api2::alloc::{Allocator, Layout};
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use theap::Theap;

#[test]
fn vectors_and_boxes_live_on_the_heap() {
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
    let huge = Layout::from_size_align(isize::MAX as usize - 4095, 4096).unwrap();
    assert!(Theap::new().allocate(huge).is_err());
}
