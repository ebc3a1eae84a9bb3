//! The options of a heap: one table for the const builder, the `THEAP_*` variables and the
//! documentation.
//!
//! A row of `options!` is all that there is of an option: its name, its variable, its default, the
//! form of its values and what it does. `docs/operations.md` is checked against the rows by a test.
//! A value in the environment wins over one in the program; a wrong value is reported in one line
//! and ignored. Set-uid programs ignore the environment.

mod forms;

use crate::choices::choices;
use crate::gate::{Classes, Front};
use crate::messages;
use forms::{
    AUTO_BYTES, BYTES, CALLS, CLASSES, CPUS, FOREIGN, FRONT, MILLISECONDS, NUMA, PAGES, PREFAULT,
    SWITCH,
};
use theap_platform::{Cpus, Os};

choices! {
    /// The pages that the heap is made of.
    pub enum Pages {
        /// Hugetlb pages if the pool has any, else transparent hugepages, else small pages. The
        /// first 8 MiB of a process stay on small pages, so that small programs stay cheap, unless
        /// it asks for memory ahead (`warm_up`, `reserve`).
        Auto = "auto",
        /// 2 MiB pages of the hugetlb pool, falling back to `Thp` with one message when the pool is
        /// dry.
        Hugetlb = "hugetlb",
        /// 1 GiB pages of their hugetlb pool, falling back to `Hugetlb` with one message when that
        /// pool is dry. Memory grows by a page at a time and never shrinks: use this mode with the
        /// option `reserve`.
        Hugetlb1g = "hugetlb-1g",
        /// Transparent hugepages by `madvise`, falling back to `Small`.
        Thp = "thp",
        /// 4 KiB pages.
        Small = "small",
    }
}

impl Pages {
    /// Whether the heap asks the hugetlb pool for pages.
    pub(crate) const fn takes_hugetlb(self) -> bool {
        !matches!(self, Pages::Thp | Pages::Small)
    }
}

choices! {
    /// The NUMA node that memory comes from.
    pub enum Numa {
        /// Every node has a part of the address range, bound to it. A thread takes memory of the
        /// node that it runs on, and of another node only when its own has none. When a thread
        /// stays on another node, its heap follows it.
        Local = "local",
        /// The SuperSlabs of the heap (2 MiB each) are bound to the nodes in turn; every thread
        /// takes memory of all.
        Interleave = "interleave",
        /// Memory is bound to no node: the kernel places it, by its own rules or by the process's
        /// memory policy.
        Off = "off",
    }
}

choices! {
    /// What becomes of blocks that are not the heap's.
    pub enum Foreign {
        /// The shared library hands what it can tell to be a block of the C library over to the C
        /// library, and reports that once. Everything else ends the process. Plugins that look for
        /// malloc in the C library (RTLD_DEEPBIND) find the shared library's.
        HandOver = "hand-over",
        /// The same, but such plugins find the C library's malloc.
        Apart = "apart",
        /// The process ends with a message.
        Abort = "abort",
    }
}

choices! {
    /// The system calls that the heap makes after its start.
    pub enum Calls {
        /// All that it knows.
        All = "all",
        /// mmap, munmap, mprotect and madvise (MADV_DONTNEED), and futex where threads wait for
        /// each other; for programs that forbid themselves the rest. All addresses are reserved at
        /// the start. Hugetlb pages, `prefault`, `lock` and interleaving need other calls, and are
        /// not used.
        Plain = "plain",
    }
}

choices! {
    /// The thread that takes the page faults of new memory on 4 KiB and transparent pages. Hugetlb
    /// pages are always populated at once.
    pub enum Prefault {
        /// The thread that touches a page first.
        Off = "off",
        /// The thread for which the heap grows: its allocation takes as long as the kernel needs
        /// for the step.
        Grow = "grow",
        /// The warmer, a thread of each node that prepares memory before it is needed. Where all
        /// prepared memory is used up, the thread that touches a page first, on small pages, which
        /// the warmer collapses later.
        Ahead = "ahead",
    }
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
    /// Unit of a number; empty for an option that is no number.
    pub unit: &'static str,
    /// The values that may be written.
    pub values: &'static str,
    /// The effect of the option, in a sentence.
    pub doc: &'static str,
    set: fn(&mut Config, &[u8]) -> bool,
}

impl OptionRow {
    /// Whether the option takes the value.
    pub fn accepts(&self, value: &[u8]) -> bool {
        (self.set)(&mut Config::new(), value)
    }
}

/// The builder method of an option. An option that a program gives in another type than the field
/// has a conversion from that type: `of` one that always succeeds, `from` one that may panic.
macro_rules! builder {
    ($name:ident, $argument:ident: $field:ty, $($doc:expr),+) => {
        $(#[doc = $doc])+
        pub const fn $name(mut self, $argument: $field) -> Self {
            self.$name = $argument;
            self
        }
    };
    ($name:ident, $argument:ident: $field:ty, $($doc:expr),+; of $from:ty, $convert:path) => {
        $(#[doc = $doc])+
        pub const fn $name(mut self, $argument: $from) -> Self {
            self.$name = $convert($argument);
            self
        }
    };
    ($name:ident, $argument:ident: $field:ty, $($doc:expr),+; from $from:ty, $convert:path) => {
        $(#[doc = $doc])+
        ///
        /// # Panics
        /// If the text is not such a list; in a `const` it does not compile then.
        pub const fn $name(mut self, $argument: $from) -> Self {
            self.$name = $convert($argument);
            self
        }
    };
}

/// The table of options. A row is: the documentation, the builder method with its argument and the
/// type of the field, the default as a value and as text, the variable, and the form of the values
/// in the text.
macro_rules! options {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident($argument:ident: $field:ty $(, $how:ident $from:ty => $convert:path)?)
            = $default:expr, $text:literal, $variable:literal, $form:ident;
    )+) => {
        /// The options of a heap, usable in a `const`. [`OPTIONS`] documents each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Config { $(pub(crate) $name: $field,)+ }

        /// All options.
        pub const OPTIONS: &[OptionRow] = &[$(
            OptionRow {
                name: stringify!($name),
                variable: $variable,
                default: $text,
                unit: $form.unit,
                values: $form.values,
                doc: concat!($($doc),+).trim_ascii(),
                set: |config, text| match ($form.parse)(text) {
                    Some(value) => {
                        config.$name = value;
                        true
                    }
                    None => false,
                },
            },
        )+];

        impl Config {
            /// The defaults of [`OPTIONS`].
            pub const fn new() -> Self {
                Self { $($name: $default,)+ }
            }

            $(builder! {
                $name, $argument: $field,
                $($doc,)+ "",
                concat!("Variable `", $variable, "`, default `", $text, "` ", forms::unit!($form))
                $(; $how $from, $convert)?
            })+
        }
    };
}

options! {
    /// Pages that the heap is made of: 2 MiB or 1 GiB pages of the kernel's hugetlb pools,
    /// transparent hugepages (thp), or 4 KiB pages (small). What the system lacks is replaced by
    /// the next smaller kind; auto begins with hugetlb.
    pages(pages: Pages) = Pages::Auto, "auto", "THEAP_PAGES", PAGES;

    /// Bytes of addresses that the heap's range may have at most; huge blocks that find no room
    /// there get mappings of their own. 0 means four times RAM, at least 64 GiB. If the system
    /// refuses the tables for so many, theap asks for half, down to 64 MiB.
    address_space(bytes: usize) = 0, "0", "THEAP_ADDRESS_SPACE", BYTES;

    /// Bytes of memory that theap maps and touches at the first allocation, so that later ones take
    /// no page fault. Where there are fewer it takes those, and says so. 0 means none.
    reserve(bytes: usize) = 0, "0", "THEAP_RESERVE", BYTES;

    /// Bytes that the heap may map at most, its metadata included. An allocation that needs more
    /// gets null, after what is wholly free was given back; `limit_refusals` counts that. 0 means
    /// no limit.
    limit(bytes: usize) = 0, "0", "THEAP_LIMIT", BYTES;

    /// Bytes beyond which a heap that grows gives back what is free and calls the function that the
    /// program registered by `on_soft_limit`: once, and again for each further eighth of them. 0
    /// means none.
    soft_limit(bytes: usize) = 0, "0", "THEAP_SOFT_LIMIT", BYTES;

    /// Bytes of warm free memory that each NUMA node keeps: slots, and free spans in heaps. What is
    /// beyond goes back to the system at once; 0 keeps nothing. auto means 256M, but at most a
    /// sixteenth of what the process may use, and more as the node learns.
    retain(bytes: Option<usize>, of usize => Some) = None, "auto", "THEAP_RETAIN", AUTO_BYTES;

    /// Most bytes that the heap maps in one step of growth: steps double from 2 MiB up to this.
    /// They are used, and on hugetlb pages populated, 2 MiB at a time. 0 means 2 MiB.
    growth(bytes: usize) = 32 << 20, "32M", "THEAP_GROWTH", BYTES;

    /// The thread that takes the page faults of new memory: the one that touches it first (off),
    /// the one whose allocation makes the heap grow (grow), or the warmer, a thread that populates
    /// memory ahead of demand (ahead).
    prefault(prefault: Prefault) = Prefault::Off, "off", "THEAP_PREFAULT", PREFAULT;

    /// Bytes of free, populated memory that the warmer of each NUMA node keeps ready at least (with
    /// `prefault` ahead). 0 means only as much as the program has lately been using up; auto means
    /// 64M, but at most a sixteenth of what the process may use.
    ahead(bytes: Option<usize>, of usize => Some) = None, "auto", "THEAP_AHEAD", AUTO_BYTES;

    /// Milliseconds for which memory must have been free before a node gives it back, but for 2M;
    /// and after which a thread forgets what it learned and no longer needs. 0 means at once. While
    /// no thread frees, only the warmer gives back (`background`).
    decay(ms: u64) = 10_000, "10000", "THEAP_DECAY", MILLISECONDS;

    /// Whether the warmer of each NUMA node runs to give back memory that was free for `decay`,
    /// also without `prefault` ahead. Otherwise threads that free memory do that in passing.
    background(on: bool) = false, "0", "THEAP_BACKGROUND", SWITCH;

    /// With 1, a purge that the program asks for moves live blocks of hugetlb pages that are half
    /// free to small pages. Nothing may have pinned pages of the heap: a read with O_DIRECT that is
    /// under way, or a buffer registered with io_uring, would be lost.
    demote(on: bool) = false, "0", "THEAP_DEMOTE", SWITCH;

    /// CPUs that the threads of the warmer may run on. auto means the CPUs that the process is not
    /// pinned to, or all CPUs if there are no others.
    warmer_cpus(list: Option<Cpus>, from &str => forms::listed_cpus)
        = None, "auto", "THEAP_WARMER_CPUS", CPUS;

    /// Whether the heap's memory and tables are locked in RAM once they are touched: the kernel
    /// neither swaps nor reclaims them. What exceeds RLIMIT_MEMLOCK (ulimit -l) stays unlocked, and
    /// theap reports that once.
    lock(on: bool) = false, "0", "THEAP_LOCK", SWITCH;

    /// Bytes of free blocks that a thread's magazine of one size class may hold; more than 64K
    /// count as 64K. A magazine always has room for 16 blocks (8 or 4 in the large classes), also
    /// with 0.
    magazine(bytes: usize) = 32 << 10, "32K", "THEAP_MAGAZINE", BYTES;

    /// Bytes of free blocks that all magazines of a thread together may hold, learned ones
    /// included, beyond a few blocks of each class up to 8K (135K in all). Magazines that miss take
    /// from those that do not.
    thread_cache(bytes: usize) = 96 << 20, "96M", "THEAP_THREAD_CACHE", BYTES;

    /// Whether a thread's first blocks of each size class come from spans that the threads of a CPU
    /// share, on small pages in modes `thp` and `auto`, so that a thread which allocates little
    /// takes little memory. Not after `warm_up` or with `reserve`.
    nursery(on: bool) = true, "1", "THEAP_NURSERY", SWITCH;

    /// Whether theap learns from the program: magazines grow where bursts empty and overflow them,
    /// and heaps and nodes keep memory that they gave back too early. All of that shrinks again
    /// when it is no longer needed.
    learn(on: bool) = true, "1", "THEAP_LEARN", SWITCH;

    /// Bytes that all threads together may keep by learning: free blocks beyond the fixed
    /// capacities of magazines, and spans. 0 means a sixteenth of the smallest of RAM, the control
    /// group's limit and `address_space`.
    budget(bytes: usize) = 0, "0", "THEAP_BUDGET", BYTES;

    /// The kind of cache that serves malloc and free in each thread: magazines for the size classes
    /// of the option `classes` (theap), or a small array and a linked list for all (classic). A
    /// build without magazines has only classic.
    front(front: Front) = Front::Theap, "theap", "THEAP_FRONT", FRONT;

    /// Size classes that magazines serve, by number; the classic front serves the others. Class 0
    /// is 16 bytes, 7 is 128, then there are four for each doubling: 63 is 2 MiB.
    classes(classes: Classes) = Classes::ALL, "all", "THEAP_CLASSES", CLASSES;

    /// The NUMA node that memory comes from: the one that the thread runs on (local), all nodes in
    /// turn, 2 MiB of each (interleave), or whichever the kernel chooses (off).
    numa(numa: Numa) = Numa::Local, "local", "THEAP_NUMA", NUMA;

    /// What the shared library does with a block of the C library that the program frees: hand it
    /// over, and be malloc for plugins loaded with RTLD_DEEPBIND too; hand it over only (apart); or
    /// end the process, as Rust's global allocator does (abort).
    foreign(foreign: Foreign) = Foreign::HandOver, "hand-over", "THEAP_FOREIGN", FOREIGN;

    /// System calls that the heap makes after its start: all that it knows, or plain ones (mmap,
    /// munmap, mprotect, MADV_DONTNEED) for programs that forbid themselves others. plain goes
    /// without hugetlb pages, `prefault`, `lock` and interleaving.
    calls(calls: Calls) = Calls::All, "all", "THEAP_CALLS", CALLS;

    /// Whether theap stats, theap top and theap trace can look at the process. It costs one file
    /// descriptor, and the program does no work for it.
    publish(on: bool) = false, "0", "THEAP_PUBLISH", SWITCH;

    /// Whether events are recorded from the start of the program (needs `publish`), and not only
    /// while theap trace reads them.
    trace(on: bool) = false, "0", "THEAP_TRACE", SWITCH;

    /// Whether the first SIGSEGV, SIGBUS or SIGABRT of the process is reported in one line on
    /// stderr, which says what the address is to the heap, for example a block that is free.
    crash_report(on: bool) = false, "0", "THEAP_CRASH_REPORT", SWITCH;

    /// Whether theap reports on stderr what it could not do as told, such as wrong options and
    /// missing hugepages. Errors that end the process or leave it without a heap are always
    /// reported.
    messages(on: bool) = true, "1", "THEAP_MESSAGES", SWITCH;
}

/// The part of the memory that there is for which the defaults of `budget`, `retain` and `ahead`
/// stand at most: a sixteenth. What a heap keeps for later is then at most three sixteenths of it.
pub const SHARE: usize = 16;

/// The defaults of `retain` and of `ahead` where there is much memory.
const RETAIN: usize = 256 << 20;
const AHEAD: usize = 64 << 20;

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

/// The variable beside `THEAP_RESERVE` that says which process reserves: by its number, which stays
/// when the process executes another program, and which no descendant has. Without it every process
/// that gets `THEAP_RESERVE` reserves.
const RESERVE_PID: &[u8] = b"THEAP_RESERVE_PID";

/// Whether what the environment says of `reserve` is said to this process.
fn is_for_this_process(os: Os) -> bool {
    os.env(RESERVE_PID, |number| {
        number.is_none_or(|number| forms::number(number) == Some(os.process_id().into()))
    })
}

impl Config {
    /// These options with the environment's on top. Wrong values are reported in one line each and
    /// ignored.
    #[inline(never)] // Its frame is not to lie below that of the arena's creation.
    pub(crate) fn with_environment(mut self, os: Os) -> Self {
        // All values are set before the first wrong one is reported: one of them says whether to
        // report any.
        let reserve = self.reserve;
        for row in OPTIONS {
            os.env(row.variable.as_bytes(), |value| {
                value.is_none_or(|value| (row.set)(&mut self, value))
            });
        }
        if !is_for_this_process(os) {
            self.reserve = reserve;
        }
        if self.messages {
            for row in OPTIONS {
                os.env(row.variable.as_bytes(), |value| {
                    if let Some(value) = value.filter(|value| !row.accepts(value)) {
                        messages::wrong_option(os, row.variable, value, row.values);
                    }
                });
            }
        }
        self.within_calls()
    }

    /// Whether an option's default depends on the memory that the process may use.
    pub(crate) fn heeds_room(&self) -> bool {
        self.budget == 0 || self.retain.is_none() || self.ahead.is_none()
    }

    /// The options with bytes for the defaults of `retain` and `ahead`, of a heap with this many
    /// nodes in a process that may use `room` bytes.
    pub(crate) fn within(mut self, room: u64, nodes: usize) -> Self {
        let limits = [self.limit, self.soft_limit].map(|bytes| bytes as u64);
        let limits = limits.into_iter().filter(|&bytes| bytes > 0);
        let share = limits.fold(room, u64::min) / (SHARE * nodes.max(1)) as u64;
        let at_most = |bytes: usize| bytes.min(usize::try_from(share).unwrap_or(usize::MAX));
        self.retain = self.retain.or(Some(at_most(RETAIN)));
        self.ahead = self.ahead.or(Some(at_most(AHEAD)));
        self
    }

    /// The options without what the calls that the heap may make cannot serve.
    pub(crate) fn within_calls(mut self) -> Self {
        if self.calls == Calls::Plain {
            if matches!(self.pages, Pages::Hugetlb | Pages::Hugetlb1g) {
                self.pages = Pages::Thp;
            }
            if self.numa == Numa::Interleave {
                self.numa = Numa::Off;
            }
            (self.prefault, self.lock) = (Prefault::Off, false);
            (self.background, self.demote) = (false, false);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use theap_platform::Fake;

    /// The configuration that a program's options make with these variables, and what theap reports
    /// of them.
    fn read(config: Config, variables: &[(&'static [u8], &'static [u8])]) -> (Config, Vec<String>) {
        let fake: &'static Fake = Box::leak(Box::new(Fake::new()));
        for &(name, value) in variables {
            fake.set_env(name, Some(value));
        }
        let config = config.with_environment(Os::faked(fake));
        let mut text = [0; 8192];
        let said = str::from_utf8(fake.read_stderr(&mut text)).unwrap();
        (config, said.lines().map(str::to_owned).collect())
    }

    #[test]
    fn the_environment_wins_and_wrong_values_are_reported() {
        let program = Config::new().growth(0).retain(1 << 20).messages(false);
        let (read_back, said) = read(
            program,
            &[(b"THEAP_GROWTH", b"4M"), (b"THEAP_RETAIN", b"x")],
        );
        assert_eq!(
            (read_back.growth, read_back.retain),
            (4 << 20, Some(1 << 20))
        );
        assert_eq!(said, [""; 0], "the program silences them");
        let wrong = (&b"THEAP_RETAIN"[..], &b"x"[..]);
        let (_, said) = read(program, &[wrong, (b"THEAP_MESSAGES", b"1")]);
        assert_eq!(said.len(), 1, "the environment wants them: {said:?}");
        let (_, said) = read(program.messages(true), &[wrong, (b"THEAP_MESSAGES", b"0")]);
        assert_eq!(said, [""; 0]);
    }

    #[test]
    fn defaults_heed_the_room_that_the_process_has() {
        const MIB: usize = 1 << 20;
        let kept = |config: Config, room: usize, nodes| {
            let config = config.within(room as u64, nodes);
            let [retain, ahead] = [config.retain, config.ahead].map(Option::unwrap);
            (retain / MIB, ahead / MIB)
        };
        let config = Config::new();
        assert!(config.heeds_room());
        assert_eq!(kept(config, 64 << 30, 1), (256, 64));
        assert_eq!(kept(config, 2 << 30, 1), (128, 64));
        assert_eq!(kept(config, 512 * MIB, 1), (32, 32));
        assert_eq!(kept(config, 512 * MIB, 2), (16, 16), "for each node");
        assert_eq!(kept(config.limit(160 * MIB), 64 << 30, 1), (10, 10));
        assert_eq!(kept(config.soft_limit(80 * MIB), 64 << 30, 1), (5, 5));
        let asked = config.retain(256 * MIB).ahead(64 * MIB).budget(1);
        assert_eq!(kept(asked, 512 * MIB, 1), (256, 64), "the program's wish");
        assert!(!asked.heeds_room());
    }

    #[test]
    fn only_the_process_that_is_named_reserves() {
        let reserved = |number: Option<&'static [u8]>| {
            let mut variables = vec![(&b"THEAP_RESERVE"[..], &b"4M"[..])];
            variables.extend(number.map(|number| (RESERVE_PID, number)));
            let (read_back, said) = read(Config::new().reserve(1 << 20), &variables);
            assert_eq!(said, [""; 0]);
            read_back.reserve >> 20
        };
        assert_eq!(Fake::PROCESS_ID, 4711);
        assert_eq!(reserved(None), 4);
        assert_eq!(reserved(Some(b"4711")), 4);
        for other in [&b"4712"[..], b"", b"x", b"4711 "] {
            assert_eq!(reserved(Some(other)), 1, "the program's own wish");
        }
    }

    #[test]
    fn a_wrong_value_of_any_option_is_one_whole_line() {
        for row in OPTIONS {
            let long = &[b'x'; 1000];
            let (config, said) = read(Config::new(), &[(row.variable.as_bytes(), long)]);
            assert_eq!(config, Config::new());
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].starts_with(&format!("theap: {}=xxx", row.variable)));
            assert!(said[0].ends_with(row.values), "{said:?}");
        }
    }

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
    fn rows_are_named_alike_and_fit_a_line() {
        for row in OPTIONS {
            assert_eq!(
                row.variable,
                format!("THEAP_{}", row.name.to_ascii_uppercase())
            );
            assert!(row.doc.len() <= 250, "{}: {}", row.name, row.doc.len());
            assert!(!row.doc.contains(['|', '\n']) && row.doc.ends_with('.'));
        }
    }
}
