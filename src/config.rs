//! Options: one table for the const builder, the `THEAP_*` variables and the documentation.
//!
//! A row names an option, its variable, its default and what it does; `docs/operations.md` is checked against the
//! table by a test. A value in the environment wins over one in the program; a wrong value is reported in one line
//! and ignored. Set-uid programs ignore the environment.

use crate::fatal;
use crate::gate::{Classes, Front};
use theap_platform::{Cpus, Os};

/// Which pages the heap is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Hugetlb pages if the pool has any, else transparent hugepages, else small pages. The first SuperSlab of a
    /// process stays on small pages, so that short programs stay cheap.
    Auto,
    /// 2 MiB pages of the hugetlb pool, falling back to `Thp` with one message when the pool is dry.
    Hugetlb,
    /// 1 GiB pages of their hugetlb pool, falling back to `Hugetlb` with one message when it is dry. Memory grows by a
    /// page at a time and never shrinks: to be used with a reserve.
    Hugetlb1g,
    /// Transparent hugepages by `madvise`, falling back to `Small`.
    Thp,
    /// 4 KiB pages.
    Small,
}

impl Pages {
    /// Whether the hugetlb pool is asked for pages.
    pub(crate) const fn takes_hugetlb(self) -> bool {
        !matches!(self, Pages::Thp | Pages::Small)
    }
}

/// What the allocator knows of NUMA nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numa {
    /// Every node has a part of the address range, bound to it; a thread takes memory of the node it runs
    /// on and of the others only when that has none. A thread that stays on another node is followed there.
    Local,
    /// The SuperSlabs of the heap (2 MiB each) are bound to the nodes in turn; every thread takes memory of all.
    Interleave,
    /// Memory is bound to no node: the kernel places it, by its own rules or by the process's memory policy.
    Off,
}

/// Who takes the page faults of new memory on 4 KiB and transparent pages. Hugetlb pages are always populated at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefault {
    /// Whoever touches a page first.
    Off,
    /// The thread for which the heap grows: its allocation takes as long as the kernel needs for the step.
    Grow,
    /// The warmer, a thread of each node that prepares memory before it is needed. Where that is used up, as `Grow`, a
    /// SuperSlab at a time.
    Ahead,
}

/// The options of a heap, usable in a `const`. Fields are documented by [`OPTIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) pages: Pages,
    pub(crate) address_space: usize,
    pub(crate) reserve: usize,
    pub(crate) retain: usize,
    pub(crate) growth: usize,
    pub(crate) prefault: Prefault,
    pub(crate) ahead: usize,
    pub(crate) decay: u64,
    pub(crate) warmer_cpus: Option<Cpus>,
    pub(crate) lock: bool,
    pub(crate) magazine: usize,
    pub(crate) learn: bool,
    pub(crate) budget: usize,
    pub(crate) front: Front,
    pub(crate) classes: Classes,
    pub(crate) numa: Numa,
    pub(crate) publish: bool,
    pub(crate) trace: bool,
    pub(crate) crash_report: bool,
    pub(crate) messages: bool,
}

/// One row of the table of options.
#[derive(Debug)]
pub struct OptionRow {
    /// Name of the builder method.
    pub name: &'static str,
    /// Environment variable.
    pub variable: &'static str,
    /// Default, as it would be written in the variable.
    pub default: &'static str,
    /// What may be written.
    pub values: &'static str,
    /// What it does.
    pub doc: &'static str,
    set: fn(&mut Config, &[u8]) -> bool,
}

impl OptionRow {
    /// Whether the variable takes the value.
    pub fn accepts(&self, value: &[u8]) -> bool {
        (self.set)(&mut Config::new(), value)
    }
}

const BYTES: &str = "bytes; K, M, G, T multiply by 1024";

/// All options.
pub const OPTIONS: &[OptionRow] = &[
    OptionRow {
        name: "pages",
        variable: "THEAP_PAGES",
        default: "auto",
        values: "auto, hugetlb, hugetlb-1g, thp, small",
        doc: "Pages that the heap is made of; each mode falls back to the next one.",
        set: |config, value| {
            store(
                &mut config.pages,
                match value {
                    b"auto" => Some(Pages::Auto),
                    b"hugetlb" => Some(Pages::Hugetlb),
                    b"hugetlb-1g" => Some(Pages::Hugetlb1g),
                    b"thp" => Some(Pages::Thp),
                    b"small" => Some(Pages::Small),
                    _ => None,
                },
            )
        },
    },
    OptionRow {
        name: "address_space",
        variable: "THEAP_ADDRESS_SPACE",
        default: "0",
        values: BYTES,
        doc: "Addresses to reserve, the upper bound of the heap; 0 means four times RAM, at least 64 GiB. Halved until \
              the system grants it, down to 64 MiB.",
        set: |config, value| store(&mut config.address_space, bytes(value)),
    },
    OptionRow {
        name: "reserve",
        variable: "THEAP_RESERVE",
        default: "0",
        values: BYTES,
        doc: "Memory to map and touch at start, as by `warm_up`.",
        set: |config, value| store(&mut config.reserve, bytes(value)),
    },
    OptionRow {
        name: "retain",
        variable: "THEAP_RETAIN",
        default: "256M",
        values: BYTES,
        doc: "Free memory that a node keeps warm; a SuperSlab that becomes free beyond it is given back to the system \
              at once, until the node learns that this is too early.",
        set: |config, value| store(&mut config.retain, bytes(value)),
    },
    OptionRow {
        name: "growth",
        variable: "THEAP_GROWTH",
        default: "32M",
        values: BYTES,
        doc: "Largest step by which the heap grows; steps double from 2 MiB up to it.",
        set: |config, value| store(&mut config.growth, bytes(value)),
    },
    OptionRow {
        name: "prefault",
        variable: "THEAP_PREFAULT",
        default: "off",
        values: "off, grow, ahead",
        doc: "Who takes the page faults of new memory: whoever touches it first, the thread for which the heap grows, or \
              the warmer, ahead of demand.",
        set: |config, value| {
            store(
                &mut config.prefault,
                match value {
                    b"off" => Some(Prefault::Off),
                    b"grow" => Some(Prefault::Grow),
                    b"ahead" => Some(Prefault::Ahead),
                    _ => None,
                },
            )
        },
    },
    OptionRow {
        name: "ahead",
        variable: "THEAP_AHEAD",
        default: "64M",
        values: BYTES,
        doc: "Free, populated memory that each node's warmer keeps in stock at least.",
        set: |config, value| store(&mut config.ahead, bytes(value)),
    },
    OptionRow {
        name: "decay",
        variable: "THEAP_DECAY",
        default: "10000",
        values: "milliseconds",
        doc: "How long memory must have been free before it is given back, beyond `retain` and the warmer's stock, where \
              the warmer or the node's learning keeps it; and how long a thread's learning lasts without need.",
        set: |config, value| store(&mut config.decay, number(value)),
    },
    OptionRow {
        name: "warmer_cpus",
        variable: "THEAP_WARMER_CPUS",
        default: "auto",
        values: "auto, or a list of CPUs below 1024 such as 2,4-7",
        doc: "CPUs on which the warmer runs; auto: those that the process is not pinned to, else all.",
        set: |config, value| match (value, Cpus::parse(value)) {
            (b"auto", _) => store(&mut config.warmer_cpus, Some(None)),
            (_, cpus) => store(&mut config.warmer_cpus, cpus.map(Some)),
        },
    },
    OptionRow {
        name: "lock",
        variable: "THEAP_LOCK",
        default: "0",
        values: "0, 1",
        doc: "Whether the heap's memory, its metadata included, is locked (mlock2 with MLOCK_ONFAULT): the kernel neither \
              swaps nor reclaims what was touched once. Needs RLIMIT_MEMLOCK; over the limit one message, and the rest \
              stays unlocked.",
        set: |config, value| store(&mut config.lock, switch(value)),
    },
    OptionRow {
        name: "magazine",
        variable: "THEAP_MAGAZINE",
        default: "32K",
        values: BYTES,
        doc: "Bytes of free blocks that a thread's magazine of one class may hold, within the class's least and \
              greatest capacity (at most 64K count).",
        set: |config, value| store(&mut config.magazine, bytes(value)),
    },
    OptionRow {
        name: "learn",
        variable: "THEAP_LEARN",
        default: "1",
        values: "0, 1",
        doc: "Whether a thread's magazines grow where its workload overflows and empties them in turn, and shrink \
              again when it no longer does.",
        set: |config, value| store(&mut config.learn, switch(value)),
    },
    OptionRow {
        name: "budget",
        variable: "THEAP_BUDGET",
        default: "0",
        values: BYTES,
        doc: "Bytes of free blocks that all magazines together may hold by learning, beyond their fixed capacities, and of \
              spans that heaps may keep by learning. A thread gets at most half of what the others leave. 0 means a sixteenth of RAM, or of what the process's control group may use or of `address_space`, if that is less.",
        set: |config, value| store(&mut config.budget, bytes(value)),
    },
    OptionRow {
        name: "front",
        variable: "THEAP_FRONT",
        default: "theap",
        values: "theap, classic",
        doc: "What serves most calls: magazines, or the classic front (a small array, then a linked list) for all \
              classes. Without the feature `theap` always the latter.",
        set: |config, value| {
            store(
                &mut config.front,
                match value {
                    b"theap" => Some(Front::Theap),
                    b"classic" => Some(Front::Classic),
                    _ => None,
                },
            )
        },
    },
    OptionRow {
        name: "classes",
        variable: "THEAP_CLASSES",
        default: "all",
        values: "all, or numbers from 0 to 51 and ranges: 0-3,7",
        doc: "Size classes that magazines serve; the classic front serves the others.",
        set: |config, value| store(&mut config.classes, Classes::parse(value)),
    },
    OptionRow {
        name: "numa",
        variable: "THEAP_NUMA",
        default: "local",
        values: "local, interleave, off",
        doc: "Where memory comes from on machines with several NUMA nodes: the thread's node, all nodes in turn, or \
              wherever the kernel places it.",
        set: |config, value| {
            store(
                &mut config.numa,
                match value {
                    b"local" => Some(Numa::Local),
                    b"interleave" => Some(Numa::Interleave),
                    b"off" => Some(Numa::Off),
                    _ => None,
                },
            )
        },
    },
    OptionRow {
        name: "publish",
        variable: "THEAP_PUBLISH",
        default: "0",
        values: "0, 1",
        doc: "Whether `theap stats`, `theap top` and `theap trace` can look at the process: one descriptor, and no work.",
        set: |config, value| store(&mut config.publish, switch(value)),
    },
    OptionRow {
        name: "trace",
        variable: "THEAP_TRACE",
        default: "0",
        values: "0, 1",
        doc: "With `publish`: whether events are recorded from the start, and not only while `theap trace` looks.",
        set: |config, value| store(&mut config.trace, switch(value)),
    },
    OptionRow {
        name: "crash_report",
        variable: "THEAP_CRASH_REPORT",
        default: "0",
        values: "0, 1",
        doc: "Whether the first SIGSEGV, SIGBUS or SIGABRT is reported in one line: what the address is to the heap.",
        set: |config, value| store(&mut config.crash_report, switch(value)),
    },
    OptionRow {
        name: "messages",
        variable: "THEAP_MESSAGES",
        default: "1",
        values: "0, 1",
        doc: "Whether fallbacks and wrong options are reported on stderr. Fatal errors always are.",
        set: |config, value| store(&mut config.messages, switch(value)),
    },
];

fn store<T>(field: &mut T, value: Option<T>) -> bool {
    value.map(|v| *field = v).is_some()
}

fn switch(value: &[u8]) -> Option<bool> {
    match value {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => None,
    }
}

/// Parses a decimal number.
fn number(text: &[u8]) -> Option<u64> {
    bytes(text)
        .filter(|_| text.iter().all(u8::is_ascii_digit))
        .map(|n| n as u64)
}

/// Parses a size: decimal digits and an optional K, M, G or T (also KiB, MiB, …).
fn bytes(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return None;
    }
    let value = number.iter().try_fold(0usize, |sum, digit| {
        sum.checked_mul(10)?.checked_add(usize::from(digit - b'0'))
    })?;
    let shift = match unit {
        b"" => 0,
        b"K" | b"k" | b"KiB" => 10,
        b"M" | b"m" | b"MiB" => 20,
        b"G" | b"g" | b"GiB" => 30,
        b"T" | b"t" | b"TiB" => 40,
        _ => return None,
    };
    value.checked_mul(1 << shift)
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// The defaults of [`OPTIONS`].
    pub const fn new() -> Self {
        Self {
            pages: Pages::Auto,
            address_space: 0,
            reserve: 0,
            retain: 256 << 20,
            growth: 32 << 20,
            prefault: Prefault::Off,
            ahead: 64 << 20,
            decay: 10_000,
            warmer_cpus: None,
            lock: false,
            magazine: 32 << 10,
            learn: true,
            budget: 0,
            front: Front::Theap,
            classes: Classes::ALL,
            numa: Numa::Local,
            publish: false,
            trace: false,
            crash_report: false,
            messages: true,
        }
    }

    /// Pages that the heap is made of.
    pub const fn pages(mut self, pages: Pages) -> Self {
        self.pages = pages;
        self
    }

    /// Bytes of addresses to reserve; 0 means four times RAM, at least 64 GiB.
    pub const fn address_space(mut self, bytes: usize) -> Self {
        self.address_space = bytes;
        self
    }

    /// Bytes to map and touch at start.
    pub const fn reserve(mut self, bytes: usize) -> Self {
        self.reserve = bytes;
        self
    }

    /// Bytes of free memory that a node keeps warm.
    pub const fn retain(mut self, bytes: usize) -> Self {
        self.retain = bytes;
        self
    }

    /// Largest growth step in bytes.
    pub const fn growth(mut self, bytes: usize) -> Self {
        self.growth = bytes;
        self
    }

    /// Who takes the page faults of new memory.
    pub const fn prefault(mut self, prefault: Prefault) -> Self {
        self.prefault = prefault;
        self
    }

    /// Whether the heap's memory is locked.
    pub const fn lock(mut self, on: bool) -> Self {
        self.lock = on;
        self
    }

    /// Bytes that each node's warmer keeps in stock at least.
    pub const fn ahead(mut self, bytes: usize) -> Self {
        self.ahead = bytes;
        self
    }

    /// Milliseconds for which memory must have been free before the warmer gives it back.
    pub const fn decay(mut self, ms: u64) -> Self {
        self.decay = ms;
        self
    }

    /// CPUs on which the warmer runs: a list such as `2,4-7`, or `auto`.
    ///
    /// # Panics
    /// In a `const` this fails to compile: the text is no such list.
    pub const fn warmer_cpus(mut self, list: &str) -> Self {
        self.warmer_cpus = match list.as_bytes() {
            b"auto" => None,
            list => match Cpus::parse(list) {
                None => panic!("not a list of CPUs below 1024"),
                cpus => cpus,
            },
        };
        self
    }

    /// Bytes that a magazine may hold.
    pub const fn magazine(mut self, bytes: usize) -> Self {
        self.magazine = bytes;
        self
    }

    /// Whether magazines grow where the workload overflows them.
    pub const fn learn(mut self, on: bool) -> Self {
        self.learn = on;
        self
    }

    /// Bytes that all magazines may hold by that, and heaps in spans.
    pub const fn budget(mut self, bytes: usize) -> Self {
        self.budget = bytes;
        self
    }

    /// The front at start.
    pub const fn front(mut self, front: Front) -> Self {
        self.front = front;
        self
    }

    /// Classes that magazines serve at start.
    pub const fn classes(mut self, classes: Classes) -> Self {
        self.classes = classes;
        self
    }

    /// NUMA policy.
    pub const fn numa(mut self, numa: Numa) -> Self {
        self.numa = numa;
        self
    }

    /// Whether other processes can read the statistics.
    pub const fn publish(mut self, on: bool) -> Self {
        self.publish = on;
        self
    }

    /// Whether events are recorded from the start.
    pub const fn trace(mut self, on: bool) -> Self {
        self.trace = on;
        self
    }

    /// Whether SIGSEGV, SIGBUS and SIGABRT are reported.
    pub const fn crash_report(mut self, on: bool) -> Self {
        self.crash_report = on;
        self
    }

    /// Whether fallbacks and wrong options are reported.
    pub const fn messages(mut self, on: bool) -> Self {
        self.messages = on;
        self
    }

    /// These options with the environment's on top. Wrong values are reported in one line each and ignored.
    pub(crate) fn with_environment(mut self, os: Os) -> Self {
        // The row that silences messages is the last; what it says counts for the others too.
        if os.env(b"THEAP_MESSAGES", |value| value == Some(b"0")) {
            self.messages = false;
        }
        for row in OPTIONS {
            os.env(row.variable.as_bytes(), |value| {
                if let Some(value) = value
                    && !(row.set)(&mut self, value)
                    && self.messages
                {
                    fatal::wrong_option(os, row, value);
                }
            });
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_what_the_table_says() {
        let mut config = Config::new();
        for row in OPTIONS {
            let before = config;
            assert!(
                (row.set)(&mut config, row.default.as_bytes()),
                "{}",
                row.name
            );
            assert_eq!(config, before, "{}", row.name);
            assert!(!(row.set)(&mut config, b"nonsense"));
            assert!(!(row.set)(&mut config, b""));
            assert_eq!(config, before, "a wrong value changes nothing");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(b"0"), Some(0));
        assert_eq!(bytes(b"17"), Some(17));
        assert_eq!(bytes(b"4K"), Some(4096));
        assert_eq!(bytes(b"3GiB"), Some(3 << 30));
        assert_eq!(bytes(b"99999999999999999999"), None);
        assert_eq!(bytes(b"99999999999999T"), None);
        assert_eq!(bytes(b"K"), None);
        assert_eq!(bytes(b"1 K"), None);
        assert_eq!(bytes(b"-1"), None);
    }
}
