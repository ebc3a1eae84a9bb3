//! Running processes that publish the figures of their heap: `theap stats` prints the figures once,
//! `theap top` shows them as they change, `theap trace` shows the heap's events one by one.

mod kernel;
mod process;
mod stats;
mod top;
pub mod trace;

pub use process::Observed;
pub use stats::Stats;
pub use top::Top;
