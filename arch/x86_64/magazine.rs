//! Magazine pop and push: the twins, because hand-written assembly lost to them.
//!
//! rustc compiles a pop's hit path to the code that one would write by hand (load, load, test and
//! branch, subtract, store), and the caller's test for null is that same test. Assembly cannot hand
//! flags, or a jump together with an output, to its caller, so there the code tests the pointer
//! twice; a push by assembly can jump, but fixes the order of instructions and the addressing mode.
//!
//! Measured on an AMD EPYC in a whole allocation and free, as a multiple of the twin's speed: pop
//! and push by assembly 0.77 to 1.00; with the header changed in memory (`sub qword ptr [m], 8`)
//! 0.84 to 0.96; only push by assembly 0.84 to 1.00.

pub use crate::portable::magazine::{Magazine, pop, push};
