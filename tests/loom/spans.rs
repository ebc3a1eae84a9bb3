//! Spans: remote frees against disowning, collection, release and reuse; the partial list; and a
//! new thread's use of an ended thread's heap.

use crate::{explore, join};
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread::{self, JoinHandle};
use theap::geometry::SpanId;
use theap::pool::metadata::ownership::{FIRST_HEAP, FREE, Freed, Handshake, NOBODY, POOL};
use theap::pool::spans::queue::{Links, SpanQueue};
use theap::sync::{AtomicU64, Ordering};

const ME: u64 = FIRST_HEAP;
const OTHER: u64 = FIRST_HEAP + 1;

/// One span and the pool's partial list. `free` is plain data of the owner: loom reports two
/// threads that access it at the same time.
struct World {
    shake: Handshake,
    remote: AtomicU64,
    free: UnsafeCell<u64>,
    /// The contents of the blocks: the thread that has a block writes it.
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

    /// Does what `Heap::send_home` does with a block of another owner.
    fn free(&self, bit: u64, heir: u64) -> Freed {
        self.write(bit);
        let freed = self.shake.free_remote(&self.remote, 0, bit, heir);
        if freed == Freed::ToPool {
            self.pool.lock().unwrap().push(SpanId(0), self);
        }
        assert!(!matches!(freed, Freed::Twice(_)));
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

    /// Writes to these blocks, which the calling thread has.
    fn write(&self, bits: u64) {
        (0..2)
            .filter(|i| bits >> i & 1 == 1)
            .for_each(|i| self.blocks[i].with_mut(|_| ()));
    }

    /// Does what `Heap::has_blocks` does with a full span: the answer is true if a block came home,
    /// and false if nobody owns the span now.
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

    /// Asserts that the span is not lost, and that it is listed if and only if the pool owns it.
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

/// Starts another thread that frees the first block.
fn freer(world: &Arc<World>) -> JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || {
        let _ = world.free(1, POOL);
    })
}

#[test]
pub fn remote_frees_against_disowning() {
    explore(|| {
        let world = World::full();
        let freers = [1, 2].map(|bit| {
            let world = world.clone();
            thread::spawn(move || {
                let _ = world.free(bit, POOL);
            })
        });
        if !world.has_blocks(ME) && world.take_from_pool(ME) {
            // The other free may not have reached the span yet.
            world.has_blocks(ME);
        }
        let _ = join(freers);
        world.check();
        assert_eq!(world.bits(), 3, "a block is lost");
    });
}

#[test]
pub fn one_remote_free_against_disowning() {
    explore(|| {
        let world = World::full();
        let freer = freer(&world);
        if world.has_blocks(ME) {
            assert_eq!(world.take_all(), 1);
        }
        freer.join().unwrap();
        world.check();
    });
}

#[test]
pub fn remote_frees_against_collection() {
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
pub fn remote_free_against_release_and_reuse() {
    explore(|| {
        let world = World::full();
        let freer = freer(&world);
        world.collect();
        if world.take_all() == 1 {
            // The span's only block is home. The thread releases the span and uses its slots at
            // once for a new span, which is full. The freer may still be between its two steps.
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
pub fn last_owner_takes_its_span_back_or_the_pool_gets_it() {
    explore(|| {
        let world = World::full();
        assert!(!world.has_blocks(ME));
        let freer = freer(&world);
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

/// The block of a span that has no other is freed twice: one of both gets the span, as its last
/// owner has left it.
#[test]
pub fn a_block_that_is_a_span_has_one_heir() {
    explore(|| {
        let world = World::full();
        let take_back = |world: &World, me| {
            let mine = world.shake.retake(me);
            if mine {
                world.free.with_mut(|f| unsafe { *f += 1 });
            }
            mine
        };
        let other = {
            let world = world.clone();
            thread::spawn(move || take_back(&world, OTHER))
        };
        world.free.with_mut(|f| unsafe { *f = 0 });
        world.shake.hand_out();
        let mine = take_back(&world, ME);
        let theirs = other.join().unwrap();
        assert!(mine != theirs, "one of them frees the block");
        assert_eq!(world.shake.owner(), if mine { ME } else { OTHER });
        assert_eq!(world.bits(), 1);
    });
}

#[test]
pub fn partial_list_has_one_taker_for_each_span() {
    explore(|| {
        let world = World::full();
        assert!(!world.has_blocks(ME));
        let freer = freer(&world);
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

/// The heap of an ended thread waits for a new thread, which gets the heap's memory by the lock on
/// the ids (`pool/heaps.rs`) and its spans by the owner word. The new thread has the old thread's
/// id, and with it the right that `last_owner` promises.
#[test]
pub fn a_recycled_heap_takes_its_spans_back() {
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
        // The thread ends: its span is full and owned by nobody, or a block came home and the pool
        // gets the span.
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

/// The threads of a CPU take from a nursery's span under its lock, whose value says whether the
/// span is still the nursery's; what they have taken they free as any other thread does.
#[test]
pub fn threads_of_a_nursery_take_and_free() {
    explore(|| {
        let world = World::full();
        let nursery = Arc::new(Mutex::new(true));
        let threads = [1, 2].map(|bit| {
            let (world, nursery) = (world.clone(), nursery.clone());
            thread::spawn(move || {
                let _ = world.free(bit, POOL);
                let mut is_owner = nursery.lock().unwrap();
                if !*is_owner {
                    return 0;
                }
                *is_owner = world.has_blocks(ME);
                if *is_owner { world.take_all() } else { 0 }
            })
        });
        let [first, second] = join(threads);
        assert_eq!(first & second, 0, "one block in two hands");
        assert_eq!(first | second | world.bits(), 3, "a block is lost");
        world.check();
    });
}
