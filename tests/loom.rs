//! Models of the lock-free protocols, run by loom over the product's own source. Each runs two or three threads through
//! every interleaving that the C11 memory model allows, without a bound on preemptions. What threads hand each other
//! are loom's cells, so a missing happens-before is an error and not a matter of luck.
//!
//! A model that cannot fail shows nothing: [`WEAKENED`] has accesses that are made weaker one at a time, each with the
//! model that notices.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test loom`
#![cfg(loom)]
#![allow(unsafe_code)] // Loom's cells: they check what the protocols promise, exclusive access.

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;
use theap::heap::ownership::{FIRST_HEAP, FREE, Freed, Handshake, NOBODY, POOL};
use theap::pool::SpanId;
use theap::pool::avail::{Avail, Bitmap, LEVELS};
use theap::pool::claims::{Claims, PREPARING};
use theap::pool::queue::{Links, SpanQueue};
use theap::pool::stash::Stash;
use theap::pool::superslab::{SlotWord, Slots, Taken};
use theap::stats::ring::{RECORDS, Ring};
use theap::sync::{AtomicU8, AtomicU64, Ordering, Weakening, weaken};

const ME: u64 = FIRST_HEAP;
const OTHER: u64 = FIRST_HEAP + 1;

/// One span with the pool's list. `free` is the owner's plain data: loom reports any two threads that meet there.
struct World {
    shake: Handshake,
    remote: AtomicU64,
    free: UnsafeCell<u64>,
    /// What is in the blocks: whoever has a block writes it.
    blocks: [UnsafeCell<()>; 2],
    links: UnsafeCell<(u32, u32)>,
    pool: Mutex<SpanQueue>,
}

impl Links for World {
    fn links(&self, _: SpanId) -> (u32, u32) {
        self.links.with(|l| unsafe { *l })
    }
    fn set_next(&self, _: SpanId, next: u32) {
        self.links.with_mut(|l| unsafe { (*l).0 = next });
    }
    fn set_prev(&self, _: SpanId, prev: u32) {
        self.links.with_mut(|l| unsafe { (*l).1 = prev });
    }
}

impl World {
    /// A span of `ME` without free blocks.
    fn full() -> Arc<Self> {
        let world = Self {
            shake: Handshake::new(),
            remote: AtomicU64::new(0),
            free: UnsafeCell::new(0),
            blocks: [(); 2].map(UnsafeCell::new),
            links: UnsafeCell::new((0, 0)),
            pool: Mutex::new(SpanQueue::default()),
        };
        world.shake.claim(ME);
        Arc::new(world)
    }

    /// What `Heap::send_home` does with a block of another owner.
    fn free(&self, bit: u64, heir: u64) -> Freed {
        self.write(bit);
        let freed = self.shake.free_remote(&self.remote, 0, bit, heir);
        if freed == Freed::ToPool {
            self.pool.lock().unwrap().push(SpanId(0), self);
        }
        assert_ne!(freed, Freed::Twice);
        freed
    }

    fn collect(&self) -> bool {
        self.shake.collect(
            |_| &self.remote,
            |_, bits| self.free.with_mut(|f| unsafe { *f |= bits }),
        )
    }

    fn take_all(&self) -> u64 {
        let bits = self.free.with_mut(|f| unsafe { core::mem::take(&mut *f) });
        self.write(bits);
        bits
    }

    /// The blocks are the calling thread's.
    fn write(&self, bits: u64) {
        (0..2)
            .filter(|i| bits >> i & 1 == 1)
            .for_each(|i| self.blocks[i].with_mut(|_| ()));
    }

    /// What `Heap::has_blocks` does with a full span: true if a block came home, else nobody owns the span.
    fn has_blocks(&self, me: u64) -> bool {
        loop {
            if self.collect() {
                return true;
            }
            if !self.shake.disown(me) {
                return false;
            }
        }
    }

    fn take_from_pool(&self, me: u64) -> bool {
        let found = self.pool.lock().unwrap().pop(self).is_some();
        if found {
            self.shake.take_from_pool(me);
        }
        found
    }

    /// Whoever holds the span at the end, it is not lost, and listed exactly if it is the pool's.
    fn check(&self) {
        let owner = self.shake.owner();
        assert!(
            !(owner == NOBODY && self.shake.has_pending()),
            "a block came home to nobody"
        );
        assert!(
            self.remote.load(Ordering::Acquire) == 0 || self.shake.has_pending(),
            "a block came home where no collection looks"
        );
        assert_eq!(
            self.pool.lock().unwrap().len(),
            usize::from(owner == POOL),
            "owner {owner}"
        );
    }

    fn bits(&self) -> u64 {
        self.free.with(|f| unsafe { *f }) | self.remote.load(Ordering::Acquire)
    }
}

/// Runs a model and says how many interleavings it had.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = runs.clone();
    loom::model(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!(
        "{name}: {} interleavings",
        runs.load(std::sync::atomic::Ordering::Relaxed)
    );
}

fn join<T, const N: usize>(threads: [thread::JoinHandle<T>; N]) -> [T; N] {
    threads.map(|t| t.join().unwrap())
}

#[test]
fn remote_frees_against_disowning() {
    explore(|| {
        let world = World::full();
        let freers = [1, 2].map(|bit| {
            let world = world.clone();
            thread::spawn(move || {
                let _ = world.free(bit, POOL);
            })
        });
        if !world.has_blocks(ME) && world.take_from_pool(ME) {
            // Another free may still be on its way to the span.
            world.has_blocks(ME);
        }
        let _ = join(freers);
        world.check();
        assert_eq!(world.bits(), 3, "a block is lost");
    });
}

#[test]
fn one_remote_free_against_disowning() {
    explore(|| {
        let world = World::full();
        let freer = {
            let world = world.clone();
            thread::spawn(move || {
                let _ = world.free(1, POOL);
            })
        };
        if world.has_blocks(ME) {
            assert_eq!(world.take_all(), 1);
        }
        freer.join().unwrap();
        world.check();
    });
}

#[test]
fn remote_frees_against_collection() {
    explore(|| {
        let world = World::full();
        let freers = [1, 2].map(|bit| {
            let world = world.clone();
            thread::spawn(move || assert_eq!(world.free(bit, POOL), Freed::Noted))
        });
        let mut got = 0;
        for _ in 0..2 {
            world.collect();
            got |= world.take_all();
        }
        let _ = join(freers);
        world.collect();
        assert_eq!(got | world.take_all(), 3);
        world.check();
    });
}

#[test]
fn remote_free_against_release_and_reuse() {
    explore(|| {
        let world = World::full();
        let freer = {
            let world = world.clone();
            thread::spawn(move || {
                let _ = world.free(1, POOL);
            })
        };
        world.collect();
        if world.take_all() == 1 {
            // The span's only block is home: release it, and use the slots for a span that is full at once. The
            // freer may still be between its two steps.
            world.shake.release();
            assert_eq!(world.shake.owner(), FREE);
            world.shake.claim(ME);
            if !world.has_blocks(ME) && world.take_from_pool(ME) {
                world.has_blocks(ME);
            }
            assert_eq!(world.bits(), 0, "the new span has blocks that nobody freed");
        }
        freer.join().unwrap();
        world.check();
    });
}

#[test]
fn last_owner_takes_its_span_back_or_the_pool_gets_it() {
    explore(|| {
        let world = World::full();
        assert!(!world.has_blocks(ME));
        let freer = {
            let world = world.clone();
            thread::spawn(move || {
                let _ = world.free(1, POOL);
            })
        };
        let mine = if world.shake.retake(ME) {
            world.free.with_mut(|f| unsafe { *f |= 2 });
            true
        } else {
            world.free(2, ME) == Freed::Mine
        };
        if mine {
            world.collect();
        }
        freer.join().unwrap();
        world.check();
        assert_eq!(world.bits(), 3);
    });
}

#[test]
fn partial_list_has_one_taker_for_each_span() {
    explore(|| {
        let world = World::full();
        assert!(!world.has_blocks(ME));
        let freer = {
            let world = world.clone();
            thread::spawn(move || {
                let _ = world.free(1, POOL);
            })
        };
        let taker = {
            let world = world.clone();
            thread::spawn(move || {
                if world.take_from_pool(OTHER) && world.collect() {
                    world.take_all()
                } else {
                    0
                }
            })
        };
        let mut got = 0;
        if world.take_from_pool(ME) && world.collect() {
            got = world.take_all();
        }
        let theirs = taker.join().unwrap();
        freer.join().unwrap();
        assert_eq!(got & theirs, 0, "one block in two hands");
        assert_eq!(got | theirs | world.bits(), 1);
        world.check();
    });
}

/// A SuperSlab's slots: whoever has one writes it.
struct Super {
    word: SlotWord,
    slots: [UnsafeCell<()>; 32],
}

impl Super {
    fn new(active: usize) -> Arc<Self> {
        let this = Self {
            word: SlotWord::new(),
            slots: [(); 32].map(UnsafeCell::new),
        };
        this.word.publish_fresh(active);
        Arc::new(this)
    }

    fn write(&self, first: usize, len: usize) {
        (first..first + len).for_each(|i| self.slots[i].with_mut(|_| ()));
    }

    fn take(&self, len: usize) -> Option<Taken> {
        let taken = self.word.take_run(len, 1);
        if let Some(Taken { first, .. }) = taken {
            self.write(first, len);
        }
        taken
    }

    fn release(&self, first: usize, len: usize) -> (Slots, Slots) {
        self.write(first, len);
        self.word.release(first, len)
    }
}

#[test]
fn slots_have_one_taker() {
    explore(|| {
        let this = Super::new(29);
        let takers = [1, 2].map(|len| {
            let this = this.clone();
            thread::spawn(move || this.take(len).map_or(0, |t| ((1u32 << len) - 1) << t.first))
        });
        this.release(0, 1);
        let taken = join(takers);
        assert_eq!(taken[0] & taken[1], 0, "one slot in two hands");
        let active = taken[0].count_ones() + taken[1].count_ones() + 28;
        assert_eq!(this.word.get().active_count(), active);
    });
}

#[test]
fn purge_takes_no_slot_in_use() {
    explore(|| {
        let this = Super::new(2);
        this.release(0, 2);
        let taker = {
            let this = this.clone();
            thread::spawn(move || this.take(1))
        };
        if this.word.begin_purge_all(false).is_some() {
            assert_eq!(this.word.get(), Slots(0));
            this.write(0, 32);
            this.word.end_purge(0, 32, true);
        }
        let taken = taker.join().unwrap();
        assert_eq!(this.word.get().active_count(), u32::from(taken.is_some()));
        assert_eq!(
            this.word.get().free_count(),
            32 - u32::from(taken.is_some())
        );
    });
}

#[test]
fn empty_slots_are_purged_beside_a_taker() {
    explore(|| {
        let this = Super::new(32);
        this.release(0, 2);
        let taker = {
            let this = this.clone();
            thread::spawn(move || this.take(1))
        };
        let stretches: Vec<_> = this.word.begin_purge_empty().collect();
        for (first, len) in stretches {
            this.write(first, len);
            this.word.end_purge(first, len, true);
        }
        let taken = taker.join().unwrap();
        let active = 30 + u32::from(taken.is_some());
        assert_eq!(this.word.get().active_count(), active);
        assert_eq!(this.word.get().free_count(), 32 - active);
    });
}

struct Room {
    slots: Arc<Super>,
    bits: Vec<AtomicU64>,
    summary: Vec<AtomicU64>,
}

impl Room {
    fn avail(&self) -> Avail<'_> {
        Avail {
            levels: core::array::from_fn(|level| Bitmap {
                words: &self.bits[2 * level..2 * level + 2],
                summary: &self.summary[level..=level],
            }),
        }
    }
}

#[test]
fn room_is_never_forgotten() {
    releases_against_a_withdrawal::<2>();
}

#[test]
fn one_room_is_never_forgotten() {
    releases_against_a_withdrawal::<1>();
}

/// A SuperSlab of the second word, which is found by the summary. With one releaser the taker has already found nothing.
fn releases_against_a_withdrawal<const RELEASERS: usize>() {
    const ONE: usize = 1;
    const SUPER: usize = 64;
    explore(|| {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        let room = Arc::new(Room {
            slots: Super::new(32),
            bits: zeros(2 * LEVELS),
            summary: zeros(LEVELS),
        });
        // A stale hint from earlier times.
        room.avail().levels[ONE].set(SUPER);
        let releasers: [_; RELEASERS] = core::array::from_fn(|slot| {
            let room = room.clone();
            thread::spawn(move || {
                let (before, after) = room.slots.release(slot, 1);
                room.avail().offer(SUPER, before, after);
            })
        });
        if RELEASERS == 1 || room.slots.take(1).is_none() {
            room.avail().withdraw(SUPER, ONE, &room.slots.word);
        }
        let _ = join(releasers);
        assert!(room.slots.word.get().has_run(1));
        assert_eq!(
            room.avail().levels[ONE].next(0),
            Some(SUPER),
            "free slots that nobody finds"
        );
    });
}

/// A stash, and what is known of its spans: that belongs to whoever has a span.
struct Stashed {
    stash: Stash,
    metas: [UnsafeCell<()>; 2],
}

impl Stashed {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            stash: Stash::new(),
            metas: [(); 2].map(UnsafeCell::new),
        })
    }

    fn put(&self, span: u32) {
        self.metas[span as usize].with_mut(|_| ());
        assert!(self.stash.put(SpanId(span)));
    }

    fn take(&self) -> Option<u32> {
        let span = self.stash.take()?.0;
        self.metas[span as usize].with_mut(|_| ());
        Some(span)
    }

    /// What was taken and what is left are both spans.
    fn check(&self, taken: impl IntoIterator<Item = Option<u32>>) {
        let mut all: Vec<u32> = taken.into_iter().flatten().collect();
        all.extend(core::iter::from_fn(|| self.take()));
        all.sort_unstable();
        assert_eq!(all, [0, 1], "a span is lost or twice there");
    }
}

#[test]
fn stash_loses_no_span() {
    explore(|| {
        let this = Stashed::new();
        let putter = {
            let this = this.clone();
            thread::spawn(move || this.put(0))
        };
        this.put(1);
        let taken = this.take();
        putter.join().unwrap();
        this.check([taken]);
    });
}

#[test]
fn stash_has_one_taker_for_each_span() {
    explore(|| {
        let this = Stashed::new();
        this.put(0);
        this.put(1);
        let takers = [(); 2].map(|()| {
            let this = this.clone();
            thread::spawn(move || this.take())
        });
        let mine = this.take();
        let [one, two] = join(takers);
        this.check([mine, one, two]);
    });
}

/// Two who map meet: nobody gets what the other has, and the holes are counted right, also where a step is given up
/// while the other passes by.
#[test]
fn claims_of_superslabs() {
    for claimed_first in [1, 2] {
        explore(move || {
            let bytes: &'static [AtomicU8] = Box::leak((0..4).map(|_| AtomicU8::new(0)).collect());
            let claims = Arc::new(Claims::new(bytes));
            let warmer = {
                let claims = claims.clone();
                thread::spawn(move || {
                    if let Some((first, len)) = claims.claim_ahead(claimed_first) {
                        // The system refuses.
                        claims.give_up(first, len);
                    }
                })
            };
            let (first, len) = claims.claim_ahead(1).unwrap();
            assert_eq!(claims.byte(first).swap(1, Ordering::AcqRel), PREPARING);
            assert_eq!(len, 1);
            warmer.join().unwrap();
            assert_eq!(claims.byte(first).load(Ordering::Relaxed), 1);
            assert!(first < claims.frontier());
            assert_eq!(claims.holes(), claims.count_holes());
        });
    }
}

#[test]
fn one_hole_has_one_taker() {
    explore(|| {
        let bytes: &'static [AtomicU8] = Box::leak((0..2).map(|_| AtomicU8::new(0)).collect());
        let claims = Arc::new(Claims::new(bytes));
        assert!(claims.claim(1, 1));
        assert_eq!(claims.holes(), 1);
        let other = {
            let claims = claims.clone();
            thread::spawn(move || claims.claim_hole().is_some())
        };
        let mine = claims.claim_hole().is_some();
        assert!(mine != other.join().unwrap());
        assert_eq!((claims.holes(), claims.count_holes()), (0, 0));
    });
}

/// A reader while the ring is overwritten: what it gets is whole, in order, and with what it lost makes up all.
#[test]
fn ring_overwritten_while_it_is_read() {
    const WRITTEN: u64 = RECORDS as u64 + 1;
    static LOST: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    loom::model(|| {
        let ring = Arc::new(Ring::new());
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || (1..=WRITTEN).for_each(|n| ring.push([n; 3])))
        };
        let (mut from, mut last, mut got) = (0, 0, 0);
        let mut look = |from: &mut u64| {
            ring.read(from, |[a, b, c]| {
                assert!(a == b && b == c, "a torn record");
                assert!(a > last, "records are in order");
                last = a;
                got += 1;
            })
        };
        let mut lost = look(&mut from);
        let met = lost > 0;
        writer.join().unwrap();
        lost += look(&mut from);
        assert_eq!((from, last), (WRITTEN, WRITTEN));
        assert_eq!(got + lost, WRITTEN);
        LOST.fetch_or(met, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(
        LOST.load(std::sync::atomic::Ordering::Relaxed),
        "no execution met the writer at the reader's record"
    );
}

/// A heap that waits for a new thread: its memory goes with the lock on the ids (`pool/heaps.rs`), its spans with
/// the owner word. The new thread has the old one's id, and with it what `last_owner` promises.
#[test]
fn a_recycled_heap_takes_its_spans_back() {
    explore(|| {
        let world = World::full();
        let idle = Arc::new((Mutex::new(None), UnsafeCell::new(())));
        let heir = {
            let (world, idle) = (world.clone(), idle.clone());
            thread::spawn(move || {
                let id = idle.0.lock().unwrap().take();
                if id.is_some() {
                    idle.1.with_mut(|_| ());
                }
                if id.is_some_and(|id| world.shake.retake(id)) {
                    world.write(1);
                    world.free.with_mut(|f| unsafe { *f |= 1 });
                } else if world.free(1, id.unwrap_or(POOL)) == Freed::Mine {
                    world.collect();
                }
            })
        };
        // The thread ends: the span is full and nobody's, or what came home is given to the pool.
        if world.has_blocks(ME) {
            world.shake.give_to_pool();
            world.pool.lock().unwrap().push(SpanId(0), &*world);
        }
        idle.1.with_mut(|_| ());
        *idle.0.lock().unwrap() = Some(ME);
        heir.join().unwrap();
        world.check();
        assert_eq!(world.bits(), 1, "the block is lost");
    });
}

/// An access: its file, the function, and the first line after that with this text; what is done to it; the model that
/// must fail then.
type Weakened = (&'static str, &'static str, &'static str, Weakening, fn());

const OWNERSHIP: &str = "src/heap/ownership.rs";
const SUPERSLAB: &str = "src/pool/superslab.rs";
const AVAIL: &str = "src/pool/avail.rs";
const STASH: &str = "src/pool/stash.rs";
const CLAIMS: &str = "src/pool/claims.rs";
const RING: &str = "src/stats/ring.rs";

#[rustfmt::skip]
const WEAKENED: &[Weakened] = &[
    (OWNERSHIP, "disown", "fetch_or(0", Weakening::Forgotten, one_remote_free_against_disowning),
    (OWNERSHIP, "disown", "fetch_or(0", Weakening::Forgotten, a_recycled_heap_takes_its_spans_back),
    (OWNERSHIP, "free_remote", "pending.fetch_or", Weakening::Forgotten, one_remote_free_against_disowning),
    (OWNERSHIP, "retake", "compare_exchange(", Weakening::Torn, last_owner_takes_its_span_back_or_the_pool_gets_it),
    (OWNERSHIP, "free_remote", "compare_exchange(", Weakening::Torn, last_owner_takes_its_span_back_or_the_pool_gets_it),
    (SUPERSLAB, "release", "fetch_or(bits", Weakening::Relaxed, slots_have_one_taker),
    (SUPERSLAB, "take(", "compare_exchange_weak", Weakening::Torn, slots_have_one_taker),
    (SUPERSLAB, "begin_purge_all", "compare_exchange(", Weakening::Torn, purge_takes_no_slot_in_use),
    (SUPERSLAB, "begin_purge_empty", "compare_exchange_weak", Weakening::Torn, empty_slots_are_purged_beside_a_taker),
    (SUPERSLAB, "end_purge", "fetch_or(bits", Weakening::Relaxed, empty_slots_are_purged_beside_a_taker),
    (AVAIL, "set(", "words[word].fetch_or", Weakening::Torn, one_room_is_never_forgotten),
    (AVAIL, "clear(", "words[word].fetch_and", Weakening::Torn, one_room_is_never_forgotten),
    (AVAIL, "clear_summary(", "words[word].load", Weakening::Forgotten, one_room_is_never_forgotten),
    (STASH, "put(", "compare_exchange(", Weakening::Relaxed, stash_loses_no_span),
    (STASH, "put(", "compare_exchange(", Weakening::Torn, stash_loses_no_span),
    (STASH, "take(", "swap(0", Weakening::Relaxed, stash_loses_no_span),
    (STASH, "take(", "swap(0", Weakening::Torn, stash_has_one_taker_for_each_span),
    (RING, "push(", "head.store", Weakening::Relaxed, ring_overwritten_while_it_is_read),
    (CLAIMS, "claim(", "compare_exchange(", Weakening::Torn, one_hole_has_one_taker),
    (CLAIMS, "claim(", "frontier.fetch_max", Weakening::Torn, claims_of_superslabs),
    (CLAIMS, "give_up(", "holes.fetch_add", Weakening::Forgotten, claims_of_superslabs),
];

fn line_of(file: &str, function: &str, text: &str) -> u32 {
    let source = match file {
        OWNERSHIP => include_str!("../src/heap/ownership.rs"),
        SUPERSLAB => include_str!("../src/pool/superslab.rs"),
        AVAIL => include_str!("../src/pool/avail.rs"),
        STASH => include_str!("../src/pool/stash.rs"),
        RING => include_str!("../src/stats/ring.rs"),
        _ => include_str!("../src/pool/claims.rs"),
    };
    let start = source.find(&format!("fn {function}")).expect(function);
    let at = start + source[start..].find(text).expect(text);
    source[..=at].lines().count() as u32
}

#[test]
fn weakened_accesses_are_caught() {
    let missed: Vec<_> = WEAKENED
        .iter()
        .filter(|&&(file, function, text, how, model)| {
            let line = line_of(file, function, text);
            let run = move || {
                weaken(file, line, how);
                model();
            };
            thread_that(run).join().is_ok()
        })
        .map(|(file, function, text, how, _)| format!("{file}, {function} {text}: {how:?}"))
        .collect();
    assert!(missed.is_empty(), "no model notices {missed:#?}");
}

/// A thread of its own, since what is weakened is so until it ends.
fn thread_that(run: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::Builder::new()
        .name("weakened".to_owned())
        .spawn(run)
        .unwrap()
}
