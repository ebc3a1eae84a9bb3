//! TEVENT: rare events, recorded in rings on the [`board`](super::board) while somebody looks.
//!
//! Each heap has a ring that its thread writes, and the pool has one that is written under a lock. Nothing is recorded
//! but while the header's word `tracing` is a time that has not passed yet (CLOCK_MONOTONIC, ns): an observer sets it,
//! and renews it while it looks, so that one which is killed leaves nothing switched on. While it is zero an event
//! costs one load and one branch, on slow paths only.

use super::board::Header;
use super::ring::Ring;
use crate::sync::Ordering;
use theap_platform::Os;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:literal [$a:literal, $b:literal, $value:literal],)+) => {
        /// What happened. Zero is no event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum EventKind { $($(#[doc = $doc])+ $kind,)+ }

        impl EventKind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// The name, as it is shown.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// What `a`, `b` and `value` of such an event mean; empty for nothing.
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
    /// A heap gave a span's slots back.
    Release "release" ["class", "", "address"],
    /// A heap left a full span to nobody.
    Disown "disown" ["class", "", "address"],
    /// A heap took a full span back.
    Reclaim "reclaim" ["class", "", "address"],
    /// A run was allocated.
    Run "run" ["", "", "bytes"],
    /// A run was freed.
    FreeRun "free_run" ["", "", "address"],
    /// Memory was mapped.
    Map "map" ["pages", "", "bytes"],
    /// The system did not map memory in this mode; the next one follows.
    Fallback "fallback" ["pages", "", "bytes"],
    /// Memory was touched.
    Populate "populate" ["", "", "bytes"],
    /// Free memory was given back and stays mapped.
    Purge "purge" ["pages", "", "bytes"],
    /// Free memory was given back and is not mapped any more.
    Unmap "unmap" ["pages", "", "bytes"],
}

/// An event, as a reader gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Whose: 0 the pool's, else the heap's number plus one.
    pub source: usize,
    /// When it began, in ns of CLOCK_MONOTONIC.
    pub time: u64,
    /// How long it took, in ns, at most 4 s.
    pub duration: u32,
    /// What it was.
    pub kind: EventKind,
    /// See [`EventKind::fields`]. A class is its number, a stage as in `stage_…`, pages by `PageMode`.
    pub a: u8,
    /// See `a`.
    pub b: u8,
    /// See `a`.
    pub value: u64,
}

impl Event {
    /// A record, as [`Tracer::note`] wrote it; nothing if it is none.
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

/// Where one writer's events go.
#[derive(Clone, Copy)]
pub struct Tracer {
    os: Os,
    header: &'static Header,
    ring: Option<&'static Ring>,
}

impl Tracer {
    /// For the writer of the ring; without one nothing is recorded.
    pub(crate) fn new(os: Os, header: &'static Header, ring: Option<&'static Ring>) -> Self {
        Self { os, header, ring }
    }

    /// Before an event: when it begins, or 0 if nobody looks. Also without a ring.
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
            // The observer is gone. One that comes just now renews it.
            self.header.tracing.store(0, Ordering::Relaxed);
            return 0;
        }
        now
    }

    /// After an event that began at `begin`: records it, unless that is 0. By the ring's one writer.
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
