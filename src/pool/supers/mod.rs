//! The SuperSlabs of a node: which of their slots are free, and where room can be found.
//!
//! Taking and giving back slots is lock-free: a hint from [`avail`], then one compare-exchange on
//! the SuperSlab's word ([`slot_word`]). `node_supers` joins the two and counts what is warm;
//! `decay` learns how much of that to keep, `fullest` chooses the SuperSlab that serves next, and
//! `nursed` marks the SuperSlabs that nurseries take from. [`extents`] finds adjacent free ones.

pub mod avail;
pub mod extents;
pub mod slot_word;

cfg_if::cfg_if! {
    if #[cfg(not(loom))] {
        mod decay;
        #[cfg(test)]
        pub mod looks;
        mod node_supers;
        mod nursed;

        pub use decay::{PARTS, parts_of};
        pub use node_supers::{Purging, Supers};
        pub use nursed::{Nursed, Taker};

        cfg_if::cfg_if! {
            if #[cfg(feature = "shared-pool")] {
                mod fullest;
                mod shared;
                use shared::Tags;
            } else {
                mod exclusive;
                use exclusive::Tags;
            }
        }
    }
}
