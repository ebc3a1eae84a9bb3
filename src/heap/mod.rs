//! A heap: the spans that one thread owns, and how blocks leave them and come home.
//!
//! For each class a heap has a current span, from which refills take, and a first-in-first-out queue of partial
//! spans. A span that runs full is left to nobody (`ownership`); a span whose blocks are all free goes back to the
//! pool unless the heap has little else of its class. TBACKEND is [`Heap::acquire_span`] and [`Arena::release_span`].
//!
//! A heap is used by its thread alone. Nothing here allocates or waits but where the pool does.

pub mod ownership;

cfg_if::cfg_if! {
    if #[cfg(not(loom))] {
        #[cfg(any(test, debug_assertions))]
        mod check;
        mod home;
        #[cfg(feature = "hardened")]
        mod random;
        mod spans;
        mod stock;

        pub use home::{check_blocks, give_without_heap};
        pub use spans::Heap;
    }
}
