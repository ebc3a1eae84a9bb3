//! The table of rows: the name, the category and the work of each.

use super::Category::{Growth, HitPath, Large, Memory, Resident, Scaling, Single, Threads};
use super::{Budget, Category, PEAK, RESIDENT, TAIL, THROUGHPUT};
use super::{collections, growth, handed, large, memory, rest, single, tasks, threads};
use crate::block::{Aligned, Block, prove, prove_global};
use crate::contender::{Contender, Operators};
use crate::error::Error;
use crate::measure::{Metric, bytes, peak_memory};
use crate::steps::{Sizes, server_blocks, server_mean};

/// One row of the suite.
pub struct Row {
    /// The row's name on the command line and in reports.
    pub name: &'static str,
    /// The group of rows that it belongs to in reports.
    pub category: Category,
    work: Work,
}

/// The work of a [`Row`].
pub(super) enum Work {
    Mixed {
        slots: usize,
        sizes: Sizes,
    },
    Burst {
        count: usize,
        size: usize,
    },
    Server,
    Zeroed {
        count: usize,
        size: usize,
    },
    AlignedLines,
    AlignedPages,
    Collections(fn(Budget) -> Result<Vec<Metric>, Error>),
    LargeBurst {
        count: usize,
        size: usize,
    },
    LargeMix {
        slots: usize,
        sizes: Sizes,
        written: bool,
    },
    SparseLarge {
        blocks: usize,
    },
    NewDelete,
    NewDeleteArray,
    NewDeleteSized,
    Larson {
        threads: usize,
    },
    Pairs {
        pairs: usize,
        sizes: Sizes,
    },
    Ring {
        threads: usize,
    },
    FanIn {
        producers: usize,
    },
    Tasks {
        threads: usize,
    },
    Steal {
        threads: usize,
    },
    Phases {
        threads: usize,
    },
    FalseSharing {
        passive: bool,
    },
    Spawn {
        threads: usize,
    },
    Apart {
        threads: usize,
    },
    Growth {
        ahead: bool,
    },
    Fragments,
    Floor,
    Idle,
    Few,
    Bursts,
    Pool {
        trim: bool,
    },
    Handed,
    Sparse,
    Freed,
    FreedMiddle,
    Packing,
    AllClasses,
}

/// Sizes of a mix of small blocks.
const SMALL: Sizes = Sizes::constant(16, 1024);

/// Sizes of a mix that reaches beyond small blocks.
const WIDE: Sizes = Sizes::constant(16, 32 << 10);

/// Sizes of a mix of large blocks.
const LARGE: Sizes = Sizes::constant(300 << 10, 2 << 20);

/// Sizes of a mix of blocks that take several hugepages.
const HUGE: Sizes = Sizes::constant(5 << 20, 25 << 20);

/// Bytes of an object of C++.
const OBJECT: usize = 64;

/// Slots of a thread whose throughput is compared with that of many threads.
const APART: usize = 256;

const fn mixed(slots: usize) -> Work {
    let sizes = SMALL;
    Work::Mixed { slots, sizes }
}

const fn wide(slots: usize) -> Work {
    let sizes = WIDE;
    Work::Mixed { slots, sizes }
}

const fn burst(count: usize, size: usize) -> Work {
    Work::Burst { count, size }
}

const fn zeroed(count: usize, size: usize) -> Work {
    Work::Zeroed { count, size }
}

const fn large_burst(count: usize, size: usize) -> Work {
    Work::LargeBurst { count, size }
}

const fn huge_mix(written: bool) -> Work {
    let (slots, sizes) = (16, HUGE);
    Work::LargeMix {
        slots,
        sizes,
        written,
    }
}

const fn pairs(pairs: usize, sizes: Sizes) -> Work {
    Work::Pairs { pairs, sizes }
}

impl Work {
    pub(super) fn run<A: Contender>(&self, a: &A, budget: Budget) -> Result<Vec<Metric>, Error> {
        match *self {
            Self::Mixed { slots, sizes } => single::mixed::<A, 1>(a, budget, slots, sizes),
            Self::Burst { count, size } => single::burst(a, budget, count, size, Block::<A>::take),
            Self::Server => single::server(a, budget),
            Self::Zeroed { count, size } => {
                single::burst(a, budget, count, size, Block::<A>::take_zeroed)
            }
            Self::AlignedLines => single::mixed::<A, 64>(a, budget, 1024, SMALL),
            Self::AlignedPages => single::burst(a, budget, 100, 4096, Aligned::<A, 4096>::take),
            Self::Collections(run) => run(budget),
            Self::LargeBurst { count, size } => large::burst(a, budget, count, size),
            Self::LargeMix {
                slots,
                sizes,
                written,
            } => large::mixed(a, budget, slots, sizes, written),
            Self::SparseLarge { blocks } => large::sparse(a, budget, blocks),
            Self::NewDelete => pair(&Operators::<A, false>::of_objects(a)?, budget),
            Self::NewDeleteArray => pair(&Operators::<A, false>::of_arrays(a)?, budget),
            Self::NewDeleteSized => pair(&Operators::<A, true>::of_objects(a)?, budget),
            Self::Larson { threads } => threads::larson(a, budget, threads),
            Self::Pairs { pairs, sizes } => handed::pairs(a, budget, pairs, sizes),
            Self::Ring { threads } => handed::ring(a, budget, threads, SMALL),
            Self::FanIn { producers } => handed::fan_in(a, budget, producers, SMALL),
            Self::Tasks { threads } => tasks::pool(a, budget, threads, SMALL),
            Self::Steal { threads } => handed::steal(a, budget, threads, SMALL),
            Self::Phases { threads } => threads::phases(a, budget, threads, SMALL),
            Self::FalseSharing { passive } => threads::false_sharing(a, budget, 2, passive),
            Self::Spawn { threads } => threads::spawn(a, budget, threads),
            Self::Apart { threads } => threads::apart(a, budget, threads, APART, SMALL),
            Self::Growth { .. } => growth::growth(a),
            Self::Fragments => memory::fragments(a),
            Self::Floor => memory::floor(a),
            Self::Idle => memory::idle(a),
            Self::Few => rest::few(a),
            Self::Bursts => rest::bursts(a, budget),
            Self::Pool { trim } => rest::pool(a, trim),
            Self::Handed => rest::handed(a, budget),
            Self::Sparse => rest::sparse(a),
            Self::Freed => rest::freed(a, budget),
            Self::FreedMiddle => rest::freed_middle(a, budget),
            Self::Packing => rest::packing(a),
            Self::AllClasses => rest::all_classes(a),
        }
    }

    /// The most blocks that the row holds at once, and their mean size in bytes. `None` if the row
    /// writes beyond the first bytes of a block, or has several threads.
    pub(super) fn limits(&self) -> Option<(usize, usize)> {
        match *self {
            Self::Mixed { slots, sizes } => Some((slots, sizes.mean())),
            Self::Burst { count, size } => Some((count, size)),
            Self::Server => Some((server_blocks(), server_mean())),
            _ => None,
        }
    }

    /// Whether the row works through Rust's collections, which use the global allocator.
    pub(super) fn needs_global(&self) -> bool {
        matches!(self, Self::Collections(_))
    }
}

/// Pairs of new and delete of an object.
fn pair<A: Contender>(operators: &A, budget: Budget) -> Result<Vec<Metric>, Error> {
    single::burst(operators, budget, 1, OBJECT, Block::<A>::take)
}

impl Row {
    /// The metric that a reader compares: [`THROUGHPUT`], where more is better, or [`TAIL`],
    /// [`PEAK`] or [`RESIDENT`], where less is better.
    pub fn metric(&self) -> &'static str {
        match self.category {
            Category::Growth => TAIL,
            Category::Memory => PEAK,
            Category::Resident => RESIDENT,
            _ => THROUGHPUT,
        }
    }

    /// Runs the row on `a`.
    ///
    /// # Errors
    /// Fails if a proof fails, memory runs out, or the contender cannot run the row.
    pub fn run<A: Contender>(&self, a: &A, budget: Budget) -> Result<Vec<Metric>, Error> {
        if A::ONE_THREAD && self.category != Category::HitPath {
            let (contender, row) = (A::NAME, self.name);
            return Err(Error::Setup(format!(
                "{contender} runs only rows of one thread on the hit path, not {row}"
            )));
        }
        if let Some((blocks, mean)) = self.work.limits() {
            a.expect(blocks, mean);
        }
        if self.work.needs_global() {
            prove_global(a)?;
        }
        prove(a)?;
        let mut metrics = self.work.run(a, budget)?;
        prove(a)?;
        if metrics.iter().all(|metric| metric.metric != PEAK) {
            metrics.push(bytes(PEAK, peak_memory()?));
        }
        Ok(metrics)
    }

    /// Tells whether the row waits 13 s for memory to be given back, whatever its budget is.
    pub fn waits(&self) -> bool {
        use Work::{Bursts, Freed, FreedMiddle, Handed};
        matches!(self.work, Bursts | Handed | Freed | FreedMiddle)
    }

    /// The option of theap that the row needs, as a variable of the environment and its value. It
    /// must be set when the process starts; other allocators do not know it.
    pub fn setting(&self) -> Option<(&'static str, &'static str)> {
        match self.work {
            Work::Growth { ahead: true } => Some(("THEAP_PREFAULT", "ahead")),
            Work::SparseLarge { .. } => Some(("THEAP_PAGES", "small")),
            _ => None,
        }
    }

    /// Whether the row is about speed, and a random mix or bursts of blocks up to 1 KiB.
    pub fn is_small(&self) -> bool {
        self.category == HitPath
            && match self.work {
                Work::Mixed { .. } => true,
                Work::Burst { size, .. } => size <= 1024,
                _ => false,
            }
    }

    /// Whether the row's name, up to the slash, is one of these words.
    pub fn is_of(&self, families: &[&str]) -> bool {
        let family = self.name.split('/').next();
        family.is_some_and(|family| families.contains(&family))
    }

    /// The number of the row's threads, if its name ends with that number.
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
    "mixed/256" HitPath mixed(256);
    "mixed/8192" HitPath mixed(8192);
    "mixed/100k" HitPath mixed(100_000);
    "mixed/1m" HitPath mixed(1_000_000);
    "mixed-32k/8192" HitPath wide(8192);
    "burst/1x16" HitPath burst(1, 16);
    "burst/1x64" HitPath burst(1, 64);
    "burst/1x256" HitPath burst(1, 256);
    "burst/1x1k" HitPath burst(1, 1024);
    "burst/1x8k" HitPath burst(1, 8 << 10);
    "burst/1x32k" HitPath burst(1, 32 << 10);
    "burst/1x128k" HitPath burst(1, 128 << 10);
    "burst/100x16" HitPath burst(100, 16);
    "burst/100x64" HitPath burst(100, 64);
    "burst/100x256" HitPath burst(100, 256);
    "burst/100x1k" HitPath burst(100, 1024);
    "burst/100x8k" HitPath burst(100, 8 << 10);
    "burst/100x32k" HitPath burst(100, 32 << 10);
    "burst/100x128k" HitPath burst(100, 128 << 10);
    "burst/10kx16" HitPath burst(10_000, 16);
    "burst/10kx64" HitPath burst(10_000, 64);
    "burst/10kx256" HitPath burst(10_000, 256);
    "burst/10kx1k" HitPath burst(10_000, 1024);
    "burst/10kx8k" HitPath burst(10_000, 8 << 10);
    "burst/10kx32k" HitPath burst(10_000, 32 << 10);
    "burst/10kx128k" HitPath burst(10_000, 128 << 10);
    "server" HitPath Work::Server;
    "zeroed/64" Single zeroed(100, 64);
    "zeroed/4k" Single zeroed(100, 4 << 10);
    "zeroed/64k" Single zeroed(100, 64 << 10);
    "aligned/64" Single Work::AlignedLines;
    "aligned/4k" Single Work::AlignedPages;
    "grow/vectors" Single Work::Collections(collections::growing_vectors);
    "grow/strings" Single Work::Collections(collections::growing_strings);
    "grow/64m" Single Work::Collections(collections::growing_large);
    "btree" Single Work::Collections(collections::btree);
    "hash-strings" Single Work::Collections(collections::strings);
    "vectors" Single Work::Collections(collections::vectors);
    "lists" Single Work::Collections(collections::lists);
    "new-delete/object" Single Work::NewDelete;
    "new-delete/array" Single Work::NewDeleteArray;
    "new-delete/sized" Single Work::NewDeleteSized;
    "large/400000" Large large_burst(1, 400_000);
    "large/burst-300k" Large large_burst(200, 300 << 10);
    "large/burst-300k-1000" Large large_burst(1000, 300 << 10);
    "large/mix-300k-2m" Large Work::LargeMix { slots: 64, sizes: LARGE, written: false };
    "large/mix-5m-25m" Large huge_mix(false);
    "large/mix-5m-25m-written" Large huge_mix(true);
    "sparse/3m-1000" Large Work::SparseLarge { blocks: 1000 };
    "sparse/3m-16000" Large Work::SparseLarge { blocks: 16_000 };
    "larson/2" Threads Work::Larson { threads: 2 };
    "larson/8" Threads Work::Larson { threads: 8 };
    "larson/32" Threads Work::Larson { threads: 32 };
    "larson/128" Threads Work::Larson { threads: 128 };
    "pairs/1x64" Threads pairs(1, Sizes::constant(64, 64));
    "pairs/1" Threads pairs(1, SMALL);
    "pairs/4" Threads pairs(4, SMALL);
    "ring/2" Threads Work::Ring { threads: 2 };
    "ring/8" Threads Work::Ring { threads: 8 };
    "fan-in/16" Threads Work::FanIn { producers: 16 };
    "pool/2" Threads Work::Tasks { threads: 2 };
    "pool/8" Threads Work::Tasks { threads: 8 };
    "steal/2" Threads Work::Steal { threads: 2 };
    "steal/8" Threads Work::Steal { threads: 8 };
    "phases/2" Threads Work::Phases { threads: 2 };
    "phases/8" Threads Work::Phases { threads: 8 };
    "false-sharing/active" Threads Work::FalseSharing { passive: false };
    "false-sharing/passive" Threads Work::FalseSharing { passive: true };
    "spawn/2" Threads Work::Spawn { threads: 2 };
    "spawn/8" Threads Work::Spawn { threads: 8 };
    "apart/1" Scaling Work::Apart { threads: 1 };
    "apart/2" Scaling Work::Apart { threads: 2 };
    "apart/8" Scaling Work::Apart { threads: 8 };
    "apart/32" Scaling Work::Apart { threads: 32 };
    "apart/128" Scaling Work::Apart { threads: 128 };
    "growth/512m" Growth Work::Growth { ahead: false };
    "growth/512m-ahead" Growth Work::Growth { ahead: true };
    "rss/fragments" Memory Work::Fragments;
    "rss/floor" Memory Work::Floor;
    "rss/100-idle" Memory Work::Idle;
    "rss/mixed-100k" Memory mixed(100_000);
    "rss/burst-10kx1k" Memory burst(10_000, 1024);
    "rss/burst-10kx8k" Memory burst(10_000, 8 << 10);
    "rss/server" Memory Work::Server;
    "rss/hash-strings" Memory Work::Collections(collections::strings);
    "rss/larson-8" Memory Work::Larson { threads: 8 };
    "rss/pairs-1" Memory pairs(1, SMALL);
    "rss/apart-32" Memory Work::Apart { threads: 32 };
    "rss/100-resting" Resident Work::Few;
    "rss/100-bursts" Resident Work::Bursts;
    "rss/pool" Resident Work::Pool { trim: false };
    "rss/pool-trim" Resident Work::Pool { trim: true };
    "rss/handed-1g" Resident Work::Handed;
    "rss/sparse-trim" Resident Work::Sparse;
    "rss/freed-200m" Resident Work::Freed;
    "rss/freed-90k" Resident Work::FreedMiddle;
    "rss/packing" Resident Work::Packing;
    "rss/all-classes" Resident Work::AllClasses;
};
