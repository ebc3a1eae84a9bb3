//! The inner loops of the benchmarks, each of them once. A workload or a row chooses sizes, counts
//! and threads, and says what it reports.
//!
//! - `turnover.rs`: random slots whose blocks are freed or replaced. For the workloads random-mixed
//!   and larson, and the rows mixed, large/mix, aligned/64, server, apart, larson and pool.
//! - `burst.rs`: allocate many, free all in the same order. For the workload burst, the rows burst,
//!   large, sparse, new-delete, zeroed and aligned/4k, and the first chunks of both larsons.
//! - `growth.rs`: allocate, write every page, free nothing. For the workloads first-touch and
//!   growth, and the
//!   rows growth.
//! - `ring.rs`: one thread allocates, another frees. For the workload producer-consumer, and the
//!   rows pairs, ring and fan-in.
//! - `steal.rs`: queues of blocks from which other threads steal. For the row steal.
//!
//! Where a workload and a row have loops of their own for the same idea, the file says what
//! differs: figures stay comparable with earlier ones only if each keeps its instructions.

pub(crate) mod burst;
pub(crate) mod growth;
pub(crate) mod ring;
pub(crate) mod steal;
pub(crate) mod turnover;
