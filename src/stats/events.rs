//! Events: rare steps of the heap, recorded in rings on the [`board`](super::board) while an
//! observer reads them.
//!
//! Each heap has a ring that its thread writes, and the pool has one that is written under a lock.
//! Events are recorded only while the header's word `tracing` is a time that has not passed yet
//! (CLOCK_MONOTONIC, ns). An observer sets that time and renews it while it reads, so that an
//! observer that is killed leaves nothing switched on. While the word is zero an event costs one
//! load and one branch, on slow paths only.

use super::board::Header;
use super::ring::Ring;
use crate::sync::Ordering;
use theap_platform::Os;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:literal [$a:literal, $b:literal, $value:literal],)+) => {
        /// The kind of an event. Records store it plus one; zero is no event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum EventKind { $($(#[doc = $doc])+ $kind,)+ }

        impl EventKind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// The name that is shown for the kind.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// The meanings of `a`, `b` and `value` of such an event; empty for a field that it
            /// does not use.
            pub const fn fields(self) -> [&'static str; 3] {
                match self { $(Self::$kind => [$a, $b, $value],)+ }
            }
        }
    };
}

kinds! {
    /// Blocks went from spans to a magazine.
    Refill "refill" ["class", "", "blocks"],
    /// Blocks went from a magazine to spans.
    Drain "drain" ["class", "", "blocks"],
    /// A heap took a span.
    Acquire "acquire" ["class", "stage", "address"],
    /// A heap gave the slots of a span back to the pool.
    Release "release" ["class", "", "address"],
    /// A heap left a full span without an owner.
    Disown "disown" ["class", "", "address"],
    /// A heap took a full span back that it had left.
    Reclaim "reclaim" ["class", "", "address"],
    /// A run was allocated.
    Run "run" ["", "", "bytes"],
    /// A run was freed.
    FreeRun "free_run" ["", "", "address"],
    /// Memory was mapped.
    Map "map" ["pages", "", "bytes"],
    /// The system did not map memory in this page mode; theap tries the next one.
    Fallback "fallback" ["pages", "", "bytes"],
    /// Memory was populated with pages.
    Populate "populate" ["", "", "bytes"],
    /// Free memory was given back and stays mapped.
    Purge "purge" ["pages", "", "bytes"],
    /// Free memory was given back and is not mapped any more.
    Unmap "unmap" ["pages", "", "bytes"],
    /// Memory was put on hugepages, or the system has refused that.
    Collapse "collapse" ["pages", "", "bytes"],
    /// A SuperSlab was moved off its hugetlb page, or the system refused that.
    Demote "demote" ["pages", "", "bytes"],
}

/// An event that was read from a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The writer of the event: 0 is the pool, another number is the heap's plus one.
    pub source: usize,
    /// The time at which it began, in ns of CLOCK_MONOTONIC.
    pub time: u64,
    /// Its duration in ns; one above 4 s is shown as 4 s.
    pub duration: u32,
    /// Its kind.
    pub kind: EventKind,
    /// The first detail, named by [`EventKind::fields`]. A class is given by its number, a stage by
    /// its place among the counters `stage_…`, pages by the number of the `PageMode`.
    pub a: u8,
    /// The second detail, named by [`EventKind::fields`].
    pub b: u8,
    /// The third detail, named by [`EventKind::fields`].
    pub value: u64,
}

impl Event {
    /// The event of a record that [`Tracer::note`] wrote; `None` if no event is encoded like that.
    pub(crate) fn decode(source: usize, [time, what, value]: [u64; 3]) -> Option<Self> {
        let [kind, a, b, _, ..] = what.to_le_bytes();
        Some(Self {
            source,
            time,
            duration: (what >> 32) as u32,
            kind: *EventKind::ALL.get(usize::from(kind).checked_sub(1)?)?,
            a,
            b,
            value,
        })
    }
}

/// The recorder of one writer's events.
#[derive(Clone, Copy)]
pub struct Tracer {
    os: Os,
    header: &'static Header,
    ring: Option<&'static Ring>,
}

impl Tracer {
    /// A recorder for the writer of the ring; without a ring it records nothing.
    pub(crate) fn new(os: Os, header: &'static Header, ring: Option<&'static Ring>) -> Self {
        Self { os, header, ring }
    }

    /// Called before an event: the time now, or 0 if no observer reads. The same without a ring.
    #[inline]
    pub fn begin(&self) -> u64 {
        match self.header.tracing.load(Ordering::Relaxed) {
            0 => 0,
            until => self.begin_until(until),
        }
    }

    #[cold]
    fn begin_until(&self, until: u64) -> u64 {
        let now = self.os.now();
        if now > until {
            // The observer is gone. An observer that comes at this moment renews the time.
            self.header.tracing.store(0, Ordering::Relaxed);
            return 0;
        }
        now
    }

    /// Called after an event that began at `begin`, by the one writer of the ring: records it
    /// unless `begin` is 0.
    #[inline]
    pub fn note(&self, begin: u64, kind: EventKind, a: u8, b: u8, value: u64) {
        if begin != 0 {
            self.record(begin, kind, a, b, value);
        }
    }

    #[cold]
    fn record(&self, begin: u64, kind: EventKind, a: u8, b: u8, value: u64) {
        if let Some(ring) = self.ring {
            let duration = self.os.now().saturating_sub(begin).min(u64::from(u32::MAX));
            let what = u64::from(kind as u8 + 1) | u64::from(a) << 8 | u64::from(b) << 16;
            ring.push([begin, what | duration << 32, value]);
        }
    }
}
