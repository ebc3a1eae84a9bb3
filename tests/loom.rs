//! Models of the lock-free protocols, run by loom over the product's own source. Each runs two or three threads through
//! every interleaving that the C11 memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test loom`
#![cfg(loom)]
#![allow(unsafe_code)] // Loom's cells: they check what the protocols promise, exclusive access.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use theap::heap::ownership::{FIRST_HEAP, FREE, Freed, Handshake, NOBODY, POOL};
use theap::pool::SpanId;
use theap::pool::avail::{Avail, Bitmap, LEVELS};
use theap::pool::claims::{Claims, PREPARING};
use theap::pool::queue::{Links, SpanQueue};
use theap::pool::stash::Stash;
use theap::pool::superslab::{SlotWord, Slots};
use theap::stats::ring::{RECORDS, Ring};

const ME: u64 = FIRST_HEAP;
const OTHER: u64 = FIRST_HEAP + 1;

/// One span with the pool's list. `free` is the owner's plain data: loom reports any two threads that meet there.
struct World {
    shake: Handshake,
    remote: AtomicU64,
    free: UnsafeCell<u64>,
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
            links: UnsafeCell::new((0, 0)),
            pool: Mutex::new(SpanQueue::default()),
        };
        world.shake.claim(ME);
        Arc::new(world)
    }

    /// What `Heap::send_home` does with a block of another owner.
    fn free(&self, bit: u64, heir: u64) -> Freed {
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
        self.free.with_mut(|f| unsafe { core::mem::take(&mut *f) })
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

fn join<T>(threads: [thread::JoinHandle<T>; 2]) -> [T; 2] {
    threads.map(|t| t.join().unwrap())
}

#[test]
fn remote_frees_against_disowning() {
    loom::model(|| {
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
#[should_panic(expected = "a block came home to nobody")]
fn disowning_without_a_second_look_is_caught() {
    loom::model(|| {
        let world = World::full();
        let freer = {
            let world = world.clone();
            thread::spawn(move || {
                let _ = world.free(1, POOL);
            })
        };
        if !world.collect() {
            world.shake.disown_carelessly();
        }
        freer.join().unwrap();
        world.check();
    });
}

#[test]
fn remote_frees_against_collection() {
    loom::model(|| {
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
    loom::model(|| {
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
    loom::model(|| {
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
    loom::model(|| {
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

#[test]
fn slots_have_one_taker() {
    loom::model(|| {
        let word = Arc::new(SlotWord::new());
        word.publish_fresh(29);
        let takers = [1, 2].map(|len| {
            let word = word.clone();
            thread::spawn(move || {
                word.take_run(len, 1)
                    .map_or(0, |t| ((1u32 << len) - 1) << t.first)
            })
        });
        word.release(0, 1);
        let taken = join(takers);
        assert_eq!(taken[0] & taken[1], 0, "one slot in two hands");
        let active = taken[0].count_ones() + taken[1].count_ones() + 28;
        assert_eq!(word.get().active_count(), active);
    });
}

#[test]
fn purge_takes_no_slot_in_use() {
    loom::model(|| {
        let word = Arc::new(SlotWord::new());
        word.publish_fresh(2);
        word.release(0, 2);
        let taker = {
            let word = word.clone();
            thread::spawn(move || word.take_run(1, 1))
        };
        let purged = word.begin_purge_all(false).is_some();
        if purged {
            assert_eq!(word.get(), Slots(0));
            word.end_purge(0, 32, true);
        }
        let taken = taker.join().unwrap();
        assert_eq!(word.get().active_count(), u32::from(taken.is_some()));
        assert_eq!(word.get().free_count(), 32 - u32::from(taken.is_some()));
    });
}

struct Room {
    word: SlotWord,
    bits: Vec<AtomicU64>,
    summary: Vec<AtomicU64>,
}

impl Room {
    fn avail(&self) -> Avail<'_> {
        Avail {
            levels: core::array::from_fn(|level| Bitmap {
                words: &self.bits[level..=level],
                summary: &self.summary[level..=level],
            }),
        }
    }
}

#[test]
fn room_is_never_forgotten() {
    const ONE: usize = 1;
    loom::model(|| {
        let word = SlotWord::new();
        word.publish_fresh(32);
        let zeros = || (0..LEVELS).map(|_| AtomicU64::new(0)).collect();
        let room = Arc::new(Room {
            word,
            bits: zeros(),
            summary: zeros(),
        });
        // A stale hint from earlier times.
        room.avail().levels[ONE].set(0);
        let releasers = [0, 1].map(|slot| {
            let room = room.clone();
            thread::spawn(move || {
                let (before, after) = room.word.release(slot, 1);
                room.avail().offer(0, before, after);
            })
        });
        if room.word.take_run(1, 1).is_none() {
            room.avail().withdraw(0, ONE, &room.word);
        }
        let _ = join(releasers);
        assert!(room.word.get().has_run(1));
        assert_eq!(
            room.avail().levels[ONE].next(0),
            Some(0),
            "free slots that nobody finds"
        );
    });
}

#[test]
fn stash_has_one_taker_for_each_span() {
    loom::model(|| {
        let stash = Arc::new(Stash::new());
        let putter = {
            let stash = stash.clone();
            thread::spawn(move || stash.put(SpanId(7)))
        };
        let taker = {
            let stash = stash.clone();
            thread::spawn(move || stash.take())
        };
        assert!(stash.put(SpanId(9)));
        let mine = stash.take();
        assert!(putter.join().unwrap());
        let theirs = taker.join().unwrap();
        let mut all: Vec<u32> = [mine, theirs].into_iter().flatten().map(|s| s.0).collect();
        all.extend(core::iter::from_fn(|| stash.take()).map(|s| s.0));
        all.sort_unstable();
        assert_eq!(all, [7, 9], "a span is lost or twice there");
    });
}

/// Two who map meet: nobody gets what the other has, and the holes are counted right, also where a step is given up
/// while the other passes by.
#[test]
fn claims_of_superslabs() {
    for claimed_first in [1, 2] {
        loom::model(move || {
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
    loom::model(|| {
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
