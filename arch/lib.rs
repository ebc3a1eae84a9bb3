//! The machine layer of theap: code that is worth writing for one processor.
//!
//! Every path has a plain twin in [`portable`] with the same signature. Where tuned code is at
//! least as fast as its twin, it stands in [`x86_64`] and this crate's root exports it. Where it is
//! not, the tuned code is gone: its module says by how much it lost, and the root exports the twin.
//! Other machines get the twins. The test `twins` compares each pair on the same inputs; the
//! benchmark `twins` times both in interleaved rounds. No function here allocates or asks the
//! system for anything.
//!
//! The last column is the twin's time divided by the tuned code's (AMD EPYC, medians).
//!
//! | path | exported | ratio |
//! |---|---|---|
//! | [`thread_slot!`] in a library | TLS object by assembly | 1.8 to 2.0 |
//! | [`thread_slot!`] in an executable | TLS object by assembly | 1.0 |
//! | [`class_of`], sizes above 1 KiB | through a double | 1.9 to 2.6, see its module |
//! | malloc and free, whole | naked functions, for libraries | 1.0, 7 of 37 instructions less |
//! | [`class_of_tiny`] | twin (a table) | |
//! | [`pop`], [`push`] | twins | assembly had 0.77 to 1.00, see [`x86_64::magazine`] |
//! | [`expand_full`] | AVX2 at run time | 4.9 to 5.4 |
//! | [`expand`] of 1, 16, 35 bits | POPCNT at run time | 1.3, 1.05, 1.0 |
//! | [`expand`] of 36, 64 bits | AVX2 at run time | 1.4, 2.7 |
//! | [`clear`] of 16 to 128 bytes | SSE2, inline | 3.3 to 1.2 |
//! | [`clear`] of other lengths | twin (`memset`) | 1.0 |
//! | [`fill`], [`number`] of 16 bytes and more | SSE2 | a store for 16 bytes, the twin has 16 |
//! | [`cpu_number`] | rseq's thread area | the twin always answers `None`; `sched_getcpu` has 1.0 |
#![no_std]

/// The plain twins.
pub mod portable {
    pub mod bitmap;
    pub mod clear;
    pub mod cpu;
    pub mod magazine;
    pub mod size_class;
    pub mod table;
    pub mod tls;
    pub mod valgrind;
}

/// Tuned code for x86_64 under Linux. Miri, which knows no assembly, gets the twins.
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
pub mod x86_64 {
    pub mod bitmap;
    pub mod clear;
    pub mod cpu;
    pub mod hit;
    pub mod magazine;
    pub mod size_class;
    pub mod table;
    pub mod tls;
    #[cfg(feature = "valgrind")]
    pub mod valgrind;
}

cfg_if::cfg_if! {
    if #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))] {
        use x86_64 as chosen;
        pub use x86_64_thread_slot as thread_slot;
    } else {
        use portable as chosen;
        pub use portable_thread_slot as thread_slot;
    }
}

cfg_if::cfg_if! {
    if #[cfg(all(feature = "valgrind", target_arch = "x86_64", target_os = "linux", not(miri)))] {
        pub use x86_64::valgrind;
    } else {
        pub use portable::valgrind;
    }
}

pub use chosen::bitmap::{expand, expand_full};
pub use chosen::clear::clear;
pub use chosen::cpu::cpu_number;
pub use chosen::magazine::{Magazine, pop, push};
pub use chosen::size_class::{CLASSED_MAX, CLASSES, TINY_MAX, class_of, class_of_tiny};
pub use chosen::table::{fill, number};
pub use portable::size_class::TINY_PLACES;
