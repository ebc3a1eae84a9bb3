//! A heap: the spans that one thread owns, and how blocks leave them and come home.
//!
//! For each class a heap has a current span, from which refills take, and a first-in-first-out
//! queue of partial spans. A span that runs full is left to nobody (`pool::metadata::ownership`); a
//! span whose blocks are all free goes back to the pool unless the heap has little else of its
//! class ([`keeping`]). TBACKEND is [`Heap::acquire_span`] and [`Heap::release`].
//!
//! `refill` takes blocks out of spans, `drain` brings them home, `spans` is the life of a heap's
//! spans, `whole` has those that are one block, `idle` is what others may take. Who has its lock
//! uses a heap: its thread, or a reclaimer while that thread rests. Nothing here allocates or waits
//! but where the pool does.

mod drain;
mod idle;
mod keeping;
mod refill;
mod spans;
#[cfg(any(test, debug_assertions))]
mod validity;
mod whole;

cfg_if::cfg_if! {
    if #[cfg(feature = "hardened")] {
        mod random;
        pub use random::Choice;
    } else {
        mod ordered;
        pub use ordered::Choice;
    }
}

cfg_if::cfg_if! {
    if #[cfg(feature = "shared-pool")] {
        mod any_super;
        use any_super::OwnSupers;
    } else {
        mod own_super;
        use own_super::OwnSupers;
    }
}

pub use drain::check_blocks;
#[cfg(all(
    test,
    feature = "shared-pool",
    feature = "stats",
    not(any(feature = "hardened", feature = "valgrind"))
))]
pub use keeping::LEAST_BYTES;
pub use spans::Heap;
