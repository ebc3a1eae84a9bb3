//! One thread switches the fronts back and forth while eight others allocate, free, hand blocks
//! over, end and fork. Every block's content is compared when the block is freed, and in the end no
//! slot of the heap is in use.
//!
//! `FRONTS_SECONDS` in the environment is the length of the test in seconds (3 without it).
#![allow(unsafe_code)] // Calls the allocator directly, and fork.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use theap::{Classes, Front, raw};

const THREADS: usize = 8;
/// Slots of a thread: each holds a block or none.
const SLOTS: usize = 600;
/// The most blocks on the shelf, through which threads hand blocks to each other.
const SHELF: usize = 2000;

/// A block of words whose values follow from its address and its size.
#[derive(Clone, Copy)]
struct Block {
    address: usize,
    words: usize,
}

impl Block {
    fn new(size: usize) -> Self {
        let block = Self {
            address: raw::alloc(size) as usize,
            words: size / 8,
        };
        assert_ne!(block.address, 0);
        for i in 0..block.words {
            // SAFETY: the word lies within the block.
            unsafe { (block.address as *mut usize).add(i).write(block.word(i)) };
        }
        block
    }

    fn word(&self, i: usize) -> usize {
        (self.address ^ self.words).rotate_left(i as u32 % 64)
    }

    fn is_intact(&self) -> bool {
        // SAFETY: the word lies within the block, which is live.
        (0..self.words)
            .all(|i| unsafe { (self.address as *mut usize).add(i).read() } == self.word(i))
    }

    fn free(self) {
        assert!(self.is_intact(), "{:#x} was written to", self.address);
        // SAFETY: the block is live, and the caller is its only holder.
        unsafe { raw::free(self.address as *mut u8) };
    }
}

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize
    }

    /// A random size. Most sizes are of few classes, so that arrays and lists run full.
    fn size(&mut self) -> usize {
        match self.next() % 100 {
            0..70 => 16 + self.next() % 64,
            70..95 => 16 + self.next() % 1000,
            _ => 16 + self.next() % 40_000,
        }
    }
}

/// Lives the life of a thread: blocks come and go, also in bursts, and other threads free some.
fn live(dice: &mut Dice, shelf: &Mutex<Vec<Block>>, lives_on: impl Fn() -> bool) {
    let mut slots: Vec<Option<Block>> = vec![None; SLOTS];
    while lives_on() {
        for _ in 0..500 {
            let slot = dice.next() % SLOTS;
            match slots[slot].take() {
                Some(block) => block.free(),
                None => slots[slot] = Some(Block::new(dice.size())),
            }
        }
        let size = dice.size().min(1000);
        let burst: Vec<_> = (0..dice.next() % 900).map(|_| Block::new(size)).collect();
        burst.into_iter().for_each(Block::free);
        let mut shelf = shelf.lock().unwrap();
        for _ in 0..50 {
            let slot = dice.next() % SLOTS;
            if shelf.len() < SHELF {
                shelf.extend(slots[slot].take());
            }
            if dice.next().is_multiple_of(2) && !shelf.is_empty() {
                let at = dice.next() % shelf.len();
                shelf.swap_remove(at).free();
            }
        }
    }
    // Some of the remaining blocks outlive the thread.
    let mut shelf = shelf.lock().unwrap();
    for (i, block) in slots.into_iter().flatten().enumerate() {
        if i % 8 == 0 {
            shelf.push(block);
        } else {
            block.free();
        }
    }
}

/// Forks a child that compares its copy of the thread's blocks, and allocates and frees under both
/// fronts.
fn fork(dice: &mut Dice) {
    let mine: Vec<_> = (0..200).map(|_| Block::new(dice.size())).collect();
    // SAFETY: the child uses this thread's memory and theap alone, and ends without unwinding.
    let pid = unsafe { libc::fork() };
    assert_ne!(pid, -1);
    if pid == 0 {
        let mut intact = true;
        for round in 0..20 {
            theap::set_front([Front::Classic, Front::Theap][round % 2]);
            let mut more = [None; 300];
            more.fill_with(|| Some(Block::new(dice.size())));
            for block in more.into_iter().flatten() {
                intact &= block.is_intact();
                block.free();
            }
        }
        intact &= mine.iter().all(Block::is_intact);
        // SAFETY: the call ends the child and does not run the parent's exit handlers.
        unsafe { libc::_exit(i32::from(!intact)) };
    }
    let mut status = 0;
    // SAFETY: `status` is live and writable.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "the child died");
    mine.into_iter().for_each(Block::free);
}

#[test]
fn fronts_switch_back_and_forth_under_load() {
    let seconds = std::env::var("FRONTS_SECONDS").map_or(3, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let (shelf, stop, lives) = (
        &Mutex::new(Vec::new()),
        &AtomicBool::new(false),
        &AtomicU64::new(0),
    );
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut dice = Dice(0x9E37_79B9_7F4A_7C15 + thread as u64);
                while !stop.load(Ordering::Relaxed) {
                    // A thread of its own lives for some tens of milliseconds.
                    let until =
                        Instant::now() + Duration::from_millis(20 + dice.next() as u64 % 80);
                    let mut child = Dice(dice.next() as u64 | 1);
                    thread::scope(|life| {
                        life.spawn(move || {
                            live(&mut child, shelf, || Instant::now() < until);
                        });
                    });
                    lives.fetch_add(1, Ordering::Relaxed);
                    if thread == 0 {
                        fork(&mut dice);
                    }
                }
            });
        }
        let mut dice = Dice(42);
        while Instant::now() < end {
            match dice.next() % 3 {
                0 => theap::set_front(Front::Classic),
                1 => theap::set_front(Front::Theap),
                _ => theap::set_classes(Classes::from_bits(dice.next() as u64)),
            }
            thread::sleep(Duration::from_micros(dice.next() as u64 % 3000));
        }
        stop.store(true, Ordering::Relaxed);
    });
    shelf.lock().unwrap().drain(..).for_each(Block::free);
    // A scope does not wait for the ends of its threads, at which their heaps are retired.
    let patience = Instant::now() + Duration::from_secs(10);
    let stats = loop {
        theap::purge();
        let stats = theap::stats();
        if stats.active == 0 || Instant::now() > patience {
            break stats;
        }
        thread::sleep(Duration::from_millis(1));
    };
    println!("{} lives, {stats:?}", lives.load(Ordering::Relaxed));
    assert_eq!(stats.active, 0, "slots are lost");
    if cfg!(all(feature = "magazines", feature = "stats")) {
        assert!(stats.totals.classes_switched > 100 && stats.totals.spills > 100);
    }
}

#[test]
fn gates_are_what_was_set() {
    if std::env::var_os("THEAP_FRONT").is_some() || std::env::var_os("THEAP_CLASSES").is_some() {
        return println!("skipped: the environment sets the gates");
    }
    // This needs a process of its own, because the other test sets the gates too.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_a_process_of_its_own", "--ignored"])
        .env("THEAP_FRONT", "classic")
        .env("THEAP_CLASSES", "0-3,7")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
#[ignore = "the test above runs it: cargo test -p theap --test fronts"]
fn in_a_process_of_its_own() {
    assert_eq!(theap::gates(), None);
    // SAFETY: the block is new, and freed once.
    let work = || unsafe { raw::free(raw::alloc(1)) };
    work();
    let some = Classes::from_bits(0b1000_1111);
    assert_eq!(theap::gates(), Some((Front::Classic, some)));
    theap::set_front(Front::Theap);
    theap::collect();
    let switched = u64::from(cfg!(all(feature = "magazines", feature = "stats")));
    assert_eq!(theap::stats().totals.classes_switched, 5 * switched);
    theap::set_classes(Classes::ALL);
    theap::collect();
    assert_eq!(theap::stats().totals.classes_switched, 64 * switched);
    assert_eq!(theap::gates(), Some((Front::Theap, Classes::ALL)));
}
