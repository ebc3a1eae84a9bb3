//! The ground that every part of the pool stands on: the parts that all nodes share.

use super::addresses::AddressMap;
use super::affinity::Affinity;
use super::figures::Figures;
use super::metadata::{Metadata, Tables};
use super::policy::Policy;

/// The parts that all nodes of a heap share. Copied into each part above them.
#[derive(Clone, Copy)]
pub struct Ground {
    /// Options and switches.
    pub policy: &'static Policy,
    /// The board, and the pool's events.
    pub figures: &'static Figures,
    /// CPUs and NUMA nodes.
    pub affinity: &'static Affinity,
    /// The range and its tables.
    pub addresses: AddressMap,
    /// The metadata of SuperSlabs and spans.
    pub metadata: Metadata,
    /// The tables for slots and SuperSlabs.
    pub tables: Tables,
}
