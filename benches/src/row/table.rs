//! The table of rows, and what each of them runs.

use super::Category::{HitPath, Memory, Scaling, Single, Threads};
use super::{Budget, Row, collections, memory, single, steps, threads};
use crate::block::{Aligned, Block};
use crate::{Contender, Error, Metric};

/// Sizes of a mix of small blocks, in bytes.
const SMALL: (u32, u32) = (16, 1024);

/// The cases of [`Row`].
pub(super) enum Work {
    /// Slots.
    Mixed(usize),
    /// Slots; sizes up to 32 KiB.
    Wide(usize),
    /// Blocks, bytes.
    Burst(usize, usize),
    Server,
    /// Blocks, bytes.
    Zeroed(usize, usize),
    AlignedLines,
    AlignedPages,
    /// Rust's collections.
    Collections(fn(Budget) -> Result<Vec<Metric>, Error>),
    /// Threads.
    Larson(usize),
    /// Pairs, sizes.
    Pairs(usize, (u32, u32)),
    /// Threads.
    Ring(usize),
    /// Threads.
    Steal(usize),
    /// Threads.
    Phases(usize),
    /// Threads, whether they are given blocks first.
    FalseSharing(usize, bool),
    /// Threads at once.
    Spawn(usize),
    /// Threads.
    Apart(usize),
    Fragments,
    Floor,
    Idle,
}

/// Slots of a thread whose throughput is compared with that of many threads.
const APART: usize = 256;

impl Work {
    pub(super) fn run<A: Contender>(&self, a: &A, budget: Budget) -> Result<Vec<Metric>, Error> {
        match *self {
            Self::Mixed(slots) => single::mixed::<A, 1>(a, budget, slots, SMALL),
            Self::Wide(slots) => single::mixed::<A, 1>(a, budget, slots, (16, 32 << 10)),
            Self::Burst(count, size) => single::burst(a, budget, count, size, Block::<A>::take),
            Self::Server => single::server(a, budget),
            Self::Zeroed(count, size) => {
                single::burst(a, budget, count, size, Block::<A>::take_zeroed)
            }
            Self::AlignedLines => single::mixed::<A, 64>(a, budget, 1024, SMALL),
            Self::AlignedPages => single::burst(a, budget, 100, 4096, Aligned::<A, 4096>::take),
            Self::Collections(run) => run(budget),
            Self::Larson(count) => threads::larson(a, budget, count),
            Self::Pairs(pairs, sizes) => threads::pairs(a, budget, pairs, sizes),
            Self::Ring(count) => threads::ring(a, budget, count, SMALL),
            Self::Steal(count) => threads::steal(a, budget, count),
            Self::Phases(count) => threads::phases(a, budget, count),
            Self::FalseSharing(count, passive) => threads::false_sharing(a, budget, count, passive),
            Self::Spawn(count) => threads::spawn(a, budget, count),
            Self::Apart(count) => threads::apart(a, budget, count, APART, SMALL),
            Self::Fragments => memory::fragments(a),
            Self::Floor => memory::floor(a),
            Self::Idle => memory::idle(a),
        }
    }

    /// How many blocks it holds at once, and their mean size in bytes, where it writes only to their first bytes.
    pub(super) fn limits(&self) -> Option<(usize, usize)> {
        match *self {
            Self::Mixed(slots) => Some((slots, 520)),
            Self::Wide(slots) => Some((slots, 16_400)),
            Self::Burst(count, size) => Some((count, size)),
            Self::Server => Some((steps::server_blocks(), steps::server_mean())),
            _ => None,
        }
    }

    pub(super) fn needs_global(&self) -> bool {
        matches!(self, Self::Collections(_))
    }
}

impl Row {
    /// Whether it is a random mix, or bursts of blocks up to 1 KiB, and about speed.
    pub fn is_small(&self) -> bool {
        self.category == HitPath
            && match self.work {
                Work::Mixed(_) | Work::Wide(_) => true,
                Work::Burst(_, size) => size <= 1024,
                _ => false,
            }
    }

    /// Whether its name begins with one of these words, up to the slash.
    pub fn is_of(&self, families: &[&str]) -> bool {
        let family = self.name.split('/').next();
        family.is_some_and(|family| families.contains(&family))
    }

    /// How many threads it has, where its name tells.
    pub fn threads(&self) -> Option<usize> {
        self.name.split_once('/')?.1.parse().ok()
    }
}

macro_rules! rows {
    ($($name:literal $category:ident $work:expr;)*) => {
        &[$(Row { name: $name, category: $category, work: $work }),*]
    };
}

/// Every row, in the order of a report.
pub const ROWS: &[Row] = rows! {
    "mixed/256" HitPath Work::Mixed(256);
    "mixed/8192" HitPath Work::Mixed(8192);
    "mixed/100k" HitPath Work::Mixed(100_000);
    "mixed/1m" HitPath Work::Mixed(1_000_000);
    "mixed-32k/8192" HitPath Work::Wide(8192);
    "burst/1x16" HitPath Work::Burst(1, 16);
    "burst/1x64" HitPath Work::Burst(1, 64);
    "burst/1x256" HitPath Work::Burst(1, 256);
    "burst/1x1k" HitPath Work::Burst(1, 1024);
    "burst/1x8k" HitPath Work::Burst(1, 8 << 10);
    "burst/1x32k" HitPath Work::Burst(1, 32 << 10);
    "burst/1x128k" HitPath Work::Burst(1, 128 << 10);
    "burst/100x16" HitPath Work::Burst(100, 16);
    "burst/100x64" HitPath Work::Burst(100, 64);
    "burst/100x256" HitPath Work::Burst(100, 256);
    "burst/100x1k" HitPath Work::Burst(100, 1024);
    "burst/100x8k" HitPath Work::Burst(100, 8 << 10);
    "burst/100x32k" HitPath Work::Burst(100, 32 << 10);
    "burst/100x128k" HitPath Work::Burst(100, 128 << 10);
    "burst/10kx16" HitPath Work::Burst(10_000, 16);
    "burst/10kx64" HitPath Work::Burst(10_000, 64);
    "burst/10kx256" HitPath Work::Burst(10_000, 256);
    "burst/10kx1k" HitPath Work::Burst(10_000, 1024);
    "burst/10kx8k" HitPath Work::Burst(10_000, 8 << 10);
    "burst/10kx32k" HitPath Work::Burst(10_000, 32 << 10);
    "burst/10kx128k" HitPath Work::Burst(10_000, 128 << 10);
    "server" HitPath Work::Server;
    "zeroed/64" Single Work::Zeroed(100, 64);
    "zeroed/4k" Single Work::Zeroed(100, 4 << 10);
    "zeroed/64k" Single Work::Zeroed(100, 64 << 10);
    "aligned/64" Single Work::AlignedLines;
    "aligned/4k" Single Work::AlignedPages;
    "grow/vectors" Single Work::Collections(collections::growing_vectors);
    "grow/strings" Single Work::Collections(collections::growing_strings);
    "grow/64m" Single Work::Collections(collections::growing_large);
    "btree" Single Work::Collections(collections::btree);
    "hash-strings" Single Work::Collections(collections::strings);
    "vectors" Single Work::Collections(collections::vectors);
    "lists" Single Work::Collections(collections::lists);
    "larson/2" Threads Work::Larson(2);
    "larson/8" Threads Work::Larson(8);
    "larson/32" Threads Work::Larson(32);
    "larson/128" Threads Work::Larson(128);
    "pairs/1x64" Threads Work::Pairs(1, (64, 64));
    "pairs/1" Threads Work::Pairs(1, SMALL);
    "pairs/4" Threads Work::Pairs(4, SMALL);
    "ring/2" Threads Work::Ring(2);
    "ring/8" Threads Work::Ring(8);
    "steal/2" Threads Work::Steal(2);
    "steal/8" Threads Work::Steal(8);
    "phases/2" Threads Work::Phases(2);
    "phases/8" Threads Work::Phases(8);
    "false-sharing/active" Threads Work::FalseSharing(2, false);
    "false-sharing/passive" Threads Work::FalseSharing(2, true);
    "spawn/2" Threads Work::Spawn(2);
    "spawn/8" Threads Work::Spawn(8);
    "apart/1" Scaling Work::Apart(1);
    "apart/2" Scaling Work::Apart(2);
    "apart/8" Scaling Work::Apart(8);
    "apart/32" Scaling Work::Apart(32);
    "apart/128" Scaling Work::Apart(128);
    "rss/fragments" Memory Work::Fragments;
    "rss/floor" Memory Work::Floor;
    "rss/100-idle" Memory Work::Idle;
    "rss/mixed-100k" Memory Work::Mixed(100_000);
    "rss/burst-10kx1k" Memory Work::Burst(10_000, 1024);
    "rss/burst-10kx8k" Memory Work::Burst(10_000, 8 << 10);
    "rss/server" Memory Work::Server;
    "rss/hash-strings" Memory Work::Collections(collections::strings);
    "rss/larson-8" Memory Work::Larson(8);
    "rss/pairs-1" Memory Work::Pairs(1, SMALL);
    "rss/apart-32" Memory Work::Apart(32);
};
