//! The pages of a node: which SuperSlabs are mapped, on which pages, and how memory comes from the
//! system and goes back.
//!
//! `claims` is the protocol that says who may map a SuperSlab; `node_pages` keeps the page modes;
//! `grow` adds SuperSlabs, of which `ahead` keeps some in `spare`, and `huge` the runs that are
//! larger than one, of which `shelf` has some that were freed; `prefault` touches memory before it
//! is used; `bridge` has small pages for threads that outrun the warmer; `nursed` keeps small
//! pages for nurseries; `purge` gives memory back, `discard` also from within spans, `bare` their
//! metadata; `collapse` turns small pages into hugepages; `fork` keeps hugetlb pages safe across a
//! fork.

pub mod claims;
pub mod shelf;
pub mod spare;

cfg_if::cfg_if! {
    if #[cfg(not(loom))] {
        mod ahead;
        mod bare;
        mod bridge;
        mod collapse;
        mod demote;
        mod discard;
        pub mod fork;
        mod grow;
        mod huge;
        mod moving;
        mod node_pages;
        mod nursed;
        mod prefault;
        mod purge;
        #[cfg(test)]
        mod tests;

        pub use grow::{Grown, SMALL};
        pub use huge::Huge;
        pub use node_pages::Pages;
    }
}
