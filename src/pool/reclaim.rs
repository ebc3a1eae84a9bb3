//! Reclaiming: what is free in the heap of a thread that rests is taken from it, as that thread
//! will not give it back by itself.
//!
//! A heap rests if its thread has made no step (no slow path) for a while; its lock counts them
//! ([`super::heap_lock`]). A reclaimer takes the lock of such a heap, takes a span of which blocks
//! are free, and lets go: the thread that wakes up meanwhile waits for no more than that. What lies
//! in magazines only their thread can give back.
//!
//! - A *round* goes over all heaps several times a `decay`, and takes from those that have rested
//!   for `decay`. The warmer makes it where there is one; else the threads that are busy do, a bit
//!   at each batch that they move. The spans that are the pool's are looked at, too.
//! - A node that would grow, or has begun a SuperSlab, takes spans from heaps that have rested for
//!   [`BRIEF`], if half of their blocks are free: what is warm serves before what is not.
//! - A node that cannot grow takes spans from all heaps.
//! - A purge takes from all heaps whose threads make no step meanwhile.
//!
//! A sealed heap is left alone, as a thread that waits for a reclaimer sleeps in the kernel, and so
//! is one that the program has prepared (`warm_up`).
#![allow(unsafe_code)] // Hands the memory of heaps to the front, and releases what it took.

use super::ground::Ground;
use super::heap_lock::Steps;
use super::heaps::Heaps;
use super::scan::{Look, Scan};
use super::spans::Spans;
use super::supers::PARTS;
use crate::classes::CLASS_COUNT;
use crate::geometry::{ClassId, SpanId};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use theap_platform::{Guard, Mutex, Rank};

/// Rounds in the time of `decay`: one for each of its parts.
const ROUNDS: u64 = PARTS as u64;
/// Rounds after which all spans of the pool are looked at, whatever came home.
const SWEEPS: u64 = 2;
/// What a thread in passing does at once: it takes one span out of a heap, or gives the free pages
/// of one span back, or has so many looks at a few spans of the pool, or ...
const PASS: usize = 16;
/// ... for each so many of those looks into a heap, or gives back the idle slots of a SuperSlab.
const STEP: usize = PASS / 4;
/// Heaps that are looked at, at most, before a thread in passing goes on.
const HEAPS: usize = 32;
/// Milliseconds after which a heap rests as far as growth is concerned: longer than a thread waits
/// for its CPU, as a rule.
const BRIEF: u32 = 10;
/// Spans of a list that are looked at, at most, before a thread in passing goes on.
const SPANS: usize = 8;
/// Times that a node which grows takes the lock on a heap.
const TRIES: usize = 256;

/// A round, and where growth goes on.
#[derive(Default)]
struct Round {
    /// The heap at which it goes on.
    at: usize,
    /// How far that heap was looked through, and the steps that its thread had made then.
    scan: Option<(Scan, u32)>,
    /// The heap at which growth goes on.
    growth: usize,
    /// The node at which the sweep of the pool's lists goes on, the class, and the spans of its
    /// list that are left, or `None` at its beginning.
    lists: (usize, usize),
    left: Option<usize>,
    /// The time of the next sweep of the lists, in ms, and whether the one that is under way is one
    /// of stashes, too.
    next_sweep: u32,
    stashes: bool,
    /// The node at which the search for idle slots goes on, and where there.
    node: usize,
    worn: usize,
}

/// The reclaimer of an arena.
pub struct Reclaim {
    ground: Ground,
    heaps: &'static Heaps,
    spans: &'static Spans,
    /// A warmer makes the rounds.
    has_worker: AtomicBool,
    /// A round is under way.
    due: AtomicBool,
    /// The time of the next one, in ms.
    next: AtomicU32,
    /// The number of the latest one.
    part: AtomicU8,
    round: Mutex<Round>,
}

/// Milliseconds, of nanoseconds; what counts is the difference of two.
fn ms(ns: u64) -> u32 {
    (ns / 1_000_000) as u32
}

impl Reclaim {
    /// The reclaimer of these heaps and spans.
    pub fn new(ground: Ground, heaps: &'static Heaps, spans: &'static Spans) -> Self {
        Self {
            ground,
            heaps,
            spans,
            has_worker: AtomicBool::new(false),
            due: AtomicBool::new(false),
            next: AtomicU32::new(0),
            part: AtomicU8::new(0),
            round: Mutex::new(Rank::Unranked, Round::default()),
        }
    }

    /// Tells whether a warmer makes the rounds.
    pub fn set_has_worker(&self, has: bool) {
        self.has_worker.store(has, Ordering::Relaxed);
    }

    /// Whether heaps are to be left alone.
    fn is_off(&self) -> bool {
        let policy = self.ground.policy;
        policy.is_sealed() || policy.is_prepared()
    }

    /// Whether threads in passing should [`Self::pass`].
    #[inline]
    pub fn is_due(&self) -> bool {
        self.due.load(Ordering::Relaxed) && !self.has_worker.load(Ordering::Relaxed)
    }

    /// Begins a round if it is time; `now` is in nanoseconds. For a thread that has looked at the
    /// clock.
    pub fn look(&self, now: u64) {
        if !self.has_worker.load(Ordering::Relaxed) {
            self.begin(now);
        }
    }

    fn begin(&self, now: u64) {
        let decay = self.ground.policy.decay() / ROUNDS;
        let (now, next) = (ms(now), self.next.load(Ordering::Relaxed));
        let is_time = (now.wrapping_sub(next) as i32) >= 0 || next == 0;
        let then = now.wrapping_add(ms(decay).max(1)).max(1);
        if is_time
            && !self.is_off()
            && (self.next)
                .compare_exchange(next, then, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.part.fetch_add(1, Ordering::Relaxed);
            self.due.store(true, Ordering::Relaxed);
        }
    }

    /// The number of the latest round, modulo 256. From one to the next it is a part of `decay` at
    /// least.
    #[inline]
    pub fn part(&self) -> u8 {
        self.part.load(Ordering::Relaxed)
    }

    /// For a thread in passing: goes on with the round, by a few spans at most.
    #[cold]
    pub fn pass(&self) {
        if let Some(mut round) = self.round.try_lock() {
            let mut left = PASS;
            while left > 0 {
                let took = self.go_on(&mut round).unwrap_or(PASS);
                left = left.saturating_sub(took);
            }
        }
    }

    /// For the warmer: begins a round if it is time, and goes on with it `times` times. Whether
    /// there is more to do at once.
    pub fn work(&self, now: u64, times: usize) -> bool {
        self.begin(now);
        if !self.due.load(Ordering::Relaxed) {
            return false;
        }
        if let Some(mut round) = self.round.try_lock() {
            (0..times).all(|_| self.go_on(&mut round).is_some());
        }
        self.due.load(Ordering::Relaxed)
    }

    /// Goes on with the round. The part of [`PASS`] that it took; `None` at the end.
    fn go_on(&self, round: &mut Round) -> Option<usize> {
        let now = ms(self.ground.policy.os().recently());
        if self.is_off() {
            self.end(round);
            return None;
        }
        // Idle slots first: what goes at once is much more than the pages of a span.
        let took = (self.give_back(round).then_some(STEP))
            .or_else(|| self.visit(round, now))
            .or_else(|| self.sweep(round, now));
        if took.is_none() {
            self.end(round);
        }
        took
    }

    fn end(&self, round: &mut Round) {
        (round.at, round.scan) = (0, None);
        self.due.store(false, Ordering::Relaxed);
    }

    /// Looks for a heap that has rested, and into it. The part of [`PASS`] that it took; `None` if
    /// all heaps were seen.
    fn visit(&self, round: &mut Round, now: u32) -> Option<usize> {
        let rest = ms(self.ground.policy.decay()).max(1);
        for _ in 0..HEAPS {
            round.at = round.at.max(1);
            if round.at >= self.heaps.made_before() {
                return None;
            }
            let entry = self.heaps.entry(round.at);
            let begun = round.scan.or_else(|| {
                let Steps(steps) = entry.rested(now, rest)?;
                let scan = Scan {
                    long: true,
                    ..Scan::default()
                };
                Some((scan, steps))
            });
            let Some((mut scan, steps)) = begun else {
                round.at += 1;
                continue;
            };
            let look = self.look_into(round.at, Steps(steps), &mut scan);
            if let Some(Look::Done) | None = look {
                entry.looked_through(now);
                round.scan = None;
                round.at += 1;
            } else {
                round.scan = Some((scan, steps));
            }
            return Some(match look {
                Some(Look::Free(_) | Look::Partial(_)) => PASS,
                _ => STEP,
            });
        }
        Some(STEP)
    }

    /// Looks into a heap whose thread has made so many steps. `None` if it has made another one.
    fn look_into(&self, index: usize, steps: Steps, scan: &mut Scan) -> Option<Look> {
        let lock = self.heaps.entry(index).lock();
        if !lock.try_reclaim(steps) {
            return None;
        }
        let memory = self.heaps.at(index);
        // SAFETY: the heap was made; this thread has its lock, which is not to be had of a heap
        // that is not in use.
        let look = unsafe { (self.heaps.take_idle())(memory, scan) };
        lock.end_reclaim(steps, |word| self.ground.policy.os().wake(word));
        match look {
            // SAFETY: taken out of the heap just now.
            Look::Free(span) => unsafe { self.spans.release_idle(span) },
            // SAFETY: as above.
            Look::Partial(span) => unsafe { self.spans.put_idle(span) },
            Look::More | Look::Done => {}
        }
        Some(look)
    }

    /// Looks at spans of the pool's lists: several times a `decay`, and in each round if blocks
    /// have come home to such spans. The part of [`PASS`] that it took; `None` if all were seen.
    fn sweep(&self, round: &mut Round, now: u32) -> Option<usize> {
        if round.lists == (0, 0) && round.left.is_none() {
            round.stashes = (now.wrapping_sub(round.next_sweep) as i32) >= 0;
            if !self.spans.take_sent() && !round.stashes {
                return None;
            }
            if round.stashes {
                let pause = ms(SWEEPS * self.ground.policy.decay() / ROUNDS).max(1);
                round.next_sweep = now.wrapping_add(pause);
            }
        }
        let (node, class) = round.lists;
        let Some(lists) = self.spans.lists().get(node) else {
            round.lists = (0, 0);
            return None;
        };
        let class = ClassId::new(class);
        let mut left = round.left.unwrap_or_else(|| {
            if round.stashes {
                self.spans.empty_stashes_of(class);
            }
            lists.len(class)
        });
        let mut took = 1;
        for _ in 0..left.min(SPANS) {
            left -= 1;
            match lists.sweep_idle(class, self.part()) {
                Some(0) => {}
                Some(_) => {
                    took = PASS;
                    break;
                }
                None => {
                    left = 0;
                    break;
                }
            }
        }
        round.left = (left > 0).then_some(left);
        if left == 0 {
            let next = class.index() + 1;
            round.lists = if next < CLASS_COUNT {
                (node, next)
            } else {
                (node + 1, 0)
            };
        }
        Some(took)
    }

    /// Gives idle slots of one SuperSlab back to the system, where no warmer does. False if there
    /// are none.
    fn give_back(&self, round: &mut Round) -> bool {
        if self.has_worker.load(Ordering::Relaxed) {
            return false;
        }
        while let Some(lists) = self.spans.lists().get(round.node) {
            let pages = lists.pages();
            pages.end_period(self.ground.policy.os().recently());
            if pages.supers().decay().idle() > 0 && !pages.has_warmer() {
                round.worn = pages.give_back_slots(round.worn, |_| {});
                return true;
            }
            (round.node, round.worn) = (round.node + 1, 0);
        }
        round.node = 0;
        false
    }

    /// For a node that would have to grow: takes up to `want` slots out of heaps that have rested
    /// for a while. Whether it took any.
    pub fn for_growth(&self, want: usize) -> bool {
        self.take_slots(want, BRIEF, HEAPS, TRIES)
    }

    /// For a node that cannot grow: takes up to `want` slots out of all heaps whose threads are in
    /// no step. Whether it took any.
    pub fn for_shortage(&self, want: usize) -> bool {
        self.take_slots(want, 0, usize::MAX, usize::MAX)
    }

    fn take_slots(&self, want: usize, rest: u32, heaps: usize, mut tries: usize) -> bool {
        // Under the lock: who seals the heap waits for it (`pause`).
        let Some(mut round) = self.round.try_lock().filter(|_| !self.is_off()) else {
            return false;
        };
        let now = ms(self.ground.policy.os().recently());
        let (made, mut got) = (self.heaps.made_before(), 0);
        for _ in 1..made.min(heaps.saturating_add(1)) {
            let index = 1 + round.growth % (made - 1).max(1);
            if got >= want || tries == 0 {
                break;
            }
            round.growth = index;
            let entry = self.heaps.entry(index);
            let Some(steps) = entry.rests_briefly(now, rest) else {
                continue;
            };
            let part = ms(self.ground.policy.decay() / ROUNDS).max(1);
            let parts = (entry.rest(now) / part).min(PARTS as u32) as u8;
            let mut scan = Scan {
                since: self.part().wrapping_sub(parts),
                ..Scan::default()
            };
            while got < want && tries > 0 {
                tries -= 1;
                match self.look_into(index, steps, &mut scan) {
                    Some(Look::Free(span)) => got += self.slots_of(span),
                    Some(Look::Partial(_) | Look::More) => {}
                    Some(Look::Done) => {
                        entry.has_nothing(steps);
                        break;
                    }
                    None => break,
                }
            }
        }
        got > 0
    }

    /// The slots of a span that was taken out of a heap.
    fn slots_of(&self, span: SpanId) -> usize {
        // SAFETY: a span's SuperSlab was mapped; what is read is never taken back.
        let meta = unsafe { self.ground.metadata.span(span) };
        meta.slots.get() as usize
    }

    /// Before a purge: notes the steps that threads have made.
    pub fn before_purge(&self) {
        let _round = self.round.lock();
        let now = ms(self.ground.policy.os().recently());
        (1..self.heaps.made_before()).for_each(|index| {
            self.heaps.entry(index).rested(now, u32::MAX);
        });
    }

    /// Takes all that is idle from the heaps whose threads have made no step since
    /// [`Self::before_purge`]. The bytes of the pages that went; of the spans that were taken the
    /// node gives the memory back.
    pub fn purge(&self) -> usize {
        let _round = self.round.lock();
        let mut bytes = 0;
        for index in 1..self.heaps.made_before() {
            let Some(steps) = self.heaps.entry(index).still_rests() else {
                continue;
            };
            let mut scan = Scan {
                long: true,
                ..Scan::default()
            };
            let more = |look| !matches!(look, Some(Look::Done) | None);
            while !self.ground.policy.is_sealed() && more(self.look_into(index, steps, &mut scan)) {
            }
            bytes += scan.bytes;
        }
        bytes
    }

    /// Waits until nobody reclaims, and keeps others from it.
    pub fn pause(&self) -> Guard<'_, impl Sized> {
        self.round.lock()
    }

    /// Before fork: nobody has a heap's lock as a reclaimer from here on.
    pub fn lock(&self) {
        self.round.lock_for_fork();
    }

    /// Frees what `lock` took, in the parent or in the child.
    ///
    /// # Safety
    /// This thread (or in a child, the thread that forked) called `lock` before.
    pub unsafe fn unlock(&self) {
        // SAFETY: this thread holds the lock, as this function's Safety section asks.
        unsafe { self.round.force_unlock() };
    }
}
