//! Metadata of SuperSlabs, out of line: nothing is ever written into a free block, and a SuperSlab
//! has all its slots for users. One [`SuperMeta`] (36 KiB, 1.8 % of what it describes) belongs to
//! each SuperSlab of the address range; it is zero until used, and zero is valid.
//!
//! `span` says what is known of a span and of a SuperSlab, `ownership` is the protocol of a span's
//! owner and of remote frees, `table` is where the metadata of all SuperSlabs lies,
//! `opening` how the tables for slots and SuperSlabs come to be accessible.

pub mod column;
pub mod ownership;

cfg_if::cfg_if! {
    if #[cfg(not(loom))] {
        mod opening;
        mod span;
        mod table;

        pub use span::{Rest, SpanMeta, SuperMeta};
        #[cfg(any(test, debug_assertions, feature = "hardened"))]
        pub use span::WORDS;
        pub use opening::{STRETCHES, Stretch, Tables};
        pub use table::{DESCRIBED, Metadata};

        cfg_if::cfg_if! {
            if #[cfg(all(feature = "hardened", not(feature = "valgrind")))] {
                mod lives;
                use lives::Lives;
                pub use lives::BlockId;
            } else {
                mod no_lives;
                use no_lives::Lives;
            }
        }
    }
}
