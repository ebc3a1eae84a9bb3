//! Many threads on the heap: they hand blocks over, come and go, run destructors after the heap of
//! their thread is retired, or only free. theap is the global allocator, so the channels and the
//! threads themselves live on it too.
#![allow(unsafe_code)] // Uses keys of the C library, and a function that runs before main.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use theap::Theap;

#[global_allocator]
static HEAP: Theap = Theap::new();

/// The tests of this file. Each has a thread, which may begin during another test and waits for its
/// turn.
const TESTS: usize = 4;

/// Lets the tests run one at a time, because they read figures of the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes by which the mapped memory may still grow after the first quarter of a test. Without
/// the shared pool a heap takes a SuperSlab of its own for each class, and chance decides late
/// which classes it sees.
const LATE: u64 = if cfg!(feature = "shared-pool") {
    8 << 20
} else {
    128 << 20
};

fn mapped() -> u64 {
    let stats = theap::stats();
    stats.mapped()
}

/// A block that knows its content.
struct Parcel {
    words: Vec<u64>,
    seed: u64,
}

impl Parcel {
    /// Makes a parcel: most are small, some have several KiB, and a few are runs.
    fn new(seed: u64) -> Self {
        let words = match seed % 1000 {
            0 => 40_000,
            1..40 => seed % 4000,
            _ => seed % 100,
        };
        Self {
            words: vec![seed; words as usize + 1],
            seed,
        }
    }

    fn check(&self) {
        assert!(
            self.words.iter().all(|&word| word == self.seed),
            "parcel {}",
            self.seed
        );
    }
}

/// A sequence of numbers that look random.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

#[test]
fn sixty_four_threads_hand_over() {
    const THREADS: u64 = 64;
    const PARCELS: u64 = 5000;
    let _alone = alone();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| channel::<Parcel>()).unzip();
    let received = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(me, inbox)| {
            let (senders, received) = (senders.clone(), received.clone());
            let mut dice = Dice(me as u64);
            let take = move |parcel: Parcel| {
                parcel.check();
                received.fetch_add(1, Ordering::Relaxed);
            };
            thread::spawn(move || {
                for _ in 0..PARCELS {
                    let to = dice.next() % THREADS;
                    senders[to as usize].send(Parcel::new(dice.next())).unwrap();
                    inbox.try_iter().for_each(&take);
                }
                drop(senders);
                inbox.iter().for_each(&take);
            })
        })
        .collect();
    drop(senders);
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(received.load(Ordering::Relaxed), THREADS * PARCELS);
}

#[test]
fn thousands_of_threads_come_and_go() {
    const LIVE: usize = 32;
    const THREADS: u64 = 4000;
    let _alone = alone();
    let heaps = theap::stats().heaps;
    let shelf = Arc::new(Mutex::new(VecDeque::new()));
    let mut live = VecDeque::new();
    let mut warm = 0;
    for number in 0..THREADS {
        if live.len() == LIVE {
            live.pop_front()
                .map(thread::JoinHandle::join)
                .unwrap()
                .unwrap();
        }
        let shelf = shelf.clone();
        live.push_back(thread::spawn(move || {
            let mut dice = Dice(number);
            let mine: Vec<_> = (0..60).map(|_| Parcel::new(dice.next())).collect();
            // Other threads free half of the blocks, many of them after the thread that allocated
            // them has ended.
            let taken: Vec<Parcel> = {
                let mut shelf = shelf.lock().unwrap();
                let surplus = shelf.len().saturating_sub(1000);
                let taken = shelf.drain(..surplus).collect();
                shelf.extend(mine.into_iter().step_by(2));
                taken
            };
            taken.iter().for_each(Parcel::check);
        }));
        if number == THREADS / 4 {
            warm = mapped();
        }
    }
    live.into_iter().for_each(|thread| thread.join().unwrap());
    shelf.lock().unwrap().iter().for_each(Parcel::check);
    let made = theap::stats().heaps - heaps;
    assert!(
        made <= (LIVE + TESTS) as u64,
        "{made} new heaps for {LIVE} threads at once"
    );
    assert!(
        mapped() <= warm + LATE,
        "{warm} bytes mapped after a quarter, {} at the end",
        mapped()
    );
}

/// A key of the C library that is older than the heap's own key, so that its destructor runs first.
static EARLY: AtomicU32 = AtomicU32::new(0);
/// The bytes of addresses that the heap had reserved when that key was created.
static RESERVED_EARLY: AtomicU64 = AtomicU64::new(u64::MAX);
/// The number of destructors that have run.
static DESTROYED: AtomicUsize = AtomicUsize::new(0);

/// Runs before main, and so before the first allocation.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn before_main() {
        RESERVED_EARLY.store(theap::stats().address_space, Ordering::Relaxed);
        EARLY.store(create_key(), Ordering::Relaxed);
    }
    before_main
};

fn create_key() -> libc::pthread_key_t {
    let mut key = 0;
    // SAFETY: the call writes the key to a local variable; the destructor gets the values that
    // `set_key` sets.
    let created = unsafe { libc::pthread_key_create(&mut key, Some(destroy)) };
    assert_eq!(created, 0);
    key
}

/// Gives a key of this thread parcels as its value. `destroy` frees them and sets the key anew,
/// until it has run `rounds` times.
fn set_key(key: libc::pthread_key_t, rounds: u32) {
    let legacy = Box::new(Legacy {
        key,
        rounds,
        parcels: (0..50)
            .map(|k| Parcel::new(u64::from(rounds) * 100 + k))
            .collect(),
    });
    // SAFETY: the key exists, and its destructor takes the box.
    let set = unsafe { libc::pthread_setspecific(key, Box::into_raw(legacy).cast()) };
    assert_eq!(set, 0);
}

struct Legacy {
    key: libc::pthread_key_t,
    rounds: u32,
    parcels: Vec<Parcel>,
}

unsafe extern "C" fn destroy(value: *mut c_void) {
    // SAFETY: the value is a box that `set_key` made, and the C library passes each value once.
    let legacy = unsafe { Box::from_raw(value.cast::<Legacy>()) };
    legacy.parcels.iter().for_each(Parcel::check);
    DESTROYED.fetch_add(1, Ordering::Relaxed);
    if legacy.rounds > 1 {
        set_key(legacy.key, legacy.rounds - 1);
    }
}

struct Local(Vec<Parcel>);

impl Drop for Local {
    fn drop(&mut self) {
        self.0.iter().for_each(Parcel::check);
        self.0 = (0..20).map(Parcel::new).collect();
        DESTROYED.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local! {
    static LOCAL: RefCell<Local> = const { RefCell::new(Local(Vec::new())) };
}

#[test]
fn destructors_free_and_allocate_after_the_heap_is_retired() {
    const LIVE: usize = 4;
    const THREADS: usize = 400;
    let _alone = alone();
    assert_eq!(
        RESERVED_EARLY.load(Ordering::Relaxed),
        0,
        "the early key is older than the heap"
    );
    let (early, late) = (EARLY.load(Ordering::Relaxed), create_key());
    assert!(early < late, "destructors run in the order of their keys");
    let heaps = theap::stats().heaps;
    let mut warm = 0;
    for round in 0..THREADS / LIVE {
        let threads: Vec<_> = (0..LIVE)
            .map(|_| {
                thread::spawn(move || {
                    LOCAL.with_borrow_mut(|local| local.0 = (0..50).map(Parcel::new).collect());
                    // This makes three rounds of destructors. In the last round that the C library
                    // runs, the heap's own destructor must still come after the last allocation.
                    set_key(early, 3);
                    set_key(late, 3);
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        if round == THREADS / LIVE / 4 {
            warm = mapped();
        }
    }
    assert_eq!(DESTROYED.load(Ordering::Relaxed), THREADS * (1 + 3 + 3));
    let made = theap::stats().heaps - heaps;
    assert!(
        made <= (LIVE + TESTS) as u64,
        "{made} new heaps for {LIVE} threads at once"
    );
    assert!(
        mapped() <= warm + LATE,
        "{warm} bytes mapped after a quarter, {} at the end",
        mapped()
    );
}

#[test]
fn a_thread_that_only_frees_keeps_nothing() {
    const ROUNDS: usize = 10;
    const BATCHES: usize = 1000;
    const BATCH: usize = 1000;
    let _alone = alone();
    let (send, receive) = sync_channel::<Vec<Box<[u64]>>>(4);
    let producer = thread::spawn(move || {
        let mut dice = Dice(7);
        for _ in 0..ROUNDS * BATCHES {
            let batch = (0..BATCH)
                .map(|_| vec![1; 1 + dice.next() as usize % 24].into())
                .collect();
            send.send(batch).unwrap();
        }
    });
    let mut mapped_after = Vec::new();
    for _ in 0..ROUNDS {
        receive.iter().take(BATCHES).for_each(drop);
        mapped_after.push(mapped());
    }
    producer.join().unwrap();
    let warm = mapped_after[ROUNDS / 3];
    assert!(
        mapped_after.iter().all(|&bytes| bytes <= warm + LATE),
        "{mapped_after:?}"
    );
}
