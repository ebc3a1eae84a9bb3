//! The spans of the pool: made of free slots, kept while no heap owns them, and given back.
//!
//! A span that has free blocks and no owner is the pool's: it waits in a stash of a CPU ([`stash`],
//! lock-free; [`stashed`] tells which CPUs have some) or on the list of its node ([`queue`], a lock
//! a class; [`inbox`] takes spans while somebody else has the lock). `node_lists` are these lists,
//! `table` makes, keeps and releases spans.

pub mod inbox;
pub mod queue;
pub mod stash;
pub mod stashed;

cfg_if::cfg_if! {
    if #[cfg(not(loom))] {
        mod links;
        mod node_lists;
        mod stage;
        mod table;

        pub use node_lists::NodeLists;
        pub use stage::Stage;
        pub use table::Spans;
    }
}
